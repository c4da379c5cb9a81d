"""XML: feeds, news, journal articles and all other vocabularies; also XML that is not well-formed."""

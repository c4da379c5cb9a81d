"""XML: feeds, news, journal articles and all other vocabularies; also what is not well-formed."""

"""One document: from its entry to its outcome, with all its requests. Imported by the rest of run/."""

"""One document: from its entry to its outcome, with all requests that it takes. Imported by the rest of run/."""

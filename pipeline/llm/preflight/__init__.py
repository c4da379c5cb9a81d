"""Checks that a server must pass before it gets documents: health, model, schema, a trial completion."""

"""A million documents in a thousand chunks, really run: python scripts/million."""

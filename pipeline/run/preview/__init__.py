"""Previews before the first document is sent: `check`, `--dry-run`, costs, and warnings about the input."""

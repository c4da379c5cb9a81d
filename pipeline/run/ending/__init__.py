"""The end of a run: what remains, the exit code, the report, and the grades of the output."""

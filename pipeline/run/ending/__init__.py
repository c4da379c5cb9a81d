"""The end of a run: remaining failures, the exit code, the report, and the grades of the output."""

"""One run: threads, the steps from an entry to its outcome, selection, stop rules, progress and metrics.

`cli`, `engines`, `review` and `api` may import it; it imports every folder below them, and never `cli`.
"""

"""The display of a run in progress: counts, progress, metrics. It makes no decisions."""

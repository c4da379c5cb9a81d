"""What is shown of a run while it goes on: counts, progress, metrics. It decides nothing."""

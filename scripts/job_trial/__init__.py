"""A backfill of the Helm chart, played with processes for pods and ended as its own failure policy says."""

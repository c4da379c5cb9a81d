"""Whether a server reads a prompt to its end: token counts, proofs by repetition and by halves, limits."""

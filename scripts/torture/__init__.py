"""Torture runs: the installed command over a server with every known fault, killed and restarted at random."""

"""Bytes to text: the declared encoding, the meaning of its label, and a guess for files without one."""

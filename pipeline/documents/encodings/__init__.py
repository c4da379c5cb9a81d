"""Bytes to text: the declared encoding, what a declared label means, and a guess where nothing is declared."""

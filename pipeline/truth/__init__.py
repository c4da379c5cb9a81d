"""Grading of answers against gold: comparison of values, grades with intervals, gates.

run, cli, review and api may import it; it must not call a model or read an output.
"""

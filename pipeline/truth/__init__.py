"""How true the answers are: gold, comparison of values, grades with intervals.

run, cli, review and api may import it; it must not call a model or read an output.
"""

"""Profiles of the values of answers, in bounded memory: merged over runs, and compared for drift.

It is pure and imports no other folder; report, run and cli may import it.
"""

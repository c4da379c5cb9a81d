"""Benchmarks: overhead, concurrency, memory, resume and sources, each with a short form for one common table."""

"""Engines hand out the chunks of a plan to many machines: one function that runs a chunk, and thin adapters.

The command line and adapters import it. It must not import the library of an engine: only that engine's adapter does.
"""

from pipeline.engines.chunk_process import ChunkResult, run_chunk

__all__ = ["ChunkResult", "run_chunk"]

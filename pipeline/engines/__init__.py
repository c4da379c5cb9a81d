"""Engines distribute the chunks of a plan to many machines: one function that runs a chunk, and thin adapters.

The command line and adapters import it. Only the adapter of an engine may import that engine's library.
"""

from pipeline.engines.chunk_process import ChunkResult, run_chunk

__all__ = ["ChunkResult", "run_chunk"]

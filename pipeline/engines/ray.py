"""The adapter of Ray: each chunk is a task, which Ray repeats when its node or its worker is lost."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from pipeline.config.installing import install_command
from pipeline.engines.chunk_process import ChunkResult, run_chunk
from pipeline.errors import EXIT_CONFIG, EXIT_INTERNAL, EXIT_LATER, ConfigError, TryLaterError

LOST_TRIES = 10
"""How often Ray repeats a chunk whose node it has lost: spot machines are taken away more than once in a long run."""
_TURN_S = 0.2


class RayEngine:
    """Runs chunks on a cluster of Ray, or on a Ray of its own where there is none."""

    def __init__(self, address: str | None, *, slots: int, chunk: Mapping[str, Any]) -> None:
        """Connect; ConfigError without the extra. `chunk`: the arguments of `run_chunk` but the index."""
        try:
            import ray
        except ImportError as cause:
            raise ConfigError(f"--engine ray: needs a library: {install_command('ray')}") from cause
        self._ray: Any = ray
        self._chunk = chunk
        self._refs: dict[Any, int] = {}
        _connect(ray, address, slots=slots)
        task: Any = ray.remote
        self._task: Any = task(num_cpus=1, max_retries=LOST_TRIES, scheduling_strategy="SPREAD")(run_chunk)

    def submit(self, index: int) -> None:
        """Start a chunk when the cluster has room for it."""
        self._refs[self._task.options(name=f"chunk {index}").remote(index=index, **self._chunk)] = index

    def ended(self) -> list[tuple[int, ChunkResult | None]]:
        """Return the chunks that have ended."""
        ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=_TURN_S)
        return [(self._refs[ref], self._result(ref, self._refs.pop(ref))) for ref in ready]

    def cancel(self) -> None:
        """Interrupt all chunks: their requests in flight finish."""
        for ref in self._refs:
            self._ray.cancel(ref, force=False, recursive=False)

    def close(self) -> None:
        """Disconnect, and end a Ray of our own."""
        self._ray.shutdown()

    def _result(self, ref: Any, index: int) -> ChunkResult | None:
        errors = self._ray.exceptions
        try:
            result: ChunkResult = self._ray.get(ref)
        except errors.TaskCancelledError:
            return None
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.TaskCancelledError):
                return None
            code = EXIT_CONFIG if isinstance(error.cause, ImportError) else EXIT_INTERNAL
            return ChunkResult(index, code, message=f"the task failed: {error.cause!r}")
        except errors.RayError as error:
            return ChunkResult(index, EXIT_LATER, message=f"Ray lost the task: {type(error).__name__}")
        return result


def _connect(ray: Any, address: str | None, *, slots: int) -> None:
    """Connect to the address, RAY_ADDRESS or the Ray of this machine; without any, start one that ends with us."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to third parties
    factory = logging.getLogRecordFactory()
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address=address or "auto", **quiet)
    except ConnectionError as cause:
        if address or os.environ.get("RAY_ADDRESS"):
            raise TryLaterError(f"--engine ray: {cause}") from cause
        ray.init(address="local", num_cpus=slots, include_dashboard=False, object_store_memory=80 << 20, **quiet)
    finally:
        logging.setLogRecordFactory(factory)  # that of Ray adds a field to each line of our log

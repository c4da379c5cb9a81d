"""The adapter of Ray: each chunk is a task, which Ray repeats when its node or its worker is lost."""

from __future__ import annotations

import io
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Any

from pipeline.config.installing import install_command
from pipeline.engines.chunk_process import ChunkResult, run_chunk
from pipeline.errors import EXIT_CONFIG, EXIT_INTERNAL, EXIT_LATER, ConfigError, TryLaterError

logger = logging.getLogger(__name__)

LOST_TRIES = 10
"""Number of times that Ray repeats a chunk whose node is lost: a long run loses spot machines more than once."""
_TURN_S = 0.2
_ANSWERS_S = 10.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def check_ray(address: str | None) -> None:
    """Raise ConfigError without the library or for an invalid address; TryLaterError when nothing answers there.

    Ray itself reports that only after two minutes.
    """
    _library()
    if address is None or address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not (port.isascii() and port.isdigit()):
        raise ConfigError(
            f"--engine ray: got the address {address!r}, need HOST:PORT of the head of the cluster, as `ray start` "
            "prints it; run this command on a node of the cluster, or by `ray job submit`"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_S).close()
    except (OSError, OverflowError) as cause:
        raise TryLaterError(f"--engine ray: no cluster answers at {address}: {cause}") from cause


class RayEngine:
    """Engine that runs chunks on a Ray cluster, or without a cluster on a local Ray."""

    def __init__(self, address: str | None, *, slots: int, chunk: Mapping[str, Any]) -> None:
        """Connect; ConfigError without the extra. `chunk`: the arguments of `run_chunk` except the index."""
        self._ray = _library()
        with _same_log_records():
            _connect(self._ray, address, slots=slots)
        self._chunk = chunk
        self._refs: dict[Any, int] = {}
        self._open = ExitStack()
        self._open.enter_context(redirect_stdout(_LoggedText()))
        task: Any = self._ray.remote
        self._task: Any = task(num_cpus=1, max_retries=LOST_TRIES, scheduling_strategy="SPREAD")(run_chunk)

    def submit(self, index: int) -> None:
        """Start a chunk when the cluster has room for it."""
        self._refs[self._task.options(name=f"chunk {index}").remote(index=index, **self._chunk)] = index

    def ended(self) -> list[tuple[int, ChunkResult | None]]:
        """Return the chunks that have ended; TryLaterError when the node of this command is lost."""
        try:
            ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=_TURN_S)
            return [(self._refs[ref], self._result(ref, self._refs.pop(ref))) for ref in ready]
        except (OSError, self._ray.exceptions.RaySystemError) as cause:
            raise TryLaterError(
                f"--engine ray: the connection to Ray is lost: {cause}; run it again to resume"
            ) from cause

    def cancel(self) -> None:
        """Interrupt all chunks; requests in flight are allowed to finish."""
        for ref in self._refs:
            self._ray.cancel(ref, force=False, recursive=False)

    def close(self) -> None:
        """Disconnect, and end Ray if this process has started it."""
        with self._open:
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


class _LoggedText(io.TextIOBase):
    """Log of the lines that Ray prints about its nodes: standard output is for the summary."""

    def write(self, text: str) -> int:
        """Log each line."""
        for line in _COLOUR.sub("", text).splitlines():
            if line.strip():
                logger.warning("Ray: %s", line.strip())
        return len(text)


@contextmanager
def _same_log_records() -> Iterator[None]:
    """Keep Ray from adding a field to each line of the log."""
    factory = logging.getLogRecordFactory()
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)


def _library() -> Any:
    try:
        with _same_log_records():
            import ray
    except ImportError as cause:
        raise ConfigError(f"--engine ray: needs a library: {install_command('ray')}") from cause
    return ray


def _connect(ray: Any, address: str | None, *, slots: int) -> None:
    """Connect to the address, RAY_ADDRESS or the Ray of this machine; without one, start a Ray for this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to third parties
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address != "local":
            logger.info("connecting to Ray, which may take some seconds", extra={"address": address or "auto"})
            ray.init(address=address or "auto", **quiet)
            return
    except ConnectionError as cause:
        if address or os.environ.get("RAY_ADDRESS"):
            hint = "a cluster with tokens needs RAY_AUTH_MODE=token"
            raise TryLaterError(f"--engine ray: {cause} ({hint})") from cause
    except RuntimeError as cause:
        raise TryLaterError(f"--engine ray: {cause}") from cause
    logger.info("starting a Ray on this machine, which ends with this command")
    ray.init(address="local", num_cpus=slots, include_dashboard=False, object_store_memory=80 << 20, **quiet)

"""Submit the chunks of a plan to an engine: at most N at a time, each until it has ended for good.

It must not know an engine: an adapter submits, waits and cancels. It writes no output.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.engines.chunk_process import ChunkResult
from pipeline.errors import EXIT_CONFIG, EXIT_FAILURES, EXIT_INTERNAL, EXIT_LATER, EXIT_OK

logger = logging.getLogger(__name__)

MOST_TRIES = 4
"""A chunk that ends early is tried again as often as by the chart's Job (`backoffLimitPerIndex` 3)."""
_WORST_FIRST = (EXIT_INTERNAL, EXIT_CONFIG, EXIT_FAILURES, EXIT_LATER, EXIT_OK)


class Engine(Protocol):
    """A service that runs chunks elsewhere. `ended` waits for a moment only; a cancelled chunk has no result (None)."""

    def submit(self, index: int) -> None: ...

    def ended(self) -> list[tuple[int, ChunkResult | None]]: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class HandOut:
    """The state of all chunks. `ended`: the final result of each ended chunk; `left`: the chunks without one."""

    waiting: deque[int]
    running: set[int] = field(default_factory=set)
    tries: dict[int, int] = field(default_factory=dict)
    ended: dict[int, ChunkResult] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The worst exit code of the chunks that have ended; a chunk that was stopped or killed can go on."""
        codes = (_code(result.exit_code) for result in self.ended.values())
        return min(codes, key=_WORST_FIRST.index, default=EXIT_OK)

    @property
    def is_whole(self) -> bool:
        """True when no chunk and no document is left."""
        return not self.left and not any(result.counts.left for result in self.ended.values())


def hand_out(
    engine: Engine,
    chunks: Iterable[int],
    *,
    slots: int,
    is_stopped: Callable[[], bool],
    may_start: Callable[[], bool] = lambda: True,
    watch: Callable[[HandOut], object] = lambda _: None,
) -> HandOut:
    """Run all chunks and return how they ended.

    A chunk that ends with 0 or 1 is finished. Exit code 2 ends all chunks, as a retry cannot succeed. A chunk with
    any other code is retried, up to MOST_TRIES times. `is_stopped` cancels the running chunks; while `may_start`
    returns False no further chunk is submitted.
    """
    state = HandOut(deque(chunks))
    is_cancelled = False
    while state.running or (state.waiting and not is_cancelled and may_start()):
        while state.waiting and len(state.running) < slots and not is_cancelled and may_start():
            index = state.waiting.popleft()
            state.running.add(index)
            state.tries[index] = state.tries.get(index, 0) + 1
            engine.submit(index)
        for index, result in engine.ended():
            state.running.discard(index)
            _judge(state, index, result, may_repeat=not is_cancelled)
        has_config_error = any(result.exit_code == EXIT_CONFIG for result in state.ended.values())
        if not is_cancelled and (is_stopped() or has_config_error):
            is_cancelled = True
            engine.cancel()
        watch(state)
    state.left.extend(state.waiting)
    return state


def _judge(state: HandOut, index: int, result: ChunkResult | None, *, may_repeat: bool) -> None:
    if result is None:
        state.left.append(index)
        return
    fields = {"chunk": index, "exit_code": result.exit_code, **dict(result.counts.items())}
    if result.exit_code in (EXIT_OK, EXIT_FAILURES, EXIT_CONFIG):
        state.ended[index] = result
    elif may_repeat and state.tries[index] < MOST_TRIES:
        logger.warning("chunk %d ended early and is run again: %s", index, result.message, extra=fields)
        state.waiting.append(index)
        return
    else:
        state.ended[index] = result
    if result.exit_code:
        logger.error("chunk %d failed: %s", index, result.message, extra=fields)
    else:
        logger.info("chunk ends", extra=fields)


def _code(code: int) -> int:
    return code if code in _WORST_FIRST else EXIT_LATER

"""A limit for a block of code as a share of the helper's CPU time for a document, so that a slow library is abandoned.

It has an effect only where the helper has set its own limit (process.py). Code in C is interrupted only when it returns
to Python; the helper's own limit ends code that never returns.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class OverShareError(BaseException):
    """The block took its share of CPU time. A BaseException, so that no library catches it by mistake."""


@contextmanager
def cpu_share(share: float) -> Iterator[None]:
    """Raise OverShareError in the block when it takes more than this share of the CPU time that is left."""
    left_s, _ = signal.getitimer(signal.ITIMER_PROF)
    if not left_s:
        yield
        return

    def give_up(*_: object) -> None:
        raise OverShareError

    old_handler = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, share * left_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old_handler)

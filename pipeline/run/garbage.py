"""Garbage collection during a run: rare, as almost all objects of a document are freed without it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 20_000
"""New containers between two collections. With Python's 700, the objects of 256 documents in flight are examined again
and again, which takes 5 % of the CPU; 20,000 small containers have about two megabytes."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect rarely, and leave out all objects that exist before; restore both in the end."""
    thresholds = gc.get_threshold()
    is_frozen = gc.get_freeze_count() > 0
    if not is_frozen:
        gc.freeze()
    gc.set_threshold(max(thresholds[0], YOUNG_OBJECTS) if thresholds[0] else 0, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not is_frozen:
            gc.unfreeze()

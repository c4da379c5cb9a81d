"""The limits of this machine: open files, and so documents in flight.

It must not change anything outside this process.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
from contextlib import suppress

logger = logging.getLogger(__name__)

ENOUGH_FILES = 65_536
RESERVED_FILES = 72
"""Logs, index, output, listing, libraries, health requests; measured: 31 with a local output, 55 with a store's."""

FILES_PER_DOCUMENT = 2
"""The connection of a document, and its file while it is read."""


MALLOC_ARENAS = 2
_M_ARENA_MAX = -8
"""The parameter of glibc's mallopt(3)."""


def limit_arenas() -> bool:
    """Limit the number of malloc's memory pools; return False where that is impossible, or set by the user.

    By default glibc has eight pools for each core, and each pool keeps memory that large documents have freed: with 70
    documents of 2.5 MB and 32 in flight, 237 MB instead of 143 MB.
    """
    if os.environ.get("MALLOC_ARENA_MAX"):
        return False
    with suppress(OSError, AttributeError):  # other C libraries have no mallopt
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, MALLOC_ARENAS))
    return False


def raise_open_files() -> None:
    """Raise the soft limit of open files as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(ENOUGH_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= limit:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (ValueError, OSError) as cause:  # macOS allows less than its hard limit
        logger.info("the limit of open files cannot be raised", extra={"limit": soft, "why": str(cause)})


def most_in_flight() -> int:
    """Return how many documents may be in flight within the limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = ENOUGH_FILES if soft == resource.RLIM_INFINITY else soft
    return max(1, (files - RESERVED_FILES) // FILES_PER_DOCUMENT)


def fitting(requested: int, *, setting: str) -> int:
    """Return how many documents may be in flight within the limit of open files; log a warning when that is fewer."""
    highest = most_in_flight()
    if requested <= highest:
        return requested
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    message = "%s %d is reduced to %d: this process may open %d files; raise the limit (ulimit -n) for more"
    logger.warning(message, setting, requested, highest, soft)
    return highest

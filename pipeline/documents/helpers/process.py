"""The helper process: decodes documents one after the other, within limits.

It reads requests from its standard input and writes replies to its standard output (`helpers/pool.py` is the other
end). A document that exceeds its CPU limit kills the process by SIGPROF, which no library can block; a document that
exceeds its memory limit fails in the process. When the run ends, the standard input ends: this ends the loop, and
during a decoding the kernel kills the process by SIGIO. It must not read files, use the network or log.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import resource
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, Any

from pipeline.documents.containers import Format
from pipeline.documents.decode import Decoded
from pipeline.documents.extras import LIBRARIES
from pipeline.documents.formats import BY_NAME
from pipeline.documents.helpers.messages import read_message, write_message
from pipeline.documents.helpers.split import send_pieces
from pipeline.documents.tables.parquet import group_places, rows
from pipeline.errors import DocumentError

ROWS = {"parquet": rows}
"""The functions that split a file of many documents, by the names of formats."""
PLACES = {"parquet": group_places}
"""The functions that find where such a file may be divided."""


def main() -> None:
    """Serve requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in (signal.SIGIO, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGIO, signal.SIGPROF))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests = os.fdopen(0, "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints must not break a reply
    base_bytes = _size_bytes()
    while (request := read_message(requests)) is not None:
        form = BY_NAME[request[0]["format"]]
        base_bytes += _import(form)
        reply = _split(form, request[0], requests, replies) if "split" in request[0] else _decode(form, *request)
        reply["last"] = _is_bloated(_size_bytes() - base_bytes, request[0]["memory_mb"])
        with suppress(BrokenPipeError):
            write_message(replies, reply)
        if reply["last"]:
            break


def _decode(form: Format, request: dict[str, Any], data: bytes) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        _limit(request["cpu_s"], request["memory_mb"])
        decoded: Decoded = form.decode(data, request["text_field"])
        return {
            "text": decoded.text,
            "metadata": dict(decoded.metadata),
            "notes": decoded.notes,
            "pages": decoded.pages,
        }

    return _reply(work)


def _split(form: Format, request: dict[str, Any], requests: IO[bytes], replies: IO[bytes]) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        renew = partial(signal.setitimer, signal.ITIMER_PROF, request["cpu_s"])
        # not killed by its input: the file's bytes come there
        _limit(request["cpu_s"], request["memory_mb"], watches_input=False)
        work_of = PLACES if "places" in request["split"] else ROWS
        send_pieces(work_of[form.name], request["split"], requests, replies, renew)
        return {"end": True}

    return _reply(work)


def _import(form: Format) -> int:
    """Import the library of a format, outside of the limits of documents; return the bytes that it takes."""
    size_before = _size_bytes()
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # others reserve address space, which is limited
    for extra in filter(None, (form.extra, form.decoder_extra)):
        with suppress(ImportError):
            importlib.import_module(LIBRARIES[extra])
    return _size_bytes() - size_before


def _reply(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of some work as a reply, or its problem."""
    try:
        reply = work()
    except DocumentError as problem:
        reply = {
            "reason": problem.reason,
            "message": str(problem),
            "stage": problem.stage,
            "again": problem.is_transient,
        }
    except MemoryError:
        reply = {"memory": True}
    except ImportError as cause:
        message = f"reading it needs the library {cause.name}, which cannot be imported"
        reply = {"reason": "document_unreadable", "message": message, "stage": "load", "again": True}
    except Exception as fault:  # parsers raise anything for a damaged file; the parent must get a reply
        place = traceback.extract_tb(fault.__traceback__)[-1]  # its message might quote the document
        reply = {"fault": f"{type(fault).__name__} in {place.name} line {place.lineno}"}
    finally:
        _limit(0, None)
    return reply


def _limit(cpu_s: float, memory_mb: float | None, *, watches_input: bool = True) -> None:
    """Set the limits of the next document; 0 and None remove them."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    flags = fcntl.fcntl(0, fcntl.F_GETFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC if cpu_s and watches_input else flags & ~os.O_ASYNC)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = hard if memory_mb is None else _size_bytes() + int(memory_mb * (1 << 20))
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (soft if hard < 0 else min(soft, hard), hard))


def _size_bytes() -> int:
    """Return the bytes of address space in use on Linux; 0 elsewhere."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _is_bloated(kept_bytes: int, memory_mb: float) -> bool:
    """Return whether memory kept from earlier documents exceeds 64 MiB plus a quarter of the limit."""
    return kept_bytes > (64 << 20) + int(memory_mb * (1 << 18))

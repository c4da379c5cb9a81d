"""Detection of exhausted resources of this machine by their exceptions; these are never a document's fault."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import InternalError, PipelineError, TryLaterError
from pipeline.stores import MachineTroubleError, ReadingStoppedError, is_trouble

_ORDINARY_BYTES = 64 << 20
"""Six times the default of `input.max_document_bytes`: its bytes, its text, the prompt and the request's body."""

THREAD_ENDS = (PipelineError, ReadingStoppedError, MemoryError)
"""The exceptions that may end a thread of a run, besides internal errors."""


def shortage_of(fault: BaseException) -> str | None:
    """Return the exhausted resource, for a message; None for any other error."""
    if isinstance(fault, MemoryError):
        return "memory"
    if isinstance(fault, MachineTroubleError):
        return f"what it needs ({fault.strerror})"
    if isinstance(fault, OSError) and is_trouble(fault):
        return fault.strerror or type(fault).__name__
    # CPython 3.10 to 3.13 raise a plain RuntimeError with this text
    return "threads" if type(fault) is RuntimeError and "can't start new thread" in str(fault) else None


def has_memory() -> bool:
    """Return True when this machine has memory for an ordinary document; the failed one is then too large."""
    try:
        bytearray(_ORDINARY_BYTES)
    except MemoryError:
        return False
    return True


def run_thread(body: Callable[[], object], report: Callable[[PipelineError], object], *, name: str) -> None:
    """Run a thread's body; report the error that ends it."""
    end: PipelineError | None = InternalError(f"the {name} ended by an internal error; the log has the traceback")
    try:
        body()
        end = None
    except THREAD_ENDS as cause:
        end = _end_of_thread(cause, name=name)
    finally:
        if end is not None:
            report(end)


def _end_of_thread(cause: BaseException, *, name: str) -> PipelineError | None:
    """Return the error that ends the run after a thread has ended; None when the run is already ending."""
    if isinstance(cause, PipelineError):
        return cause
    if isinstance(cause, MemoryError):
        return TryLaterError(f"the {name} ran out of memory; lower runner.concurrency, or give this machine more")
    return None


def place_of(fault: BaseException) -> str:
    """Return the place of an error in the code; used instead of its message, which might quote the document."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_name} line {trace.tb_lineno}" if trace else "unknown"

"""Conversion of object-store errors into the errors that end a run.

An error that a person has to fix must become a ConfigError, not a temporary OutputError.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ConfigError, OutputError
from pipeline.stores import StaleVersionError


class DeleteRefusedError(OutputError):
    """The credentials may not delete objects; this is not an outage, as many buckets forbid all deletion."""


@contextmanager
def as_output_errors(where: str, *, opening: bool = False) -> Iterator[None]:
    """Raise OutputError for an OSError in the block, except those by which conditional writes report a conflict.

    `opening`: no record was written yet, so a refusal or a missing bucket is a ConfigError.
    """
    try:
        yield
    except (StaleVersionError, FileExistsError):
        raise
    except OSError as exc:
        if isinstance(exc, (PermissionError, FileNotFoundError)) or exc.errno == errno.EPROTO:
            kind = ConfigError if opening else OutputError
            problem = "does not exist" if isinstance(exc, FileNotFoundError) else "was refused"
            need = "an existing bucket, its region, and credentials that may read and write it"
            hint = f"; need {need}" if opening else ""
            raise kind(f"{where}: {problem}: {exc.strerror}{hint} (output.uri, output.storage)") from exc
        if exc.errno == errno.ENOSYS:
            need = "a store with conditional writes (If-None-Match, If-Match), or an output in a folder"
            raise ConfigError(f"{where}: the store does not implement this: {exc.strerror}; need {need}") from exc
        raise OutputError(f"{where}: the request to the store failed: {exc.strerror or exc}") from exc

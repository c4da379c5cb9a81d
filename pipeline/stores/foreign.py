"""Conversion of all errors of PyPI `obstore` (tried: 0.12) to OSErrors.

It must not retry or log. The library has a class for some statuses; other statuses, and the store's own error code,
which distinguishes refused credentials from a refused request, are only in the text.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import TryLaterError
from pipeline.stores.beneath import StaleVersionError
from pipeline.stores.clouds import error_text
from pipeline.stores.trouble import MissingBucketError, StoreRefusedError

_CREDENTIALS = frozenset(
    {
        *("AccessDenied", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken"),
        *("RequestExpired", "SignatureDoesNotMatch", "TokenRefreshRequired", "UnrecognizedClientException"),
    }
)
"""Codes of refused credentials in a 400 (AWS: ExpiredToken; MinIO and Ceph: InvalidAccessKeyId) or a listing's 403."""

_NO_CREDENTIALS = ("http://169.254.169.254/", "http://169.254.170.2/", "http://metadata.google.internal/")
"""Metadata services of cloud instances and containers, where the library looks for credentials as a last resort."""


@contextmanager
def as_os_errors(uri: str) -> Iterator[None]:
    """Raise an OSError for an exception of the library in the block.

    FileNotFoundError (MissingBucketError), StoreRefusedError, FileExistsError, StaleVersionError, EINVAL for a key
    without a name, EPROTO for another refusal, and ConnectionError for a store that fails or cannot be reached; the
    library panics when this machine has no descriptor left for its threads, which becomes the machine's own errno.
    TryLaterError once such a panic has made the library unusable for this process.
    """
    from obstore import exceptions as theirs

    try:
        yield
    except (theirs.NotFoundError, FileNotFoundError) as cause:  # a stream's is the builtin one
        raise _class_of_missing(str(cause))(errno.ENOENT, error_text(cause), uri) from cause
    except (theirs.PermissionDeniedError, theirs.UnauthenticatedError) as cause:
        raise StoreRefusedError(errno.EACCES, error_text(cause), uri) from cause
    except theirs.AlreadyExistsError as cause:
        raise FileExistsError(errno.EEXIST, error_text(cause), uri) from cause
    except theirs.PreconditionError as cause:
        raise StaleVersionError(errno.ESTALE, "is no longer the requested version", uri) from cause
    except (theirs.InvalidPathError, ValueError) as cause:
        raise OSError(errno.EINVAL, error_text(cause), uri) from cause
    except theirs.BaseError as cause:
        kind, number = _kind_of(str(cause))
        raise kind(number, error_text(cause), uri) from cause
    except BaseException as cause:
        # a panic of the library: its class cannot be imported, and derives from BaseException;
        # seen: `Os { code: 24, kind: TooManyOpenFiles, …`
        if type(cause).__name__ != "PanicException":
            raise
        number_found = re.search(r"\bOs \{ code: (\d+)", str(cause))
        if number_found is None and "PoisonError" in str(cause):
            # the library cannot be used any more after its first panic, so that waiting is useless
            raise TryLaterError(f"{uri}: the store's library failed earlier; run the same command again") from cause
        if number_found is None:
            raise RuntimeError(f"the store's library panicked: {cause}") from cause
        number = int(number_found[1])
        raise OSError(number, os.strerror(number), uri) from cause


def _class_of_missing(text: str) -> type[OSError]:
    return MissingBucketError if _code(text) in ("NoSuchBucket", "ContainerNotFound") else FileNotFoundError


def _kind_of(text: str) -> tuple[type[OSError], int]:
    """Return class and errno for an error without a class of its own, such as a refused listing.

    Seen: `… Server returned non-2xx status code: 404 Not Found: …`, `Received redirect without …`.
    """
    match = re.search(r"status code: (\d{3})\b", text)
    status = int(match[1]) if match else 0
    if match is None and "Received redirect without" in text:
        status = 301
    if status == 404:
        return MissingBucketError, errno.ENOENT
    if status in (401, 403) or _code(text) in _CREDENTIALS or any(place in text for place in _NO_CREDENTIALS):
        return StoreRefusedError, errno.EACCES
    if status == 501:
        return OSError, errno.ENOSYS
    refused = 300 <= status < 500 and status not in (408, 416, 429)
    return (OSError, errno.EPROTO) if refused else (ConnectionError, errno.EIO)


def _code(text: str) -> str:
    """Return the code in a store's XML, or in the library's `… (code: AccessDenied)` for one key of a bulk delete."""
    xml = text.partition("<Code>")[2].partition("</Code>")[0]
    return xml or text.partition("\n")[0].rpartition("(code: ")[2].partition(")")[0]

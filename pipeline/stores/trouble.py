"""Classification of errors as trouble: an outage of a store, a file system or this machine, not of one document.

It must not retry: outage_retry.py does. Errors are recognised by class and errno, never by a message.
"""

from __future__ import annotations

import errno

from pipeline.errors import MACHINE_ERRNOS
from pipeline.stores.beneath import StaleVersionError
from pipeline.stores.folder_names import ChangedFolderError


class StoreRefusedError(PermissionError):
    """A store refuses the credentials, or there are none; renewed ones may be accepted."""


class OwnTroubleError(OSError):
    """One file cannot be read, while other files of the same store can."""


class MachineTroubleError(OSError):
    """This machine lacks a resource that the run needs, with any errno; no file or document is the cause."""


class MissingBucketError(FileNotFoundError):
    """The bucket itself does not exist."""


_FILE_SYSTEM = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.EDQUOT, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EPROTO),
        *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    }
)
"""NFS: EIO, ESTALE, ETIMEDOUT; FUSE: ENOTCONN; a detached disk: ENODEV, ENXIO; EPROTO: a store refuses the request."""


def is_trouble(cause: BaseException) -> bool:
    """Return whether the same read may succeed later, or the error is not about the file that was read."""
    # about this file or folder, whatever the errno
    if isinstance(cause, (StaleVersionError, OwnTroubleError, ChangedFolderError)):
        return False
    if isinstance(cause, (ConnectionError, StoreRefusedError, MissingBucketError, MachineTroubleError)):
        return True
    return isinstance(cause, OSError) and cause.errno in MACHINE_ERRNOS | _FILE_SYSTEM


def is_shortage(cause: OSError) -> bool:
    """Return whether this machine is out of resources that other work releases: descriptors, buffers."""
    return cause.errno in MACHINE_ERRNOS and cause.errno != errno.ENOMEM

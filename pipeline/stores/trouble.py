"""Which errors are the trouble of a store, a file system or this machine, and so no document's fault.

It must not retry anything: patience.py does. Told by class and errno, never by a message.
"""

from __future__ import annotations

import errno

from pipeline.stores.beneath import StaleVersionError


class StoreRefusedError(PermissionError):
    """A store refuses the credentials, or there are none; new ones may be accepted."""


class OwnTroubleError(OSError):
    """One file cannot be read, while others of the same store can."""


class MachineTroubleError(OSError):
    """This machine cannot give what a run needs, whatever its errno; no file and no document is the cause."""


class MissingBucketError(FileNotFoundError):
    """The bucket itself is not there, whatever object was named."""


_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_FILE_SYSTEM = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.EDQUOT, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EPROTO),
        *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    }
)
"""NFS: EIO, ESTALE, ETIMEDOUT; FUSE: ENOTCONN; a detached disk: ENODEV, ENXIO; EPROTO: a store refuses the request."""


def is_trouble(cause: BaseException) -> bool:
    """True when the same read may succeed later, or says nothing about the file that was read."""
    if isinstance(cause, (StaleVersionError, OwnTroubleError)):  # whatever their errno, they are about this very file
        return False
    if isinstance(cause, (ConnectionError, StoreRefusedError, MissingBucketError, MachineTroubleError)):
        return True
    return isinstance(cause, OSError) and cause.errno in _MACHINE | _FILE_SYSTEM


def is_shortage(cause: OSError) -> bool:
    """True when this machine has too few of what other work gives back: descriptors, buffers. Never a file's own."""
    return cause.errno in _MACHINE and cause.errno != errno.ENOMEM

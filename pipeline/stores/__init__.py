"""Stores: where files and objects are listed, opened and written, for input and output alike.

    local.py    a folder of this machine: walk, find_file, write_atomic
    beneath.py  a listed file is opened, without following a link: open_file, open_newest
    remote.py   a bucket, or a prefix of one: RemoteStore; REMOTE_SCHEMES are the addresses it takes
    patience.py reads that outlive trouble; trouble.py says which errors are that
    clouds.py   what differs between the clouds: addresses, options, credentials

Nothing here knows what a document, a record or a setting is.
"""

from __future__ import annotations

from pipeline.stores.beneath import StaleVersionError, StoredFile, open_file, open_newest
from pipeline.stores.clouds import REMOTE_SCHEMES, is_remote, lacks_slashes, parse_address, service_of
from pipeline.stores.local import (
    HIDDEN,
    find_file,
    is_half_written,
    printable,
    sync_folder,
    walk,
    write_atomic,
)
from pipeline.stores.patience import Patience, ReadingStoppedError, Source
from pipeline.stores.remote import RANGE_BYTES, RemoteStore, StoredObject
from pipeline.stores.trouble import (
    MachineTroubleError,
    MissingBucketError,
    OwnTroubleError,
    StoreRefusedError,
    is_trouble,
)

__all__ = [
    "HIDDEN",
    "RANGE_BYTES",
    "REMOTE_SCHEMES",
    "MachineTroubleError",
    "MissingBucketError",
    "OwnTroubleError",
    "Patience",
    "ReadingStoppedError",
    "RemoteStore",
    "Source",
    "StaleVersionError",
    "StoreRefusedError",
    "StoredFile",
    "StoredObject",
    "find_file",
    "is_half_written",
    "is_remote",
    "is_trouble",
    "lacks_slashes",
    "open_file",
    "open_newest",
    "parse_address",
    "printable",
    "service_of",
    "sync_folder",
    "walk",
    "write_atomic",
]

"""Stores: listing, opening and writing of files and objects, for input and output alike.

    local.py    a folder of this machine: walk, find_file, write_atomic
    folder_names.py  the names in one folder, resumed after an outage
    beneath.py  opening of a listed file without following a link: open_file, open_newest
    remote.py   a bucket, or a prefix of one: RemoteStore; REMOTE_SCHEMES lists its URL schemes
    outage_retry.py reads that are retried during an outage; trouble.py classifies the errors
    clouds.py   differences between the clouds: addresses, options, credentials

It must not know documents, records or settings.
"""

from __future__ import annotations

from pipeline.stores.beneath import StaleVersionError, StoredFile, open_file, open_newest, read_whole
from pipeline.stores.clouds import REMOTE_SCHEMES, is_remote, lacks_slashes, parse_address, service_of
from pipeline.stores.folder_names import at_once
from pipeline.stores.known_files import current_file
from pipeline.stores.local import (
    HIDDEN,
    find_file,
    is_half_written,
    printable,
    sync_folder,
    walk,
    write_atomic,
)
from pipeline.stores.outage_retry import OutageRetry, ReadingStoppedError, Source
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
    "OutageRetry",
    "OwnTroubleError",
    "ReadingStoppedError",
    "RemoteStore",
    "Source",
    "StaleVersionError",
    "StoreRefusedError",
    "StoredFile",
    "StoredObject",
    "at_once",
    "current_file",
    "find_file",
    "is_half_written",
    "is_remote",
    "is_trouble",
    "lacks_slashes",
    "open_file",
    "open_newest",
    "parse_address",
    "printable",
    "read_whole",
    "service_of",
    "sync_folder",
    "walk",
    "write_atomic",
]

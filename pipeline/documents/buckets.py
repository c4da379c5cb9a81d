"""Inputs in an object store: an object, a prefix or a glob, listed page by page.

It must not hold a whole listing, and must not fetch objects.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from pipeline.documents.file_kinds import is_chosen
from pipeline.documents.patterns import PathFilter, select
from pipeline.documents.sources import DocumentSource, ListingPlan, fixed_parts
from pipeline.errors import ConfigError, TryLaterError
from pipeline.stores import RANGE_BYTES, RemoteStore, Source, StoredFile, StoredObject, is_remote, parse_address

if TYPE_CHECKING:
    from pipeline.config import InputSource


def open_bucket(uri: str, source: InputSource, plan: ListingPlan) -> DocumentSource:
    """Return the document source of an address, after listing its first page.

    ConfigError when the store refuses that, TryLaterError when it cannot be reached.
    """
    root = uri.rstrip("/")
    glob = None
    store = RemoteStore.open(root, storage=plan.config.storage)
    reads = _reads(store, plan)
    first_object = _first_object(store, reads)
    parts = root.split("/")
    fixed = max(fixed_parts(parts), 3)
    if first_object is None and fixed < len(parts):
        root = "/".join(parts[:fixed])
        glob = "/".join(parts[fixed:])
        store = RemoteStore.open(root, storage=plan.config.storage)
        reads = _reads(store, plan)
        first_object = _first_object(store, reads)
    path_filter = select(plan.config.include, plan.config.exclude, glob=glob)
    if first_object is None and (single_object := _single_object(parts, plan)) is not None:
        store, stored = single_object
        return _document_source(
            store, lambda _: iter((_file(stored),)), source, path_filter=path_filter, reads=_reads(store, plan)
        )
    skip = _output_below(store, plan)
    return _document_source(
        store, partial(_selected_files, store, path_filter, skip, reads), source, path_filter=path_filter, reads=reads
    )


def _reads(store: RemoteStore, plan: ListingPlan) -> Source | None:
    return plan.reads_of(str(store.address), store.renew)


def _first_object(store: RemoteStore, reads: Source | None) -> StoredObject | None:
    """Return the first object, so that an error of the input is reported before the run starts."""
    if reads is None:
        return next(_list_objects(store), None)
    try:
        return reads.attempt(lambda: next(store.list(), None), role="start")
    except OSError as cause:
        raise _listing_error(store, cause) from cause


def _single_object(parts: list[str], plan: ListingPlan) -> tuple[RemoteStore, StoredObject] | None:
    """Return the object of an address and the store of its folder; None when there is no such object."""
    if len(parts) <= 3:
        return None
    store = RemoteStore.open("/".join(parts[:-1]), storage=plan.config.storage)
    try:
        stored = store.find(parts[-1])
    except OSError as cause:
        raise _listing_error(store, cause) from cause
    return None if stored is None else (store, stored)


def _document_source(
    store: RemoteStore,
    files: Callable[[Callable[[str], None]], Iterator[StoredFile]],
    source: InputSource,
    *,
    path_filter: PathFilter,
    reads: Source | None,
) -> DocumentSource:
    prefix = f"{source.name}/" if source.name else ""
    uri_prefix = f"{store.address}/"
    newest = partial(_open_newest, store)
    find_current = partial(_find_current, store)
    return DocumentSource(
        files, partial(_open, store), newest, path_filter, prefix, uri_prefix, reads, RANGE_BYTES, find_current
    )


def _selected_files(
    store: RemoteStore,
    path_filter: PathFilter,
    skip: str | None,
    reads: Source | None,
    count_ignored: Callable[[str], None],
) -> Iterator[StoredFile]:
    """Yield the selected files except those of the output; call `count_ignored` with the kind of each other file."""
    for stored in _list_objects(store) if reads is None else _list_through_outages(store, reads):
        if skip and stored.key.startswith(skip):
            continue
        if is_chosen(stored.key, path_filter):
            yield _file(stored)
        elif (kind := path_filter.passed_over(stored.key)) is not None:
            count_ignored(kind)


def _list_objects(store: RemoteStore) -> Iterator[StoredObject]:
    try:
        yield from store.list()
    except OSError as cause:
        raise _listing_error(store, cause) from cause


def _list_through_outages(store: RemoteStore, reads: Source) -> Iterator[StoredObject]:
    """Yield the objects; after an outage the listing continues after the last key."""
    pages = store.list()
    last_key = ""

    def pull() -> StoredObject | None:
        nonlocal pages
        try:
            return next(pages, None)
        except OSError:
            pages = store.list(after=last_key or None)
            raise

    while True:
        try:
            stored = reads.attempt(pull, role="listing")
        except OSError as cause:
            raise _listing_error(store, cause) from cause
        if stored is None:
            return
        last_key = stored.key
        yield stored


def _listing_error(store: RemoteStore, cause: OSError) -> ConfigError | TryLaterError:
    """Return the error that ends the run: ConfigError where a retry cannot help, else TryLaterError."""
    complaint = f"input.uri: {store.address} cannot be listed: {cause.strerror or cause}"
    if isinstance(cause, FileNotFoundError):
        return ConfigError(f"{complaint}; need an existing bucket")
    if isinstance(cause, PermissionError):
        return ConfigError(
            f"{complaint}; need credentials that may list and read it (input.storage, or the environment)"
        )
    if cause.errno == errno.EPROTO:
        need = "the region and the endpoint of the bucket (input.storage, or the environment)"
        return ConfigError(f"{complaint}; need {need}")
    if cause.errno == errno.EINVAL:
        reason = "a key with an empty part, . or .., or a line end in it, cannot be listed"
        return ConfigError(f"{complaint}; {reason}: name a prefix without it")
    return TryLaterError(f"the listing was interrupted: {complaint}")


def _output_below(store: RemoteStore, plan: ListingPlan) -> str | None:
    """Return the prefix of the output's keys below this store, if the output is inside the input."""
    if not isinstance(plan.output, str) or not is_remote(plan.output):
        return None
    output = parse_address(plan.output)
    address = store.address
    if output == address:
        raise ConfigError(f"input.uri: {address} is the output as well, need another prefix for one of them")
    inside = str(output).startswith(f"{address}/")
    return str(output)[len(str(address)) + 1 :] + "/" if inside else None


def _file(stored: StoredObject) -> StoredFile:
    return StoredFile(stored.key, stored.key, stored.size_bytes, stored.etag)


def _find_current(store: RemoteStore, file: StoredFile, is_needed: bool) -> StoredFile | None:
    """Return the object's present version, None for a deleted object; the listed version unless `is_needed`."""
    if not is_needed:
        return StoredFile(file.relative, file.relative, file.size_bytes, file.version)
    stored = store.find(file.relative)
    return None if stored is None else _file(stored)


def _open(store: RemoteStore, file: StoredFile) -> BinaryIO:
    return store.open_object(StoredObject(file.path, file.size_bytes, file.version, 0.0))


def _open_newest(store: RemoteStore, file: StoredFile) -> BinaryIO:
    """Open the current version of the object; FileNotFoundError when it has been deleted."""
    stored = store.find(file.path)
    if stored is None:
        raise FileNotFoundError(errno.ENOENT, "No such object")
    return store.open_object(stored)

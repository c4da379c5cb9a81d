"""Inputs in an object store: an object, a prefix or a glob, listed page by page.

A listing is never a list; the objects' bytes are fetched by those who read them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from pipeline.documents.entries import is_chosen
from pipeline.documents.patterns import PathFilter, select
from pipeline.documents.sources import DocumentSource, ListingPlan, fixed_parts
from pipeline.errors import ConfigError, TryLaterError
from pipeline.stores import RANGE_BYTES, RemoteStore, Source, StoredFile, StoredObject, is_remote, parse_address

if TYPE_CHECKING:
    from pipeline.config import InputSource


def open_bucket(uri: str, source: InputSource, plan: ListingPlan) -> DocumentSource:
    """The origin of an address: the first page of it has been listed.

    ConfigError when the store refuses that, TryLaterError when it cannot be reached.
    """
    root, glob = uri.rstrip("/"), None
    store = RemoteStore.open(root, storage=plan.config.storage)
    first = _first(store)
    parts = root.split("/")
    fixed = max(fixed_parts(parts), 3)
    if first is None and fixed < len(parts):
        root, glob = "/".join(parts[:fixed]), "/".join(parts[fixed:])
        store = RemoteStore.open(root, storage=plan.config.storage)
        first = _first(store)
    chosen = select(plan.config.include, plan.config.exclude, glob=glob)
    if first is None and (alone := _object(parts, plan)) is not None:
        store, found = alone
        return _origin(store, lambda _: iter((_file(found),)), source, chosen=chosen, reads=_reads(store, plan))
    skip, reads = _output_below(store, plan), _reads(store, plan)
    return _origin(store, partial(_chosen_files, store, chosen, skip, reads), source, chosen=chosen, reads=reads)


def _reads(store: RemoteStore, plan: ListingPlan) -> Source | None:
    return plan.reads_of(str(store.address), store.renew)


def _first(store: RemoteStore) -> StoredObject | None:
    """The first object, so that what is wrong with an input is said before anything else is done."""
    return next(_listed(store), None)


def _object(parts: list[str], plan: ListingPlan) -> tuple[RemoteStore, StoredObject] | None:
    """The store of the folder, and the object, of an address that is one of an object."""
    if len(parts) <= 3:
        return None
    store = RemoteStore.open("/".join(parts[:-1]), storage=plan.config.storage)
    try:
        found = store.find(parts[-1])
    except OSError as cause:
        raise _said(store, cause) from cause
    return None if found is None else (store, found)


def _origin(
    store: RemoteStore,
    files: Callable[[Callable[[str], None]], Iterator[StoredFile]],
    source: InputSource,
    *,
    chosen: PathFilter,
    reads: Source | None,
) -> DocumentSource:
    prefix, uri_prefix = f"{source.name}/" if source.name else "", f"{store.address}/"
    newest = partial(_open_newest, store)
    return DocumentSource(files, partial(_open, store), newest, chosen, prefix, uri_prefix, reads, RANGE_BYTES)


def _chosen_files(
    store: RemoteStore,
    chosen: PathFilter,
    skip: str | None,
    reads: Source | None,
    ignored: Callable[[str], None],  # noqa: ARG001
) -> Iterator[StoredFile]:
    """The files that are wanted, without those of the output."""
    for found in _listed(store) if reads is None else _listed_patiently(store, reads):
        if is_chosen(found.key, chosen) and not (skip and found.key.startswith(skip)):
            yield _file(found)


def _listed(store: RemoteStore) -> Iterator[StoredObject]:
    try:
        yield from store.list()
    except OSError as cause:
        raise _said(store, cause) from cause


def _listed_patiently(store: RemoteStore, reads: Source) -> Iterator[StoredObject]:
    """The objects; after trouble the listing goes on behind the last key."""
    pages, last = store.list(), ""

    def pull() -> StoredObject | None:
        nonlocal pages
        try:
            return next(pages, None)
        except OSError:
            pages = store.list(after=last or None)
            raise

    while True:
        try:
            found = reads.attempt(pull, own=1)
        except OSError as cause:
            raise _said(store, cause) from cause
        if found is None:
            return
        last = found.key
        yield found


def _said(store: RemoteStore, cause: OSError) -> ConfigError | TryLaterError:
    """What the run ends with: trying again mends neither a bucket that is not there nor a key that may not read."""
    what = f"input.uri: {store.address} cannot be listed: {cause.strerror or cause}"
    if isinstance(cause, FileNotFoundError):
        return ConfigError(f"{what}; need a bucket that is there")
    if isinstance(cause, PermissionError):
        return ConfigError(f"{what}; need credentials that may list and read it (input.storage, or the environment)")
    if cause.errno == errno.EPROTO:
        need = "the region and the endpoint of the bucket (input.storage, or the environment)"
        return ConfigError(f"{what}; need {need}")
    if cause.errno == errno.EINVAL:
        odd = "a key with an empty part, . or .., or a line end in it, cannot be listed"
        return ConfigError(f"{what}; {odd}: name a prefix without it")
    return TryLaterError(f"the listing broke off: {what}")


def _output_below(store: RemoteStore, plan: ListingPlan) -> str | None:
    """What the output's keys begin with below this store, if that is where it lies."""
    if not isinstance(plan.output, str) or not is_remote(plan.output):
        return None
    output, own = parse_address(plan.output), store.address
    if output == own:
        raise ConfigError(f"input.uri: {own} is the output as well, need another prefix for one of them")
    inside = str(output).startswith(f"{own}/")
    return str(output)[len(str(own)) + 1 :] + "/" if inside else None


def _file(found: StoredObject) -> StoredFile:
    return StoredFile(found.key, found.key, found.size_bytes, found.etag)


def _open(store: RemoteStore, file: StoredFile) -> BinaryIO:
    return store.open_object(StoredObject(file.path, file.size_bytes, file.version, 0.0))


def _open_newest(store: RemoteStore, file: StoredFile) -> BinaryIO:
    """The object as it is now; FileNotFoundError when it is gone."""
    found = store.find(file.path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "No such object")
    return store.open_object(found)

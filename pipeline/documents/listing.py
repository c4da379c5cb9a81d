"""The files of an input in any kind of store, and the entries of each.

It runs lazily in the reader's thread; it must not hold a list of the files, or read a file before its turn.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.config.limits import limits_of
from pipeline.documents.buckets import open_bucket
from pipeline.documents.containers import describe
from pipeline.documents.entries import EntryRules, entries_of
from pipeline.documents.extras import MissingExtraError, how_to_install, is_missing
from pipeline.documents.file_kinds import Lookup, is_chosen, kind_of
from pipeline.documents.files import ListedFile
from pipeline.documents.patterns import PathFilter, select
from pipeline.documents.sources import DocumentSource, Files, ListingCounts, ListingPlan, fixed_parts
from pipeline.errors import ConfigError, TryLaterError
from pipeline.records import Entry
from pipeline.stores import (
    REMOTE_SCHEMES,
    Source,
    StoredFile,
    at_once,
    current_file,
    find_file,
    is_trouble,
    lacks_slashes,
    open_file,
    open_newest,
    printable,
    read_whole,
    walk,
)

if TYPE_CHECKING:
    from pipeline.config import InputSource

_log = logging.getLogger(__name__)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FILES_CHECKED = 10_000


def open_origin(source: InputSource, plan: ListingPlan) -> DocumentSource:
    """Return the document source of an input; ConfigError for a missing input or an unknown scheme."""
    match = _SCHEME.match(source.uri)
    if match is None:
        return _local(source.uri, source, plan)
    opener = SCHEMES.get(match[1].lower())
    if opener is None:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ConfigError(f"input.uri: {match[1]}://: unknown scheme, need a path, a glob or one of {schemes}")
    return opener(source.uri, source, plan)


def _file_uri(uri: str, source: InputSource, plan: ListingPlan) -> DocumentSource:
    parts = urlsplit(uri.replace("?", "%3F").replace("#", "%23"))
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(f"input.uri: got {uri!r}, need file:///absolute/path")
    return _local(unquote(parts.path), source, plan)


def _local(path: str, source: InputSource, plan: ListingPlan) -> DocumentSource:
    """Return the document source of a file, a folder or a glob on this machine."""
    reads = plan.reads_of(source.uri)

    def look() -> tuple[StoredFile | None, Path, str | None, bool]:
        file = find_file(Path(path), clock=plan.clock)
        root, glob = (Path(path).parent, None) if file else _root_and_glob(path)
        return file, root, glob, root.is_dir()

    try:
        file, root, glob, is_folder = look() if reads is None else reads.attempt(look, role="start")
    except (OSError, ValueError) as cause:
        kind = TryLaterError if is_trouble(cause) else ConfigError
        raise kind(f"input.uri: {path!r} cannot be inspected: {describe(cause)}") from cause
    if file is not None:
        path_filter = select(plan.config.include, plan.config.exclude)
        origin = _origin(lambda _: iter((file,)), root, source, path_filter=path_filter, reads=reads, clock=plan.clock)
        return replace(origin, find_current=lambda *_: find_file(Path(path), clock=plan.clock))
    if not is_folder:
        if _may_be_missing(root, plan):
            _log.warning(
                "input.uri: %r does not exist and counts as empty (input.min_documents: 0); put documents there",
                path,
            )
            match_nothing = select([], [])
            return _origin(lambda _: iter(()), root, source, path_filter=match_nothing, reads=reads, clock=plan.clock)
        raise ConfigError(f"input.uri: got {path!r}: there is no such file or folder{_hint(path)}")
    if isinstance(plan.output, Path) and os.path.realpath(plan.output) == os.path.realpath(root):
        raise ConfigError(f"input.uri: {path!r} is the output as well, need another folder for one of them")
    path_filter = select(plan.config.include, plan.config.exclude, glob=glob)
    files = partial(_chosen_files, root, path_filter, source=source, plan=plan, reads=reads)
    return _origin(files, root, source, path_filter=path_filter, reads=reads, clock=plan.clock)


def local_root(uri: str) -> Path | None:
    """Return the folder to which the ids of a local input are relative; None for an object store."""
    match = _SCHEME.match(uri)
    if match is not None and match[1].lower() != "file":
        return None
    path = uri if match is None else unquote(urlsplit(uri.replace("?", "%3F").replace("#", "%23")).path)
    root, _ = _root_and_glob(path)
    return root.parent if root.is_file() else root


def _may_be_missing(folder: Path, plan: ListingPlan) -> bool:
    """Return whether a missing folder counts as empty: no documents are required, and its parent folder exists."""
    return plan.config.min_documents == 0 and not folder.exists() and folder.parent.is_dir()


def _hint(path: str) -> str:
    """Return a hint about a path that does not exist, for a message."""
    if lacks_slashes(path):
        return f"; an address begins with {path.partition(':')[0]}://"
    return "" if Path(path).is_absolute() else ", seen from the current directory"


def _root_and_glob(text: str) -> tuple[Path, str | None]:
    """Split a path into a folder and a glob; an existing path is never a glob."""
    path = Path(text)
    if not text or path.exists() or fixed_parts([text]):
        return path, None
    fixed = fixed_parts(path.parts)
    return Path(*path.parts[:fixed]), "/".join(path.parts[fixed:])


def _origin(
    files: Files,
    folder: Path,
    source: InputSource,
    *,
    path_filter: PathFilter,
    reads: Source | None,
    clock: Callable[[], float],
) -> DocumentSource:
    prefix = folder.as_posix()
    uri_prefix = "" if prefix == "." else prefix.rstrip("/") + "/"
    id_prefix = id_prefix_of(source)
    look_up = partial(current_file, folder, os.path.realpath(folder), clock=clock)
    return DocumentSource(
        files,
        open_file,
        open_newest,
        path_filter,
        id_prefix,
        uri_prefix,
        reads,
        find_current=look_up,
        read_all=read_whole,
    )


def id_prefix_of(source: InputSource) -> str:
    """Return the text with which the ids of an input's documents begin."""
    return f"{source.name}/" if source.name else ""


SCHEMES: Mapping[str, Callable[[str, InputSource, ListingPlan], DocumentSource]] = {
    "file": _file_uri,
    **dict.fromkeys(REMOTE_SCHEMES, open_bucket),
}
"""The functions that open an input, by the scheme of its URI; a path has none."""


def _chosen_files(
    root: Path,
    path_filter: PathFilter,
    count_ignored: Callable[[str], None],
    *,
    source: InputSource,
    plan: ListingPlan,
    reads: Source | None,
) -> Iterator[StoredFile]:
    prefix = id_prefix_of(source)
    skip = plan.output if isinstance(plan.output, Path) else None

    def enter(folder: str) -> bool:
        entered = path_filter.enters(folder)
        if not entered and (kind := path_filter.passed_over(folder)) is not None:
            count_ignored(f"{kind} folder")
        return entered

    attempt = at_once if reads is None else partial(reads.attempt, role="listing")

    def look_up(paths: list[str]) -> None:
        plan.counts.look_up([prefix + printable(path) for path in paths])

    files = walk(
        root, enter=enter, skip=skip, count_ignored=count_ignored, clock=plan.clock, attempt=attempt, upcoming=look_up
    )
    return _only_chosen(files, path_filter, count_ignored)


def _only_chosen(
    files: Iterator[StoredFile], path_filter: PathFilter, count_ignored: Callable[[str], None]
) -> Iterator[StoredFile]:
    """Yield the chosen files; `count_ignored` is called with the kind of each other one."""
    for file in files:
        if is_chosen(file.relative, path_filter):
            yield file
        elif (kind := path_filter.passed_over(file.relative)) is not None:
            count_ignored(kind)


def check_extras(origins: Iterable[DocumentSource], *, lookup: Lookup) -> None:
    """Raise MissingExtraError when each of the first documents needs a library that is not installed."""
    first = ""
    files = (file for origin in origins for file in origin.files(lambda _: None))
    for file in islice(files, _FILES_CHECKED):
        suffix, _, archive, form = kind_of(file.relative, lookup)
        if archive is not None or (form and (form.extra is None or not is_missing(form.extra))):
            return
        if form is not None and form.extra is not None and not first:
            first = f"{printable(file.relative)}: {how_to_install(form.extra, pattern='*' + suffix)}"
    if first:
        raise MissingExtraError(first)


def origin_entries(origin: DocumentSource, plan: ListingPlan, *, lookup: Lookup) -> Iterator[Entry]:
    """Yield the entries of one input and count them."""
    counts = plan.counts
    rules = rules_of(origin, plan, lookup=lookup)
    for file in origin.files(lambda kind: counts.ignore(f"({kind})")):
        counts.files += 1
        listed = listed_file(file, origin)
        kind = kind_of(listed.relative, lookup)
        counts.streamed += kind.is_stream
        for entry in entries_of(listed, rules, kind):
            counts.listed += 1
            yield entry


def rules_of(origin: DocumentSource, plan: ListingPlan, *, lookup: Lookup) -> EntryRules:
    """Return the rules that apply to every file of one input."""
    counts = plan.counts
    return EntryRules(
        plan.config,
        origin.path_filter,
        lookup,
        counts.ignore,
        counts.on_complete,
        origin.id_prefix,
        limits_of(plan.config.limits),
        counts.latest_record,
    )


def listed_file(file: StoredFile, origin: DocumentSource) -> ListedFile:
    """Return a file of one input under its id."""
    relative = printable(file.relative)
    uri = printable(origin.uri_prefix + file.relative)
    return ListedFile(
        relative,
        origin.id_prefix + relative,
        uri,
        file.version,
        file.size_bytes,
        partial(origin.open_listed, file),
        partial(origin.open_newest, file),
        whole=None if origin.read_all is None else partial(origin.read_listed, file),
        stored=file if origin.read_all is read_whole else None,
    )


__all__ = ["ListingCounts", "ListingPlan", "check_extras", "open_origin", "origin_entries"]

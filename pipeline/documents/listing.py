"""The files of an input, wherever it is, and the entries of each.

Runs in the reader's thread, lazily; nothing here holds a list of the files, or reads a file before its turn.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from pipeline.documents.compression import split_compression
from pipeline.documents.containers import describe
from pipeline.documents.entries import Found, Lookup, Rules, check_extra, entries_of, is_chosen
from pipeline.documents.patterns import Selection, select
from pipeline.errors import ConfigError
from pipeline.records import Entry
from pipeline.stores import StoredFile, find_file, open_file, printable, walk

if TYPE_CHECKING:
    from pipeline.config import InputConfig, InputSource

Files = Callable[[Callable[[str], None]], Iterator[StoredFile]]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WILDCARD = re.compile(r"[*?\[]")
_MAX_EXTENSIONS = 200
_LOOKED_AT_BEFORE = 10_000


@dataclass(slots=True)
class ListingCounts:
    """What the reader has seen so far; it alone writes here.

    `listed` entries were yielded, from `files` files; `ignored` files count by extension, `(none)` without one,
    `(symlink)` for links that lead nowhere or outside, `(special)` for fifos, sockets and devices.
    """

    files: int = 0
    listed: int = 0
    ignored: Counter[str] = field(default_factory=Counter)

    def ignore(self, kind: str) -> None:
        """Nothing; one more file of this kind was passed over."""
        room = kind in self.ignored or len(self.ignored) < _MAX_EXTENSIONS
        self.ignored[kind if room else "(other)"] += 1


@dataclass(frozen=True, slots=True)
class Origin:
    """One input: `files` lists it and tells of each kind passed over, `open` opens one of its files.

    The prefixes go before ids and uris.
    """

    files: Files
    open: Callable[[StoredFile], BinaryIO]
    chosen: Selection
    id_prefix: str
    uri_prefix: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for all inputs of a run."""

    config: InputConfig
    output: Path | None
    counts: ListingCounts
    clock: Callable[[], float]


def open_origin(source: InputSource, plan: Plan) -> Origin:
    """Where the files of this input come from; ConfigError when it is not there or of an unknown scheme."""
    match = _SCHEME.match(source.uri)
    if match is None:
        return _local(source.uri, source, plan)
    opener = SCHEMES.get(match[1].lower())
    if opener is None:
        what = "object stores are not supported yet" if match[1].lower() in ("s3", "gs", "az") else "unknown scheme"
        raise ConfigError(f"input.uri: {match[1]}://: {what}, need a path, a file:// URI or a glob")
    return opener(source.uri, source, plan)


def _file_uri(uri: str, source: InputSource, plan: Plan) -> Origin:
    parts = urlsplit(uri.replace("?", "%3F").replace("#", "%23"))
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(f"input.uri: got {uri!r}, need file:///absolute/path")
    return _local(unquote(parts.path), source, plan)


def _local(path: str, source: InputSource, plan: Plan) -> Origin:
    """The origin of a file, a folder or a glob on this machine."""
    try:
        file = find_file(Path(path), clock=plan.clock)
        if file is not None:
            chosen = select(plan.config.include, plan.config.exclude)
            return _origin(lambda _: iter((file,)), Path(path).parent, source, chosen=chosen)
        root, glob = _root_and_glob(path)
        is_folder = root.is_dir()
    except (OSError, ValueError) as cause:
        raise ConfigError(f"input.uri: {path!r} cannot be looked at: {describe(cause)}") from cause
    if not is_folder:
        raise ConfigError(f"input.uri: got {path!r}: there is no such file or folder")
    if plan.output is not None and os.path.realpath(plan.output) == os.path.realpath(root):
        raise ConfigError(f"input.uri: {path!r} is the output as well, need another folder for one of them")
    chosen = select(plan.config.include, plan.config.exclude, glob=glob)
    return _origin(partial(_chosen_files, root, chosen, plan=plan), root, source, chosen=chosen)


def _root_and_glob(text: str) -> tuple[Path, str | None]:
    """The folder, and the rest of a glob; what exists under that very name is no glob."""
    path = Path(text)
    if not text or path.exists() or not _WILDCARD.search(text):
        return path, None
    fixed = next(at for at, part in enumerate(path.parts) if _WILDCARD.search(part))
    return Path(*path.parts[:fixed]), "/".join(path.parts[fixed:])


def _origin(files: Files, folder: Path, source: InputSource, *, chosen: Selection) -> Origin:
    before = folder.as_posix()
    uri_prefix = "" if before == "." else before.rstrip("/") + "/"
    return Origin(files, open_file, chosen, f"{source.name}/" if source.name else "", uri_prefix)


SCHEMES: Mapping[str, Callable[[str, InputSource, Plan], Origin]] = {"file": _file_uri}
"""What opens an input, by the scheme of its URI; a path has none."""


def _chosen_files(root: Path, chosen: Selection, ignored: Callable[[str], None], *, plan: Plan) -> Iterator[StoredFile]:
    files = walk(root, enter=chosen.enters, skip=plan.output, ignored=ignored, clock=plan.clock)
    return (file for file in files if is_chosen(file.relative, chosen))


def check_extras(origin: Origin, *, lookup: Lookup) -> None:
    """Nothing; MissingExtraError when one of the first files needs a library that is not there."""
    for file in islice(origin.files(lambda _: None), _LOOKED_AT_BEFORE):
        check_extra(split_compression(file.relative)[0], printable(file.relative), lookup=lookup)


def origin_entries(origin: Origin, plan: Plan, *, lookup: Lookup) -> Iterator[Entry]:
    """The entries of one input, counted as they are pulled."""
    counts = plan.counts
    rules = Rules(plan.config, origin.chosen, lookup, counts.ignore, origin.id_prefix)
    for file in origin.files(lambda kind: counts.ignore(f"({kind})")):
        counts.files += 1
        for entry in entries_of(_found(file, origin), rules):
            counts.listed += 1
            yield entry


def _found(file: StoredFile, origin: Origin) -> Found:
    relative = printable(file.relative)
    uri = printable(origin.uri_prefix + file.relative)
    return Found(relative, origin.id_prefix + relative, uri, file.version, file.size_bytes, partial(origin.open, file))

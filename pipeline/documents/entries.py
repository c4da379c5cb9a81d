"""The entries of a file: its own, those of its pieces, or those of its members, each by its format.

Runs in the reader's thread; what can be read later is read by `Entry.read`, in a worker's.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO

from pipeline.config.limits import InputLimits
from pipeline.documents.budget import UnpackedBudget
from pipeline.documents.compression import PLAIN, Compression, read_limited, split_compression
from pipeline.documents.containers import (
    Container,
    Format,
    Held,
    damaged,
    describe,
    fail,
    is_damaged,
    piece_entries,
    too_large,
)
from pipeline.documents.extras import require
from pipeline.documents.members import MEMBER_BYTES, Archive, Member, harmless
from pipeline.documents.patterns import PathFilter, select
from pipeline.documents.tar import TAR
from pipeline.documents.zip import ZIP
from pipeline.errors import DocumentError
from pipeline.records import Entry
from pipeline.stores import OwnTroubleError, StaleVersionError, is_trouble, printable

if TYPE_CHECKING:
    from pipeline.config import InputConfig

Lookup = Callable[[str], Format | None]
Damage = tuple[type[Exception], ...]

ARCHIVES: Mapping[str, Archive] = {".tar": TAR, ".zip": ZIP}
"""By suffix, in lower case, without a compression's."""

MAX_NAME_CHARS = 4096
"""The longest path that a file system takes; a longer name of a member is an attack on what matches it."""

_EXTENSION = re.compile(r"(?:\.[a-z][a-z0-9_-]{0,9}|\.[0-9][a-z0-9]{0,2})")
_VISIBLE = select(["**"], [])


@dataclass(frozen=True, slots=True)
class EntryRules:
    """What is asked of every file of an input: its settings and patterns, and the table of formats.

    `ignore` is told of what is passed over, `whole` the id of each file of many that was read to its end.
    """

    config: InputConfig
    chosen: PathFilter
    lookup: Lookup
    ignore: Callable[[str], None]
    whole: Callable[[str], None]
    id_prefix: str
    limits: InputLimits


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a listing, or a member of an archive.

    `relative` is its path below the root, valid Unicode; the patterns and the formats go by it. `newest` opens what
    stands in its place now.
    `damage`: what opening and reading it may raise. `passing`: it must be read before the next one is asked for.
    """

    relative: str
    id: str
    uri: str
    version: str | None
    size_bytes: int
    open: Callable[[], BinaryIO]
    newest: Callable[[], BinaryIO] | None = None
    damage: Damage = (OSError,)
    member: bool = False
    passing: bool = False


def is_chosen(relative: str, chosen: PathFilter) -> bool:
    """True when the file is wanted, or is an archive whose members may be."""
    if chosen.wants(relative):
        return True
    return archive_of(relative) is not None and not chosen.excludes(relative) and chosen.enters(relative + "!")


def archive_of(name: str) -> Archive | None:
    """How the members of this file are read, by its name; None when it is no archive."""
    name, compression = split_compression(name)
    archive = ARCHIVES.get(suffix_of(name))
    return archive if archive and (archive.compressed or compression is PLAIN) else None


def is_stream(relative: str, *, lookup: Lookup) -> bool:
    """True for a file that is read from end to end before all of its entries are known: each but a .zip of many."""
    archive, form = archive_of(relative), lookup(split_compression(relative)[0])
    return archive is not ZIP if archive is not None else form is not None and form.split is not None


def entries_of(found: Found, rules: EntryRules) -> Iterator[Entry]:
    """The entries of a file: none if its format is unknown and may be ignored, which is counted."""
    name, compression = split_compression(found.relative)
    archive = None if found.member else archive_of(found.relative)
    if archive is not None:
        members = _member_entries(found, archive, compression=compression, rules=rules)
        return _watched(members, found.id, whole=rules.whole)
    form = rules.lookup(name)
    if form is None:
        return _unsupported(found, extension_of(name) + compression.suffix, rules=rules)
    check_extra(name, found.uri, lookup=rules.lookup)
    if form.split is not None:
        pieces = piece_entries(_container(found, form.name, compression=compression, rules=rules), form.split)
        return _watched(pieces, found.id, whole=rules.whole)
    read: Callable[[], bytes] = partial(
        read_file, found, compression=compression, limit_bytes=rules.config.max_document_bytes
    )
    read = _read_now(read, found.id) if found.passing else read
    return iter((Entry(found.id, found.uri, found.version, found.size_bytes, form.name, read),))


def _watched(entries: Iterator[Entry], id: str, *, whole: Callable[[str], None]) -> Iterator[Entry]:
    """The entries of the file with this id, and word of it when the last was no damage."""
    for entry in entries:
        yield entry
        if entry.id == id and is_damaged(entry):
            return
    whole(id)


def check_extra(name: str, shown: str, *, lookup: Lookup) -> None:
    """Nothing; MissingExtraError when the format of this name needs a library that is not there."""
    form = lookup(name)
    if form is not None and form.extra is not None:
        require(form.extra, what=shown, pattern="*" + suffix_of(name))


def _container(found: Found, form: str, *, compression: Compression, rules: EntryRules) -> Container:
    return Container(
        found.id,
        found.uri,
        form,
        found.open,
        compression,
        (*found.damage, *compression.damage),
        found.size_bytes,
        rules.config.max_document_bytes,
        version=found.version,
        text_field=rules.config.text_field,
        id_field=rules.config.id_field,
        id_prefix=rules.id_prefix,
        limits=rules.limits,
    )


def _member_entries(found: Found, archive: Archive, *, compression: Compression, rules: EntryRules) -> Iterator[Entry]:
    """The entries of each wanted member; a broken archive ends in a failed entry under its own id."""
    whole = rules.chosen.wants(found.relative)
    damage = (*found.damage, *compression.damage, *archive.damage)
    budget = UnpackedBudget(found.size_bytes, rules.limits)
    try:
        for member in archive.members(found.open, compression, lambda kind: rules.ignore(f"({kind})")):
            budget.add_member(member.size_bytes + MEMBER_BYTES)
            member = _short_named(member)
            inner = _member(found, member, damage)
            name = printable(harmless(member.name))
            visible = whole and _VISIBLE.wants(name) and not rules.chosen.excludes(inner.relative)
            if not visible and not rules.chosen.wants(inner.relative):
                continue
            if member.problem is not None and rules.lookup(split_compression(name)[0]) is not None:
                yield _failed(inner, member.problem)
            else:
                yield from entries_of(inner, rules)
    except DocumentError as cause:
        yield damaged(_container(found, "archive", compression=compression, rules=rules), cause)
    except damage as cause:
        yield damaged(_container(found, "archive", compression=compression, rules=rules), cause)


def _short_named(member: Member) -> Member:
    """The member; one whose name is too long is cut short, cannot be read, and keeps its suffix."""
    name = member.name
    if len(name) <= MAX_NAME_CHARS:
        return member
    digest = sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    told = f"the name of this member has {len(name)} characters, more than {MAX_NAME_CHARS}"
    problem = DocumentError("document_unreadable", told)
    return replace(member, name=f"{name[:200]}~{digest}~{name[-20:].rsplit('/', 1)[-1]}", problem=problem)


def _member(found: Found, member: Member, damage: Damage) -> Found:
    """A member as a file of its own: by its path in the archive, which leads nowhere else."""
    path = "!/" + printable(harmless(member.name))
    version = member.version if member.version is not None else found.version
    return Found(
        found.relative + path,
        found.id + path,
        found.uri + path,
        version,
        member.size_bytes,
        member.open,
        None,
        () if member.passing else damage,
        member=True,
        passing=member.passing,
    )


def _read_now(read: Callable[[], bytes], id: str) -> Callable[[], bytes]:
    """What gives the bytes, or the problem, that were there when it could be read."""
    try:
        return Held(read(), id)
    except DocumentError as problem:
        return partial(fail, problem)


def _failed(found: Found, problem: DocumentError) -> Entry:
    return Entry(found.id, found.uri, found.version, found.size_bytes, "unsupported", partial(fail, problem))


def _unsupported(found: Found, extension: str, *, rules: EntryRules) -> Iterator[Entry]:
    kind = extension.removeprefix("(none)") or "(none)"
    if rules.config.unsupported == "ignore":
        rules.ignore(kind)
        return
    yield _failed(found, DocumentError("unsupported_format", f"the extension {kind} is of no format that is read"))


def extension_of(name: str) -> str:
    """The extension in lower case with its dot; `(none)`, or `(other)` when it looks like no extension."""
    suffix = suffix_of(name)
    if not suffix:
        return "(none)"
    return suffix if _EXTENSION.fullmatch(suffix) else "(other)"


def suffix_of(name: str) -> str:
    """The name's last suffix in lower case with its dot, or nothing."""
    stem, dot, suffix = name.rsplit("/", 1)[-1].rpartition(".")
    return dot + suffix.lower() if stem else ""


def read_file(found: Found, *, compression: Compression, limit_bytes: int) -> bytes:
    """The file's bytes after decompression; DocumentError when they cannot be had or are too many."""
    if not compression.suffix and found.size_bytes > limit_bytes:
        raise too_large(found.size_bytes, limit_bytes)
    try:
        data = _read_as_it_is(found, compression, limit_bytes)
    except (*found.damage, *compression.damage) as cause:
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            raise MemoryError from cause  # one more try, when nothing else is in flight
        passing = (PermissionError, OwnTroubleError, StaleVersionError)
        away = isinstance(cause, passing) or is_trouble(cause)
        raise DocumentError("document_unreadable", f"cannot be read: {describe(cause)}", again=away) from cause
    if data is None:
        raise too_large(None, limit_bytes)
    return data


def _read_as_it_is(found: Found, compression: Compression, limit_bytes: int) -> bytes | None:
    """The bytes, of its newest version when the one that was listed is gone; None for too many."""
    try:
        with found.open() as raw, compression.open(raw) as stream:
            return read_limited(stream, limit_bytes)
    except StaleVersionError:
        if found.newest is None:
            raise
    with found.newest() as raw, compression.open(raw) as stream:
        return read_limited(stream, limit_bytes)

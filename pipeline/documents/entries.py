"""The entries of a file: its own, those of its pieces, or those of its members, each by its format.

It runs in the reader's thread; files that can be read later are read by `Entry.read`, in a worker's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO

from pipeline.config.limits import InputLimits
from pipeline.documents.archives.compression import PLAIN, Compression, NotedBytes
from pipeline.documents.archives.members import MEMBER_BYTES, Archive, Member, safe_relative_name
from pipeline.documents.archives.recovering import recovering
from pipeline.documents.budget import UnpackedBudget
from pipeline.documents.containers import (
    BytesInContainer,
    Container,
    Format,
    PeekedBytes,
    damaged,
    fail,
    is_damaged,
    piece_entries,
)
from pipeline.documents.conversions import how_to_convert
from pipeline.documents.encodings.known_encoding import encoding_of
from pipeline.documents.extras import how_to_install, is_missing
from pipeline.documents.file_kinds import FileKind, Lookup, kind_of
from pipeline.documents.files import Damage, ListedFile, SmallFile, read_file
from pipeline.documents.looking import detected_format, opened_twice
from pipeline.documents.patterns import PathFilter, select
from pipeline.errors import DocumentError
from pipeline.records import Entry, LatestRecord
from pipeline.stores import is_remote, printable

if TYPE_CHECKING:
    from pipeline.config import InputConfig

MAX_NAME_CHARS = 4096
"""The longest path of a file system; a longer name of a member is an attack on the matching of patterns."""

_VISIBLE = select(["**"], [])


@dataclass(frozen=True, slots=True)
class EntryRules:
    """Settings, patterns and formats that apply to every file of an input.

    `ignore` is called with the kind of each skipped file, `on_complete` with the id of each container read to its end.
    `latest_record` returns the last line of an id in the output.
    """

    config: InputConfig
    path_filter: PathFilter
    lookup: Lookup
    ignore: Callable[[str], None]
    on_complete: Callable[[str], None]
    id_prefix: str
    limits: InputLimits
    latest_record: Callable[[str], LatestRecord | None] = lambda _: None

    def is_done(self, file: ListedFile, latest: LatestRecord | None) -> bool:
        """Return True when this version of the file has a result, so that it need not be opened."""
        if latest is None or latest.failed or file.version is None or latest.version != file.version:
            return False
        return self.config.records_field is None  # it may have been set since then


def entries_of(file: ListedFile, rules: EntryRules, kind: FileKind | None = None) -> Iterator[Entry]:
    """Yield the entries of a file; none for an unknown format that is ignored, which is counted.

    `kind`: the file kind, if its name has been checked already.
    """
    kind = kind or kind_of(file.relative, rules.lookup)
    suffix, compression, archive, form = kind
    if archive is not None and not file.member:
        members = _member_entries(file, archive, compression=compression, rules=rules)
        return reporting_complete(members, file.id, on_complete=rules.on_complete)
    if form is None:
        return _unsupported_file(file, kind.extension, rules=rules)
    if form.extra is not None and is_missing(form.extra):
        message = how_to_install(form.extra, pattern="*" + suffix)
        return iter((_failed(file, DocumentError("unsupported_format", message)),))
    if form.look is None or not is_looked_at(form, file):
        return _entries_as(form, file, compression=compression, rules=rules)
    latest = rules.latest_record(file.id)
    peeked: PeekedBytes | None = None
    if not rules.is_done(file, latest):
        file = file._replace(open=opened_twice(file.open)) if file.passing else file
        small = SmallFile(file) if compression is PLAIN else None
        opener = file.open if small is None else small.open
        form = detected_format(form, container_of(file, form.name, compression=compression, rules=rules, open=opener))
        peeked = small.peeked(rules.config.max_document_bytes) if small is not None else None
    return _entries_as(form, file, compression=compression, rules=rules, latest=latest, peeked=peeked)


def _entries_as(
    form: Format,
    file: ListedFile,
    *,
    compression: Compression,
    rules: EntryRules,
    latest: LatestRecord | None = None,
    peeked: PeekedBytes | None = None,
) -> Iterator[Entry]:
    """Yield the entries of a file of this format.

    `latest`: its last line in the output, if it was looked up. `peeked`: its bytes, if it was read for its format.
    """
    if form.split is not None:
        unpacked = recovering(compression, starts=form.mark) if form.mark else compression
        pieces = piece_entries(container_of(file, form.name, compression=unpacked, rules=rules), form.split)
        return reporting_complete(pieces, file.id, on_complete=rules.on_complete)
    reader: Callable[[], bytes] = partial(
        read_file, file, compression=compression, limit_bytes=rules.config.max_document_bytes
    )
    encoding = encoding_of(file.relative, rules.config.encoding, form=form.name)
    reader = partial(_read_encoded, reader, encoding) if encoding else peeked or reader
    reader = _read_now(reader, file.id) if file.passing else reader
    return iter((Entry(file.id, file.uri, file.version, file.size_bytes, form.name, reader, latest=latest),))


def is_looked_at(form: Format, file: ListedFile) -> bool:
    """Return True when the beginning of a file must be read; False for a store's object whose name tells its format."""
    return form.hint is None or file.member or not is_remote(file.uri) or bool(form.hint.search(file.relative))


def _read_encoded(read_bytes: Callable[[], bytes], encoding: str) -> bytes:
    data = read_bytes()
    noted = NotedBytes.of(data, *(data.notes if isinstance(data, NotedBytes) else ()))
    noted.encoding = encoding
    return noted


def reporting_complete(entries: Iterator[Entry], id: str, *, on_complete: Callable[[str], None]) -> Iterator[Entry]:
    """Yield the entries of a container; call `on_complete` with its id unless the last entry reports damage."""
    for entry in entries:
        yield entry
        if entry.id == id and is_damaged(entry):
            return
    on_complete(id)


def container_of(
    file: ListedFile,
    form: str,
    *,
    compression: Compression,
    rules: EntryRules,
    open: Callable[[], BinaryIO] | None = None,
) -> Container:
    return Container(
        file.id,
        file.uri,
        form,
        open or file.open,
        compression,
        (*file.damage, *compression.damage),
        file.size_bytes,
        rules.config.max_document_bytes,
        version=file.version,
        text_field=rules.config.text_field,
        id_field=rules.config.id_field,
        records_field=rules.config.records_field,
        csv=rules.config.csv,
        id_prefix=rules.id_prefix,
        limits=rules.limits,
        ignore=rules.ignore,
        encoding=encoding_of(file.relative, rules.config.encoding, form=form),
    )


def _member_entries(
    file: ListedFile, archive: Archive, *, compression: Compression, rules: EntryRules
) -> Iterator[Entry]:
    """Yield the entries of each selected member; a broken archive ends with a failed entry under its own id."""
    is_chosen_whole = rules.path_filter.wants(file.relative)
    damage = (*file.damage, *compression.damage, *archive.damage)
    budget = UnpackedBudget(file.size_bytes, rules.limits)
    try:
        for member in archive.members(file.open, compression, lambda kind: rules.ignore(f"({kind})")):
            budget.add_member(member.size_bytes + MEMBER_BYTES)
            member = _short_named(member)
            inner = _member(file, member, damage)
            name = printable(safe_relative_name(member.name))
            visible = is_chosen_whole and _VISIBLE.wants(name) and not rules.path_filter.excludes(inner.relative)
            if not visible and not rules.path_filter.wants(inner.relative):
                if (kind := rules.path_filter.passed_over(inner.relative, is_member=is_chosen_whole)) is not None:
                    rules.ignore(f"({kind})")
                continue
            if member.problem is not None and kind_of(name, rules.lookup).form is not None:
                yield _failed(inner, member.problem)
            else:
                yield from entries_of(inner, rules)
    except DocumentError as cause:
        yield damaged(container_of(file, "archive", compression=compression, rules=rules), cause)
    except damage as cause:
        yield damaged(container_of(file, "archive", compression=compression, rules=rules), cause)


def _short_named(member: Member) -> Member:
    """Return the member; if its name is too long, with a shorter name that has the same end, and with a problem."""
    name = member.name
    if len(name) <= MAX_NAME_CHARS:
        return member
    digest = sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    message = f"the name of this member has {len(name)} characters, more than {MAX_NAME_CHARS}"
    problem = DocumentError("document_unreadable", message)
    return replace(member, name=f"{name[:200]}~{digest}~{name[-20:].rsplit('/', 1)[-1]}", problem=problem)


def _member(file: ListedFile, member: Member, damage: Damage) -> ListedFile:
    """Return a member as a file, under its path in the archive, which cannot lead out of it."""
    path = "!/" + printable(safe_relative_name(member.name))
    version = member.version if member.version is not None else file.version
    return ListedFile(
        file.relative + path,
        file.id + path,
        file.uri + path,
        version,
        member.size_bytes,
        member.open,
        None,
        () if member.passing else damage,
        member=True,
        passing=member.passing,
    )


def _read_now(read_bytes: Callable[[], bytes], id: str) -> Callable[[], bytes]:
    """Read the file now; return a function that returns its bytes or raises its problem."""
    try:
        return BytesInContainer(read_bytes(), id)
    except DocumentError as problem:
        return partial(fail, problem)


def _failed(file: ListedFile, problem: DocumentError) -> Entry:
    return Entry(file.id, file.uri, file.version, file.size_bytes, "unsupported", partial(fail, problem))


def count_unsupported(file: ListedFile, rules: EntryRules) -> bool:
    """Count a file of an unknown format that is ignored, and return True; False for any other file."""
    kind = kind_of(file.relative, rules.lookup)
    if rules.config.unsupported != "ignore" or kind.archive is not None or kind.form is not None:
        return False
    rules.ignore(kind.extension)
    return True


def _unsupported_file(file: ListedFile, extension: str, *, rules: EntryRules) -> Iterator[Entry]:
    if rules.config.unsupported == "ignore":
        rules.ignore(extension)
        return
    message = how_to_convert(extension) or f"files with the extension {extension} are not supported"
    yield _failed(file, DocumentError("unsupported_format", message))

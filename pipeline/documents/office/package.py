"""The package of an office file: its parts by name, and the relations between them. Format: ECMA-376 part 2.

A part is unpacked as a stream, each time it is read. It must not open anything outside of the package.
"""

from __future__ import annotations

import io
import lzma
import posixpath
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from pipeline.documents.archives.compression import PLAIN
from pipeline.documents.archives.members import Member
from pipeline.documents.archives.zip import zip_members
from pipeline.documents.office.xml_events import Reader, read_events
from pipeline.errors import DocumentError

_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation of a part to another: the last word of its type, and the other part's name (None: an external one)."""

    kind: str
    part: str | None


class Package:
    """The parts of one office file."""

    def __init__(self, data: bytes) -> None:
        """Read the directory; DocumentError when the file is not a valid zip archive."""
        members = zip_members(lambda: io.BytesIO(data), PLAIN, lambda _: None)
        self._members: dict[str, Member] = {}
        for member in members:
            self._members.setdefault(_key(member.name), member)
        self._relations: dict[str, Mapping[str, Relation]] = {}

    def __contains__(self, part: str) -> bool:
        return _key(part) in self._members

    def read(self, part: str, reader: Reader) -> None:
        """Send the elements of a part to the reader; DocumentError when it is broken."""
        if not part.endswith(".rels"):
            self.relations(part)
        member = self._member(part)
        try:
            with member.open() as stream:
                read_events(stream, reader)
        except _DAMAGE as cause:
            raise _broken("a part cannot be unpacked") from cause

    def data(self, part: str, limit_bytes: int) -> bytes:
        """Return the first bytes of a part that is not XML."""
        try:
            with self._member(part).open() as stream:
                return stream.read(limit_bytes)
        except _DAMAGE as cause:
            raise _broken("a part cannot be unpacked") from cause

    def _member(self, part: str) -> Member:
        member = self._members.get(_key(part))
        if member is None:
            raise _broken("a part is missing")
        if member.problem is not None:
            raise member.problem
        return member

    def relations(self, part: str) -> Mapping[str, Relation]:
        """Return the relations of a part by their ids; those of the whole package for an empty name."""
        if part not in self._relations:
            folder, _, name = part.rpartition("/")
            rels = f"{folder}/_rels/{name}.rels"
            reader = _Relations(folder)
            if rels in self:
                self.read(rels, reader)
            self._relations[part] = reader.found
        return self._relations[part]

    def related(self, part: str, kind: str) -> Iterator[str]:
        """Yield the parts to which a part has a relation of this kind, as far as they are there."""
        for relation in self.relations(part).values():
            if relation.kind == kind and relation.part is not None and relation.part in self:
                yield relation.part

    def count_related(self, kind: str) -> int:
        """Return the number of parts of this kind that belong to the parts read so far, without the data of charts."""
        parts = [part for part in self._relations if "/charts/" not in f"/{part}"]
        return len({name for part in parts for name in self.related(part, kind)})


class _Relations:
    """Reader of a part of relations."""

    def __init__(self, folder: str) -> None:
        self.found: dict[str, Relation] = {}
        self._folder = folder

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name != "rel:Relationship":
            return
        kind = attributes.get("Type", "").rpartition("/")[2]
        target = unquote(attributes.get("Target", ""))
        part = None
        if attributes.get("TargetMode") != "External" and target:
            part = posixpath.normpath(posixpath.join("/" + self._folder, target)).lstrip("/")
        self.found[attributes.get("Id", "")] = Relation(kind, part)

    def end(self, name: str) -> None:
        pass

    def text(self, data: str) -> None:
        pass


def _key(name: str) -> str:
    return name.lstrip("/").lower()


def _broken(reason: str) -> DocumentError:
    return DocumentError("document_unreadable", f"the office file is broken: {reason}")

"""Documents that a person names: by id, by a path of the input, or by a folder or container that holds them.

`run --ids`, `try` and `errors --show` resolve a name here, so that all of them mean the same document. It lists the
input, and reads no document.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.constraints import nearest
from pipeline.documents.listing import local_root
from pipeline.records import Entry
from pipeline.stores import printable

if TYPE_CHECKING:
    from pipeline.config import InputConfig

_ENDS = "/#!"
"""Characters that end the name of a folder or container inside an id."""
_COMPARED = 5000
"""Ids that are compared with a name that is not found, to suggest the nearest one."""


def possible_ids(name: str, config: InputConfig) -> Iterator[str]:
    """Yield the possible ids of a name: the name itself, and the id of an existing path in a local input."""
    yield printable(name)
    if not Path(name).exists():
        return
    for source in config.uri:
        root = local_root(source.uri)
        if root is None:
            continue
        for resolve in (os.path.abspath, os.path.realpath):
            inside = Path(os.path.relpath(resolve(name), resolve(root)))
            if inside.parts and inside.parts[0] != "..":
                yield printable((f"{source.name}/" if source.name else "") + inside.as_posix())


class NamedDocuments:
    """Selection of the named documents from a listing, with the names that were not found."""

    def __init__(self, names: Iterable[str], config: InputConfig) -> None:
        self._names = {possible_id.rstrip("/"): name for name in names for possible_id in possible_ids(name, config)}
        self._names_not_found = dict.fromkeys(self._names.values())
        self._to_meet = set(self._names_not_found)
        self._listed_ids: list[str] = []

    def pick(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the named entries; end the listing as soon as each name has been the complete id of an entry."""
        for entry in entries:
            if self._takes(entry.id):
                yield entry
            elif len(self._listed_ids) < _COMPARED:
                self._listed_ids.append(entry.id)
            if not self._to_meet:
                return

    def _takes(self, document_id: str) -> bool:
        name = self._names.get(document_id)
        if name is not None:
            self._to_meet.discard(name)
        else:
            ends = (at for at, char in enumerate(document_id) if char in _ENDS)
            name = next((self._names[document_id[:at]] for at in ends if document_id[:at] in self._names), None)
        if name is None:
            return False
        self._names_not_found.pop(name, None)
        return True

    def names_not_found(self) -> list[str]:
        """Return the names that no document of the listing had."""
        return list(self._names_not_found)

    def hint(self, name: str) -> str:
        """Return the ending of a message about a missing name: the nearest id of the input, or an empty text."""
        similar = [
            seen_name for seen_name in self._listed_ids if name in seen_name or Path(seen_name).name == Path(name).name
        ]
        near = similar[0] if similar else nearest(name, self._listed_ids)
        return f"; the nearest is {near}" if near else ""

"""What is in an archive: one member at a time, as its reader comes to it.

A member's name is never used as a path: nothing is unpacked to disk, and no link is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.documents.compression import Compression
from pipeline.errors import DocumentError

MEMBER_BYTES = 2048
"""What a member counts for beside its content: an empty one takes as long as unpacking some kilobytes."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its name as it stands there, its size unpacked, and a version of its own if it has one.

    `passing`: it can be read only until the next one is asked for. `problem`: why it cannot be read at all.
    """

    name: str
    size_bytes: int
    open: Callable[[], BinaryIO]
    version: str | None = None
    passing: bool = False
    problem: DocumentError | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """A way to pack files: `members` gives them; `ignored` is told of each link and of each device.

    It raises `damage` or DocumentError when the archive is broken; what was given before that stands.
    """

    members: Callable[[Callable[[], BinaryIO], Compression, Callable[[str], None]], Iterator[Member]]
    damage: tuple[type[Exception], ...]
    compressed: bool


def harmless(name: str) -> str:
    """The name as a relative path that leads nowhere else: without a root, `.` and `..`."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))

"""The members of an archive, one at a time.

It must not use a member's name as a path: nothing is unpacked to disk, and no link is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.documents.archives.compression import Compression
from pipeline.errors import DocumentError

MEMBER_BYTES = 2048
"""Cost of a member besides its content: an empty member takes as long as unpacking some kilobytes."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its unchanged name, its unpacked size, and its own version if it has one.

    `passing`: it can be read only until the next one is requested. `problem`: the reason why it cannot be read.
    """

    name: str
    size_bytes: int
    open: Callable[[], BinaryIO]
    version: str | None = None
    passing: bool = False
    problem: DocumentError | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive format: `members` yields the files, and calls its last argument for each link and each device.

    It raises `damage` or DocumentError when the archive is broken; members yielded before remain valid.
    """

    members: Callable[[Callable[[], BinaryIO], Compression, Callable[[str], None]], Iterator[Member]]
    damage: tuple[type[Exception], ...]
    compressed: bool


def safe_relative_name(name: str) -> str:
    """Return the name as a relative path inside the archive: without a root, `.` and `..`."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))

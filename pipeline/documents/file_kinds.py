"""The kind of a file by its name: its compression, and its archive format or the format of its documents.

It must not open a file; looking.py detects formats by the beginning of a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from pipeline.documents.archives.compression import (
    PLAIN,
    Compression,
    compression_of,
    may_be_compressed,
    split_compression,
)
from pipeline.documents.archives.members import Archive
from pipeline.documents.archives.tar import TAR
from pipeline.documents.archives.zip import ZIP
from pipeline.documents.containers import Format
from pipeline.documents.patterns import PathFilter

Lookup = Callable[[str], Format | None]
"""A function that returns the format of a lower-case suffix other than that of a compression; None if unknown."""

ARCHIVES: Mapping[str, Archive] = {".tar": TAR, ".zip": ZIP}
"""Archives by lower-case suffix, without the suffix of a compression."""

_EXTENSION = re.compile(r"(?:\.[a-z][a-z0-9_-]{0,9}|\.[0-9][a-z0-9]{0,2})")


class FileKind(NamedTuple):
    """The kind of a file after decompression: an archive, or documents of a format (None: unknown)."""

    suffix: str
    compression: Compression
    archive: Archive | None
    form: Format | None

    @property
    def is_stream(self) -> bool:
        """True for a container that must be read to its end to list its entries: all kinds except .zip."""
        if self.archive is not None:
            return self.archive is not ZIP
        return self.form is not None and self.form.split is not None

    @property
    def extension(self) -> str:
        """The extension of an unknown format, with that of a compression, as the counts of ignored files show it."""
        shown = _shortened(self.suffix) if self.suffix else ""
        return shown + self.compression.suffix or "(none)"


def kind_of(name: str, lookup: Lookup) -> FileKind:
    """Return the kind of a file by its name."""
    dot = name.rfind(".")
    if dot > name.rfind("/") + 1 and (kind := _kind_of_suffix(name[dot:], lookup)) is not None:
        return kind
    if may_be_compressed(name[name.rfind(".") :].lower()):
        stem, compression = split_compression(name)
        return _kind(suffix_of(stem), compression.suffix, lookup)
    return _kind(suffix_of(name), PLAIN.suffix, lookup)


@lru_cache(maxsize=1024)
def _kind_of_suffix(suffix: str, lookup: Lookup) -> FileKind | None:
    """Return the kind of the files with this suffix; None for one that may be of a compression."""
    suffix = suffix.lower()
    return None if may_be_compressed(suffix) else _kind(suffix, PLAIN.suffix, lookup)


@lru_cache(maxsize=1024)
def _kind(suffix: str, packed: str, lookup: Lookup) -> FileKind:
    """Return the kind of the files with these two suffixes."""
    compression = compression_of(packed)
    archive = ARCHIVES.get(suffix)
    if archive is not None and not archive.compressed and compression is not PLAIN:
        archive = None
    return FileKind(suffix, compression, archive, lookup(suffix))


def is_chosen(relative: str, path_filter: PathFilter) -> bool:
    """Return True when the file is selected, or is an archive that may have selected members."""
    if path_filter.wants(relative):
        return True
    return (
        archive_of(relative) is not None and not path_filter.excludes(relative) and path_filter.enters(relative + "!")
    )


def archive_of(name: str) -> Archive | None:
    """Return the archive format of a file name; None for another file."""
    return kind_of(name, _no_format).archive


def _no_format(_: str) -> None:
    """Return no format, where only the archive matters."""


def extension_of(name: str) -> str:
    """Return the extension in lower case with its dot; `(none)`, or `(other)` if it does not look like one."""
    suffix = suffix_of(name)
    return _shortened(suffix) if suffix else "(none)"


def _shortened(suffix: str) -> str:
    return suffix if _EXTENSION.fullmatch(suffix) else "(other)"


def suffix_of(name: str) -> str:
    """Return the name's last suffix in lower case with its dot, or an empty text."""
    dot = name.rfind(".")
    has_stem = dot > name.rfind("/") + 1  # a dot at the beginning of a name begins no suffix
    return name[dot:].lower() if has_stem else ""

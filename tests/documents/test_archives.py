"""Archives are folders of documents: they are read as streams, one member at a time, and never unpacked to disk."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard
from documents_of import in_folder_of_input, peak_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, load_entries
from pipeline.errors import DocumentError
from pipeline.records import Entry

FORMS = ("zip", "tar", "tar.gz", "tgz", "tar.zst")
Files = Mapping[str, bytes]


_in_tmp_path = pytest.fixture(autouse=True)(in_folder_of_input)


def tar(files: Files, *special: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info in special:
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(files: Files, *special: zipfile.ZipInfo, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for info in special:
            archive.writestr(info, b"target")
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def packed(form: str, files: Files) -> bytes:
    """Return an archive of this form."""
    if form == "zip":
        return zipped(files)
    pack: dict[str, Callable[[bytes], bytes]] = {"tar": bytes, "tar.zst": zstandard.compress}
    return pack.get(form, gzip.compress)(tar(files))


def entries(
    data: bytes, name: str, *, counts: ListingCounts | None = None, input: str = "in", **more: Any
) -> list[Entry]:
    """Return the entries of an archive with these bytes."""
    Path("in", name).write_bytes(data)
    config = InputConfig(uri=(InputSource(input),), **more)
    return list(load_entries(config, output=None, counts=counts or ListingCounts()))


def read(entries: Sequence[Entry]) -> dict[str, bytes | str]:
    """Return the bytes of each entry, or the reason why it has none."""
    texts: dict[str, bytes | str] = {}
    for entry in entries:
        try:
            texts[entry.id] = entry.read()
        except DocumentError as error:
            texts[entry.id] = error.reason
    return texts


@pytest.mark.parametrize("form", FORMS)
def test_archive_member_is_a_document(form: str) -> None:
    """Its id is `path!/member`, its lines are `path!/member#N`; it may be compressed; other members are counted."""
    files = {
        "a.txt": b"x",
        "sub/b.md": b"y" * 600_000,
        "c.jsonl": b'{"n":1}\n\n{"n":3}\n',
        "d.txt.gz": gzip.compress(b"z"),
        "e.csv": b"text\nt\n",
        "f.odt": b"",
        "sub/inner.zip": zipped({"g.txt": b"no"}),
        "inner.tar.gz": gzip.compress(tar({"g.txt": b"no"})),
        "empty.txt": b"",
    }
    counts = ListingCounts()
    listing = entries(packed(form, files), f"A.{form}", counts=counts)
    assert read(listing) == {
        f"A.{form}!/{name}": data
        for name, data in {
            "a.txt": b"x",
            "sub/b.md": b"y" * 600_000,
            "c.jsonl#1": b'{"n":1}',
            "c.jsonl#3": b'{"n":3}',
            "d.txt.gz": b"z",
            "e.csv#1": b'{"text":"t"}',
            "empty.txt": b"",
        }.items()
    }
    assert counts.ignored == {".odt": 1, ".zip": 1, ".tar.gz": 1}
    assert (counts.files, counts.listed) == (1, 7)
    assert listing[0].uri == f"in/A.{form}!/a.txt"


def test_nested_archive_can_fail() -> None:
    """With `unsupported: fail` it is one failed document."""
    assert read(entries(zipped({"b.tar": tar({"c.txt": b""})}), "a.zip", unsupported="fail")) == {
        "a.zip!/b.tar": "unsupported_format"
    }


@pytest.mark.parametrize("form", FORMS)
def test_member_name_cannot_leave_the_archive(form: str) -> None:
    """Roots and dots are removed from names, so only the archive is read."""
    names = ["../../etc/passwd.txt", "/etc/shadow.txt", "a/../../b.txt", "./c.txt", "//d.txt", "e/./f.txt"]
    contents = read(entries(packed(form, {name: name.encode() for name in names}), f"a.{form}"))
    clean = ["etc/passwd.txt", "etc/shadow.txt", "a/b.txt", "c.txt", "d.txt", "e/f.txt"]
    assert contents == {f"a.{form}!/{after}": before.encode() for before, after in zip(names, clean, strict=True)}


@pytest.mark.parametrize("form", FORMS)
def test_too_long_member_name_is_refused(form: str) -> None:
    """A name of 30 kB is one failed document under a short id, and does not slow down globs."""
    names = ["a" * 30_000 + ".txt", "b/" * 15_000 + "c.txt.gz", "d" * 30_000]
    data = packed(form, {**dict.fromkeys(names, b"x"), "e.txt": b"y"})
    listing = entries(data, f"a.{form}", include=["*a*a*a*a*.txt*", "*.gz", "e.txt"], exclude=["*a*a*a*a*a*b"])
    assert max(len(entry.id) for entry in listing) < 300
    assert list(read(listing).values()) == ["document_unreadable", "document_unreadable", b"y"]
    with pytest.raises(DocumentError, match="30004 characters, more than 4096"):
        listing[0].read()


def test_links_and_devices_are_skipped() -> None:
    """They are counted, and their targets are not read."""
    kinds = {tarfile.SYMTYPE: "s", tarfile.LNKTYPE: "l", tarfile.CHRTYPE: "c", tarfile.FIFOTYPE: "f"}
    special = []
    for kind, name in kinds.items():
        info = tarfile.TarInfo(f"{name}.txt")
        info.type, info.linkname = kind, "/etc/passwd"
        special.append(info)
    counts = ListingCounts()
    contents = read(entries(tar({"a.txt": b"x"}, *special), "a.tar", counts=counts))
    assert contents == {"a.tar!/a.txt": b"x", "a.tar!/l.txt": "document_unreadable"}
    assert counts.ignored == {"(symlink)": 1, "(special)": 2}
    link = zipfile.ZipInfo("s.txt")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    counts = ListingCounts()
    contents = entries(zipped({"b.txt": b"x", "dir/": b""}, link), "b.zip", counts=counts, input="in/b.zip")
    assert read(contents) == {"b.zip!/b.txt": b"x"}
    assert counts.ignored == {"(symlink)": 1}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["**"], [], ["a.txt", "b.md", "x/c.txt"]),
        (["*.txt"], [], ["a.txt", "x/c.txt"]),
        (["*.zip"], [], ["a.txt", "b.md", "x/c.txt"]),
        (["**", "*.zip!/.h.txt"], [], [".h.txt", "a.txt", "b.md", "x/c.txt"]),
        (["a.zip!/x/**"], [], ["x/c.txt"]),
        (["**"], ["*.md", "x/"], ["a.txt"]),
        (["**"], ["a.zip!/x"], ["a.txt", "b.md"]),
        (["*.txt"], ["*.zip"], []),
    ],
)
@pytest.mark.parametrize("input", ["in", "in/a.zip", "in/*.zip"])
def test_include_and_exclude_apply_to_members(
    include: list[str], exclude: list[str], expected: list[str], input: str
) -> None:
    """The archive is a folder `a.zip!`; hidden members must be named; a pattern for it includes all members."""
    if (input == "in/*.zip" and include != ["**"]) or (input == "in/a.zip" and exclude == ["*.zip"]):
        return
    names = (".h.txt", "a.txt", "b.md", "x/c.txt", "_x/d.txt", "__MACOSX/._a.txt")
    data = zipped(dict.fromkeys(names, b""))
    listing = entries(data, "a.zip", input=input, include=tuple(include), exclude=tuple(exclude))
    assert sorted(entry.id for entry in listing) == [f"a.zip!/{name}" for name in expected]


def test_each_kind_of_zip_is_read() -> None:
    """It may be stored or deflated, have a comment, leading bytes or trailing sizes, or be in the large format."""
    files = {"a.txt": b"x" * 5000, "b.txt": os.urandom(900_000)}
    expected = {f"a.zip!/{name}": data for name, data in files.items()}
    commented = io.BytesIO(zipped(files))
    with zipfile.ZipFile(commented, "a") as archive:
        archive.comment = b"PK\5\6" + b"c" * 3000
    streamed = io.BytesIO()
    with zipfile.ZipFile(_Unseekable(streamed), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    whole = zipped(files)
    for data in (zipped(files, method=zipfile.ZIP_STORED), commented.getvalue(), b"#!/bin/sh\n" * 9 + whole,
                 streamed.getvalue(), _large(whole, 2)):  # fmt: skip
        assert read(entries(data, "a.zip")) == expected
    assert entries(zipped({}), "a.zip") == []


class _Unseekable(io.RawIOBase):
    """A pipe, which makes the writer put sizes after the data."""

    def __init__(self, out: io.BytesIO) -> None:
        self._out = out

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._out.write(data)


def _large(data: bytes, count: int) -> bytes:
    """Return the archive with the end records of one larger than 4 GiB."""
    at = len(data) - 22
    size, offset = struct.unpack_from("<2L", data, at + 12)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:at] + record + locator + tail


def test_zip_member_names_are_decoded() -> None:
    """They may be UTF-8 with or without the flag, or in the DOS code page."""
    archive = zipped({"ü.txt": b"1"})
    plain = zipped({"xx.txt": b"2"}).replace(b"xx.txt", "ü.txt".encode())
    dos = zipped({"x.txt": b"3"}).replace(b"x.txt", "ü.txt".encode("cp437"))
    for data, text in ((archive, b"1"), (plain, b"2"), (dos, b"3")):
        assert read(entries(data, "a.zip")) == {"a.zip!/ü.txt": text}


def test_zip_member_has_a_version() -> None:
    """It consists of size, checksum and time, so unchanged members are skipped even in a rebuilt archive."""
    first, second = (zipped({"a.txt": b"x", other: b"y"}) for other in ("b.txt", "c.txt"))
    versions = [{entry.id: entry.version for entry in entries(data, "a.zip")} for data in (first, second)]
    assert versions[0]["a.zip!/a.txt"] == versions[1]["a.zip!/a.txt"] is not None
    assert versions[0]["a.zip!/a.txt"] != versions[0]["a.zip!/b.txt"]


def test_tar_member_has_the_version_of_the_archive() -> None:
    """A tar has no trustworthy data about a member."""
    Path("in/a.tar").write_bytes(tar({"a.txt": b"x"}))
    os.utime("in/a.tar", ns=(0, 5))
    config = InputConfig(uri=(InputSource("in"),))
    (entry,) = load_entries(config, output=None, counts=ListingCounts())
    assert entry.version == f"{Path('in/a.tar').stat().st_size}-5"


def test_broken_member_is_one_failed_document() -> None:
    """A checksum detects it, and the others are read; encrypted or oddly packed members fail with advice."""
    data = bytearray(zipped({"a.txt": b"alpha" * 20, "b.txt": b"beta", "c.txt": b"c"}, method=zipfile.ZIP_STORED))
    data[data.index(b"alphaalpha")] ^= 1
    contents = read(entries(bytes(data), "a.zip"))
    assert contents == {"a.zip!/a.txt": "document_unreadable", "a.zip!/b.txt": b"beta", "a.zip!/c.txt": b"c"}
    for field, value in ((8, 1), (10, 12)):
        data = bytearray(zipped({"a.txt": b"alpha", "b.txt": b"beta"}))
        data[data.index(b"PK\1\2") + field] |= value
        contents = read(entries(bytes(data), "a.zip"))
        assert contents == {"a.zip!/a.txt": "document_unreadable", "a.zip!/b.txt": b"beta"}


@pytest.mark.parametrize("form", FORMS)
def test_truncated_archive_keeps_members_before_the_cut(form: str) -> None:
    """One failed document represents the lost members; a zip, whose directory is at its end, is lost completely."""
    noise = random.Random(7)
    files = {f"{n:03}.txt": noise.randbytes(3000) for n in range(400)}
    data = packed(form, files)
    contents = read(entries(data[: len(data) // 2], f"a.{form}"))
    assert contents.pop(f"a.{form}") == "document_unreadable"
    assert contents == {f"a.{form}!/{name}": data for name, data in list(files.items())[: len(contents)]}
    assert len(contents) == 0 if form == "zip" else 100 < len(contents) <= 202


def test_tar_truncated_between_members_is_detected() -> None:
    """Without an end mark, or with a damaged header, it does not count as whole."""
    data = tar({"a.txt": b"x" * 512, "b.txt": b"y" * 512})
    for broken in (data[:1024], data[:1024] + b"\x01" * 512 + data[1536:], data[:1536], b""):
        contents = read(entries(broken, "a.tar"))
        assert contents["a.tar"] == "document_unreadable"
        assert len(contents) == (2 if broken else 1)


def test_too_large_member_fails_alone() -> None:
    """The size is taken from the header or by reading, and the following members are read."""
    files = {"a.txt": b"x" * 101, "b.txt": b"y" * 100, "c.txt.gz": gzip.compress(b"z" * 200_000)}
    for form in FORMS:
        assert read(entries(packed(form, files), "a." + form, max_document_bytes=100, input=f"in/a.{form}")) == {
            f"a.{form}!/a.txt": "document_too_large",
            f"a.{form}!/b.txt": b"y" * 100,
            f"a.{form}!/c.txt.gz": "document_too_large",
        }
    lying = bytearray(zipped({"a.txt": bytes(1 << 20)}))
    for start, field in ((0, 22), (lying.index(b"PK\1\2"), 24)):
        struct.pack_into("<L", lying, start + field, 50)
    assert read(entries(bytes(lying), "a.zip", max_document_bytes=100, input="in/a.zip")) == {
        "a.zip!/a.txt": "document_too_large"
    }


@pytest.mark.parametrize("form", ["zip", "tar", "tar.zst"])
def test_memory_does_not_grow_with_the_archive(form: str) -> None:
    """Ten times the members need no more memory."""
    peaks = []
    for count in (300, 3000):
        name = f"a{count}.{form}"
        Path("in", name).write_bytes(packed(form, {f"{n}.txt": b"x" * 100 for n in range(count)}))
        config = InputConfig(uri=(InputSource(f"in/{name}"),))

        def go_through(config: InputConfig = config) -> None:
            for entry in load_entries(config, output=None, counts=ListingCounts()):
                entry.read()

        peaks.append(peak_bytes(go_through))
    assert peaks[1] < peaks[0] * 1.3


def test_bombs_stop_at_the_limit() -> None:
    """Members and headers that unpack to a huge size need no memory."""
    big = bytes(64 << 20)
    info = tarfile.TarInfo("b.txt")
    info.pax_headers = {"comment": "x" * (64 << 20)}
    with tarfile.open("in/head.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    bombs = {
        "a.zip": zipped({"a.txt": big, "b.txt": b"x"}),
        "a.tar.zst": zstandard.compress(tar({"a.txt": big, "b.txt": b"x"})),
        "c.tar.gz": gzip.compress(Path("in/head.tar").read_bytes()),
    }
    Path("in/head.tar").unlink()
    expected = {"a.txt": "document_too_large", "b.txt": b"x"}
    for name, data in bombs.items():
        Path("in", name).write_bytes(data)
        config = InputConfig(uri=(InputSource(f"in/{name}"),), max_document_bytes=1 << 20)
        collected: dict[str, bytes | str] = {}

        def go_through(config: InputConfig = config, target: dict[str, bytes | str] = collected) -> None:
            target.update(read(list(load_entries(config, output=None, counts=ListingCounts()))))

        assert peak_bytes(go_through) < 12 << 20
        prefixed = {f"{name}!/{key}": value for key, value in expected.items()}
        assert collected == ({name: "document_unreadable"} if name == "c.tar.gz" else prefixed)


@pytest.mark.parametrize("size", [-512, -10240, 0o77777777777])
def test_hostile_member_size_ends_the_archive(size: int) -> None:
    """A size that leads backwards or beyond the end causes no endless loop."""
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = {"size": str(size)}
    data = tar({"b.txt": b"x"}, info)
    assert "a.tar" in read(entries(data, "a.tar"))


_MEMBERS = {"a.txt": b"alpha " * 40, "b/c.jsonl": b'{"text": "x"}\n' * 9, "d.csv": b"text\nx\n"}


@settings(deadline=None)
@given(st.sampled_from(FORMS), st.data())
def test_any_damage_gives_entries_or_failures(form: str, draw: st.DataObject) -> None:
    """Bytes are overwritten, duplicated or cut, and the listing always ends."""
    data = bytearray(packed(form, _MEMBERS))
    for _ in range(draw.draw(st.integers(1, 6))):
        at = draw.draw(st.integers(0, len(data)))
        data[at : at + draw.draw(st.integers(0, 40))] = draw.draw(st.binary(max_size=12) | st.just(bytes(data[:60])))
    for entry in entries(bytes(data), f"a.{form}", input=f"in/a.{form}", max_document_bytes=1000):
        with suppress(DocumentError):
            assert isinstance(entry.read(), bytes)


@settings(deadline=None)
@given(st.sampled_from(FORMS), st.binary(max_size=1500))
def test_arbitrary_bytes_as_an_archive(form: str, data: bytes) -> None:
    """Bytes that are no archive are one failed document."""
    for entry in entries(data, f"a.{form}", input=f"in/a.{form}"):
        with suppress(DocumentError):
            entry.read()

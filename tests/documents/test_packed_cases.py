"""Archives and compressed files of other tools: padding, junk, old methods, links, backslashes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.errors import DocumentError
from pipeline.records import Entry

CASES = Path(__file__).parents[1] / "data" / "documents"


def listed(path: Path, counts: ListingCounts | None = None) -> list[Entry]:
    config = InputConfig(uri=(InputSource(str(path)),))
    return list(load_entries(config, output=None, counts=counts or ListingCounts()))


def texts(path: Path, counts: ListingCounts | None = None) -> dict[str, bytes]:
    """Return the bytes of each entry; DocumentError for an unreadable one."""
    return {entry.id: entry.read() for entry in listed(path, counts)}


def put(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("gz/10.txt.bz2", {"10.txt.bz2": b"x"}),
        ("gz/11.txt.xz", {"11.txt.xz": b"x"}),
        ("tar/06.tar.xz", {"06.tar.xz!/a.txt": b"first"}),
        (
            "tar/02_hardlink_symlink_fifo.tar",
            {f"02_hardlink_symlink_fifo.tar!/{name}.txt": b"first" for name in "ab"},
        ),
        (
            "zip/01_trailing_zero_padding.zip",
            {
                "01_trailing_zero_padding.zip!/a.txt": b"first text",
                "01_trailing_zero_padding.zip!/b/c.txt": b"second text",
            },
        ),
        (
            "zip/07_bzip2_lzma_members.zip",
            {
                f"07_bzip2_lzma_members.zip!/{name}.txt": text
                for name, text in {"a": b"bz text", "b": b"lzma text", "c": b"plain"}.items()
            },
        ),
    ],
)
def test_archive_case_has_all_its_documents(case: str, expected: dict[str, bytes]) -> None:
    """Each document that the format's own tools find is found, with its content."""
    assert texts(CASES / case) == expected


def test_junk_after_a_gzip_member_is_noted(tmp_path: Path) -> None:
    """The text is that of the member; padding is not noted."""
    (entry,) = listed(CASES / "gz/03_trailing_junk.txt.gz")
    document = decode(entry, entry.read(), text_field="text")
    assert (document.text, document.notes) == ("first part\n", ("trailing_bytes:4",))
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        suffix = {gzip.compress: "gz", bz2.compress: "bz2"}.get(pack, "xz")
        (entry,) = listed(put(tmp_path, f"a.txt.{suffix}", pack(b"one ") + pack(b"two") + bytes(5000)))
        document = decode(entry, entry.read(), text_field="text")
        assert (document.text, document.notes) == ("one two", ())
    counts = ListingCounts()
    lines = put(tmp_path, "a.jsonl.gz", gzip.compress(b'{"text":"a"}\n') + b"junk")
    assert texts(lines, counts) == {"a.jsonl.gz#1": b'{"text":"a"}'}
    assert counts.ignored == {"(trailing bytes)": 1}


PARTS = st.binary(max_size=300).map(lambda part: part.replace(b"<", b"("))
"""Any bytes but a tag: a text that begins with `<DOCUMENT>` is a filing."""


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@settings(deadline=None, max_examples=60)
@given(parts=st.lists(PARTS, min_size=1, max_size=4), cut=st.integers(0, 60), data=st.data())
def test_concatenated_streams_are_read_or_fail(
    tmp_path_factory: pytest.TempPathFactory,
    pack: Callable[[bytes], bytes],
    parts: list[bytes],
    cut: int,
    data: st.DataObject,
) -> None:
    """Several streams in one file are one text; a file cut within a stream never counts as whole."""
    suffix = {gzip.compress: "gz", bz2.compress: "bz2"}.get(pack, "xz")
    packed = [pack(part) for part in parts]
    whole = b"".join(packed)
    folder = tmp_path_factory.mktemp("a")
    assert texts(put(folder, f"a.txt.{suffix}", whole)) == {f"a.txt.{suffix}": b"".join(parts)}
    last = data.draw(st.integers(1, len(packed[-1]) - 1)) if cut else 0
    if last > 6:
        (entry,) = listed(put(folder, f"a.txt.{suffix}", whole[: len(whole) - len(packed[-1]) + last]))
        with pytest.raises(DocumentError):
            entry.read()


def zip_of(*members: tuple[str, bytes, int], system: int = 3) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data, method in members:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.create_system = method, system
            archive.writestr(info, data)
    return out.getvalue()


@settings(deadline=None, max_examples=60)
@given(
    contents=st.lists(
        st.tuples(
            st.binary(max_size=3000),
            st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
        ),
        min_size=1,
        max_size=4,
    ),
    before=st.binary(max_size=50),
    after=st.one_of(st.binary(max_size=50), st.integers(0, 200_000).map(bytes)),
)
def test_any_zip_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[bytes, int]], before: bytes, after: bytes
) -> None:
    """It may use every method and have bytes before and after the archive."""
    data = zip_of(*((f"{at}.txt", text, method) for at, (text, method) in enumerate(contents)))
    result = texts(put(tmp_path_factory.mktemp("a"), "a.zip", before + data + after))
    assert result == {f"a.zip!/{at}.txt": text for at, (text, _) in enumerate(contents)}


def test_bytes_after_a_zip_are_counted(tmp_path: Path) -> None:
    """They are counted once for the archive, except padding."""
    counts = ListingCounts()
    data = zip_of(("a.txt", b"x", 0))
    assert texts(put(tmp_path, "a.zip", data + bytes(100)), counts) == {"a.zip!/a.txt": b"x"}
    assert counts.ignored == {}
    assert texts(put(tmp_path, "a.zip", data + b"signature"), counts) == {"a.zip!/a.txt": b"x"}
    assert counts.ignored == {"(trailing bytes)": 1}


def test_backslashes_separate_only_in_archives_from_windows(tmp_path: Path) -> None:
    """On other systems a backslash is a character of a name."""
    for system, expected in ((0, "a.zip!/x/b.txt"), (3, "a.zip!/x\\b.txt")):
        data = zip_of(("x/b.txt", b"x", 0), system=system).replace(b"x/b.txt", b"x\\b.txt")
        assert list(texts(put(tmp_path, "a.zip", data))) == [expected]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tbz2", "tar.xz", "txz", "tar.zst"])
def test_hard_link_gives_its_target_member(tmp_path: Path, suffix: str) -> None:
    """It works even if the target itself is excluded; a dangling link is one failed document."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in ((".hidden.txt", b"first"), ("b.txt", b"second")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
        for name, target in (("c.txt", ".hidden.txt"), ("d.txt", "nothing.txt")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            archive.addfile(info)
    pack = {"z2": bz2.compress, "xz": lzma.compress, "gz": gzip.compress, "st": zstandard.compress}
    data = pack.get(suffix[-2:], bytes)(out.getvalue())
    name = f"a.{suffix}"
    result = {entry.id: entry for entry in listed(put(tmp_path, name, data))}
    assert {id: result[id].read() for id in (f"{name}!/b.txt", f"{name}!/c.txt")} == {
        f"{name}!/b.txt": b"second",
        f"{name}!/c.txt": b"first",
    }
    with pytest.raises(DocumentError, match="not in the archive"):
        result[f"{name}!/d.txt"].read()


def test_rereading_by_hard_links_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a limit of repeated bytes each further link fails alone."""
    from pipeline.documents.archives import tar

    monkeypatch.setattr(tar, "MAX_LINK_BYTES", 10_000)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = 3000
        archive.addfile(info, io.BytesIO(b"x" * 3000))
        for number in range(6):
            info = tarfile.TarInfo(f"{number}.txt")
            info.type, info.linkname = tarfile.LNKTYPE, "a.txt"
            archive.addfile(info)
    reasons = []
    for entry in listed(put(tmp_path, "a.tar", out.getvalue())):
        try:
            reasons.append(len(entry.read()))
        except DocumentError as problem:
            reasons.append(problem.reason)
    assert reasons == [3000, 3000, 3000] + ["document_too_expensive"] * 4


def test_lzma_window_over_128_mib_is_refused(tmp_path: Path) -> None:
    """The lzma or xz stream declares its memory use."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    data = lzma.compress(b"x" * 100, filters=filters)
    (entry,) = listed(put(tmp_path, "a.txt.xz", data))
    with pytest.raises(DocumentError, match="Memory usage limit"):
        entry.read()

"""Reading a small file at once: the same bytes and refusals as with a stream."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.stores import OutageRetry, Source, StaleVersionError, StoredFile, find_file, open_file, read_whole, walk

LIMIT = 1000


def only_file(root: Path) -> StoredFile:
    (file,) = walk(root)
    return file


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 300_000])
def test_read_whole_returns_the_bytes_up_to_the_limit(tmp_path: Path, size: int) -> None:
    """The bytes equal those of a stream; beyond the limit it is None."""
    (tmp_path / "a.txt").write_bytes(bytes(number % 251 for number in range(size)))
    file = only_file(tmp_path)
    with open_file(file) as stream:
        data = stream.read()
    assert read_whole(file, LIMIT) == (data if size <= LIMIT else None)
    assert read_whole(file, 1 << 20) == data


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no file whose size is unknown")
def test_growing_file_is_read_to_its_end() -> None:
    """The limit applies to it too."""
    file = StoredFile("/proc/self/status", "status", 0, None)
    data = read_whole(file, 1 << 20)
    assert data is not None
    assert data.startswith(b"Name:")
    assert data.endswith(b"\n")
    assert read_whole(file, 10) is None


def test_read_whole_refuses_fifos_replaced_files_and_links(tmp_path: Path) -> None:
    """A link is refused only if the listing had found a file."""
    path = tmp_path / "a.txt"
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="regular"):
        read_whole(StoredFile(str(tmp_path / "fifo"), "fifo", 1, None), LIMIT)
    (tmp_path / "fifo").unlink()
    path.write_bytes(b"first")
    file = only_file(tmp_path)
    (tmp_path / "new").write_bytes(b"other")
    (tmp_path / "new").replace(path)
    with pytest.raises(StaleVersionError):
        read_whole(file, LIMIT)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="is a link, which the listing did not find") as error:
        read_whole(file, LIMIT)
    assert error.value.errno == errno.ELOOP


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """This holds after reading a file and after refusing one."""
    (tmp_path / "a.txt").write_bytes(b"x" * (LIMIT + 1))
    file = find_file(tmp_path / "a.txt")
    assert file is not None
    before = lowest_free()
    for _ in range(20):
        read_whole(file, LIMIT)
        read_whole(file, LIMIT + 1)
    assert lowest_free() <= before


def lowest_free() -> int:
    """Return the lowest unused descriptor."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


def test_read_is_repeated_after_an_outage(tmp_path: Path) -> None:
    """A file system error is retried, and a successful read counts as proof for other files."""
    stop = threading.Event()
    source = Source("inbox", OutageRetry(30.0, stop, time.monotonic))
    remaining = [OSError(errno.EIO, "Input/output error")]

    def opener() -> BinaryIO:
        return io.BytesIO(b"x")

    def read() -> bytes:
        if remaining:
            raise remaining.pop()
        return b"bytes"

    assert source.read(read, opener, key="a.txt") == b"bytes"
    assert source.outage_retry.troubled
    with pytest.raises(FileNotFoundError):
        source.read(lambda: (tmp_path / "missing").read_bytes(), opener, key="b.txt")

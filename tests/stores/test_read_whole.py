"""A file that is read at once: the same bytes and the same refusals as for one that is opened."""

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
def test_all_bytes_up_to_the_limit_are_read(tmp_path: Path, size: int) -> None:
    """As a stream has them; None beyond the limit."""
    (tmp_path / "a.txt").write_bytes(bytes(number % 251 for number in range(size)))
    file = only_file(tmp_path)
    with open_file(file) as stream:
        data = stream.read()
    assert read_whole(file, LIMIT) == (data if size <= LIMIT else None)
    assert read_whole(file, 1 << 20) == data


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no file whose size is unknown")
def test_a_file_that_has_more_than_its_size_is_read_to_its_end() -> None:
    """As one that grows meanwhile; the limit holds for it, too."""
    file = StoredFile("/proc/self/status", "status", 0, None)
    data = read_whole(file, 1 << 20)
    assert data is not None
    assert data.startswith(b"Name:")
    assert data.endswith(b"\n")
    assert read_whole(file, 10) is None


def test_what_must_not_be_opened_is_not_read(tmp_path: Path) -> None:
    """A fifo, a file that was replaced, and a link that the listing did not see."""
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
    """Neither after a file that is read nor after one that is refused."""
    (tmp_path / "a.txt").write_bytes(b"x" * (LIMIT + 1))
    file = find_file(tmp_path / "a.txt")
    assert file is not None
    before = lowest_free()
    for _ in range(20):
        read_whole(file, LIMIT)
        read_whole(file, LIMIT + 1)
    assert lowest_free() <= before


def lowest_free() -> int:
    """The lowest descriptor that is not in use; those above it may be."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


def test_a_read_is_made_again_after_an_outage(tmp_path: Path) -> None:
    """A read that fails with the trouble of a file system is made again; one that has succeeded counts for others."""
    stop = threading.Event()
    source = Source("inbox", OutageRetry(30.0, stop, time.monotonic))
    left = [OSError(errno.EIO, "Input/output error")]

    def opener() -> BinaryIO:
        return io.BytesIO(b"x")

    def read() -> bytes:
        if left:
            raise left.pop()
        return b"bytes"

    assert source.read(read, opener, key="a.txt") == b"bytes"
    assert source.outage_retry.troubled
    with pytest.raises(FileNotFoundError):
        source.read(lambda: (tmp_path / "missing").read_bytes(), opener, key="b.txt")

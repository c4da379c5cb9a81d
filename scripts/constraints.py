"""Write config/docker/constraints.txt: the exact versions that the image installs, each file with its hash.

python scripts/constraints.py              # keeps versions that still fit setup.cfg; needs `uv`
python scripts/constraints.py --upgrade    # the newest versions that fit
python scripts/constraints.py --check      # exit code 1 and a line for each requirement that the file does not fit
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from floors import requirements
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "config" / "docker" / "constraints.txt"
COMPILE = ("pip", "compile", "setup.cfg", "--extra", "all", "--universal", "--python-version", "3.10")
STYLE = ("--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--quiet")


def misfits(text: str, needed: list[str]) -> list[str]:
    """Return a line for each pin without a hash, and for each requirement that the pins do not meet."""
    pins: dict[str, list[str]] = {}
    wrong = []
    for block in text.replace("\\\n", " ").splitlines():
        line, *hashes = block.split(" --hash=sha256:")
        pin = Requirement(line.strip())
        pins.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
        if not hashes:
            wrong.append(f"{pin.name}: no hash")
    for requirement in map(Requirement, needed):
        versions = pins.get(canonicalize_name(requirement.name), [])
        outside = [version for version in versions if version not in requirement.specifier]
        if outside or not versions:
            wrong.append(f"{requirement.name}: got {', '.join(outside) or 'nothing'}, need {requirement.specifier}")
    return wrong


def main() -> int:
    """Write or check the file; return the exit code."""
    parser = argparse.ArgumentParser(description="The versions and hashes that the image installs.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that setup.cfg admits")
    parser.add_argument("--check", action="store_true", help="write nothing; report what does not fit setup.cfg")
    arguments = parser.parse_args()
    if not arguments.check:
        upgrade = ["--upgrade"] if arguments.upgrade else []
        place = ["--output-file", str(FILE.relative_to(ROOT))]
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        if uv is None:
            parser.error("uv is not installed: pip install uv")
        subprocess.run([uv, *COMPILE, *STYLE, *upgrade, *place], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wrong = misfits(FILE.read_text(encoding="utf-8"), requirements(["all"]))
    print("\n".join(wrong) or f"{FILE.relative_to(ROOT)} fits setup.cfg")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

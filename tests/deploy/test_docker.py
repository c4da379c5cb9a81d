"""The Dockerfile, checked without an engine: hadolint's findings and the promises of its instructions."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from charts import CHART, PROJECT

from pipeline import __version__

FOLDER = PROJECT / "config" / "docker"
TEXT = (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Return each instruction with its arguments, continued lines joined, comments removed."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines.splitlines() if line)]


def final_stage() -> list[tuple[str, str]]:
    """Return the instructions of the final stage."""
    result = instructions()
    return result[max(n for n, (name, _) in enumerate(result) if name == "FROM") :]


def value_of(name: str) -> str:
    """Return the arguments of the only instruction of this name in the final stage."""
    (match,) = [rest for instruction, rest in final_stage() if instruction == name]
    return match


def test_hadolint_reports_no_problem() -> None:
    """It runs with default rules where its package exists."""
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        assert not os.environ.get("CI"), "no hadolint: it is in the extra `test`"
        pytest.skip("no hadolint for this machine")
    ran = subprocess.run([program, FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_final_stage_has_no_build_tools() -> None:
    """Two stages share a base; the last one runs no command and copies only the environment and the init."""
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert bases[0] == "${BASE_IMAGE}"
    assert "RUN" not in dict(final_stage())
    copied = [rest for name, rest in final_stage() if name == "COPY"]
    assert copied == [f"--from=build {path} {path}" for path in ("/usr/bin/tini", "/opt/pipeline")]


def test_base_image_can_be_pinned_by_digest() -> None:
    """One argument names it for both stages, as the security page shows."""
    result = instructions()
    arguments = [rest for name, rest in result[: [name for name, _ in result].index("FROM")] if name == "ARG"]
    assert arguments == ["BASE_IMAGE=python:3.13-slim-bookworm"]
    page = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
    assert '--build-arg BASE_IMAGE="$base@$digest"' in page and arguments[0].partition("=")[2] in page
    assert not re.search(r"sha256:[0-9a-f]", page + TEXT)


def test_image_has_no_cache_and_no_compiler() -> None:
    """pip keeps no cache and installs wheels only; apt installs the init, and its lists are removed."""
    runs = " ".join(rest for name, rest in instructions() if name == "RUN")
    assert runs.count("--no-cache-dir") == len(re.findall(r"pip (?:wheel|install)", runs)) == 3
    assert "--only-binary :all: --require-hashes -r constraints.txt" in runs
    assert re.findall(r"apt-get install --yes --no-install-recommends (\S+)", runs) == ["tini=0.19.*"]
    assert "rm -rf /var/lib/apt/lists/*" in runs


def test_user_is_numeric_and_not_root() -> None:
    """The chart runs it as the same user."""
    chart = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["podSecurityContext"]
    assert value_of("USER") == f"{chart['runAsUser']}:{chart['runAsGroup']}" == "10001:10001"


def test_only_tmp_is_written_to() -> None:
    """The root may be read-only: home, temporary files and working directory are /tmp, a volume."""
    env = dict(pair.split("=", 1) for pair in value_of("ENV").split())
    assert (env["TMPDIR"], env["HOME"], value_of("WORKDIR"), value_of("VOLUME")) == ("/tmp", "/tmp", "/tmp", '["/tmp"]')
    assert env["PYTHONDONTWRITEBYTECODE"] == "1"


def test_entrypoint_is_the_pipeline() -> None:
    """It is on the PATH of the copied environment, behind an init that forwards signals."""
    env = dict(pair.split("=", 1) for pair in value_of("ENV").split())
    assert env["PATH"].startswith("/opt/pipeline/bin:")
    assert json.loads(value_of("ENTRYPOINT")) == ["tini", "--", "pipeline"]


def test_labels_have_version_and_licence() -> None:
    """Both equal those of the package."""
    labels = dict(re.findall(r'([a-z.]+)="([^"]*)"', value_of("LABEL")))
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert f"extraction-pipeline:{__version__}" in TEXT


def test_build_context_has_only_copied_files() -> None:
    """The ignore file admits each copied file, but no secrets or outputs."""
    lines = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    copied = [word for name, rest in instructions() if name == "COPY" and "--from" not in rest for word in rest.split()]
    sources = [word for word in copied if not word.startswith("./")]
    assert lines[0] == "*"
    assert sorted(sources) == sorted(line[1:] for line in lines if line.startswith("!"))
    assert all((PROJECT / source).exists() for source in sources)
    assert not any(fnmatch.fnmatch(".env", line[1:]) for line in lines if line.startswith("!"))


def test_copied_files_suffice_for_the_wheel() -> None:
    """All files that setup.cfg refers to are among them."""
    setup = (PROJECT / "setup.cfg").read_text(encoding="utf-8")
    referred = re.findall(r"^(?:long_description = file: |license_files = )(\S+)", setup, re.MULTILINE)
    assert referred
    copied = " ".join(rest for name, rest in instructions() if name == "COPY").split()
    assert set(referred) <= set(copied)

"""The installed command beside other modules of its name, and install hints that fit the installer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PACKAGE_PARENT

from pipeline.config.installing import install_command

START = f"import sys; sys.path.append({str(PACKAGE_PARENT)!r}); from pipeline_command import main; sys.exit(main())"
EDITABLE_START = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("pipeline_command", {str(PACKAGE_PARENT / "pipeline_command.py")!r})
command = importlib.util.module_from_spec(spec)
spec.loader.exec_module(command)
sys.exit(command.main())
"""
"""Like the finder of an editable installation, whose folder is not on the search path."""


@pytest.mark.parametrize("start", [START, EDITABLE_START], ids=["installed", "editable"])
@pytest.mark.parametrize("other", ["pipeline.py", "pipeline/__init__.py"])
def test_foreign_module_named_pipeline_does_not_break_the_command(tmp_path: Path, other: str, start: str) -> None:
    """It may be on PYTHONPATH or in the current directory; one line names it."""
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_text("raise SystemExit('the other one was imported')", encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for folder in (tmp_path, tmp_path.parent):  # with -c, the current directory is searched first
        ran = subprocess.run(
            [sys.executable, "-c", start, "--version"], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stdout.split()[0]) == (0, "pipeline"), ran.stderr
        assert "has the name of this program's package and is not used" in ran.stderr.splitlines()[0]


@pytest.mark.parametrize("start", [START, EDITABLE_START], ids=["installed", "editable"])
def test_folder_named_pipeline_does_not_break_the_command(tmp_path: Path, start: str) -> None:
    """A folder of documents on PYTHONPATH is not reported: it is not a module."""
    (tmp_path / "pipeline").mkdir()
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", start, "--version"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout.split()[0], ran.stderr) == (0, "pipeline", "")


def test_no_warning_without_a_foreign_module(tmp_path: Path) -> None:
    """There is none in a clone of the repository either."""
    for folder in (tmp_path, PACKAGE_PARENT):
        ran = subprocess.run(
            [sys.executable, "-c", START, "--version"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("mark", "command"),
    [
        ("pipx_metadata.json", "pipx install --force 'extraction-pipeline[pdf]'"),
        ("uv-receipt.toml", "uv tool install --force 'extraction-pipeline[pdf]'"),
        ("pyvenv.cfg", "pip install 'extraction-pipeline[pdf]'"),
    ],
)
def test_install_hint_matches_the_installer(tmp_path: Path, mark: str, command: str) -> None:
    """The installers are recognised by the marks of pipx 1.7, uv 0.9 and venv."""
    (tmp_path / mark).touch()
    assert install_command("pdf", environment=tmp_path) == command


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ('{"url": "file:///srv/clone", "dir_info": {}}', "extraction-pipeline[pdf] @ file:///srv/clone"),
        ('{"url": "https://example.org/a.whl"}', "extraction-pipeline[pdf]"),
        ("{", "extraction-pipeline[pdf]"),
    ],
)
def test_install_hint_names_the_source_folder(tmp_path: Path, origin: str, command: str) -> None:
    """Otherwise pipx and uv would search an index that does not have the package."""
    record = tmp_path / "lib" / "python3.11" / "site-packages" / "extraction_pipeline-0.2.0.dist-info"
    record.mkdir(parents=True)
    (record / "direct_url.json").write_text(origin)
    (tmp_path / "uv-receipt.toml").touch()
    assert install_command("pdf", environment=tmp_path) == f"uv tool install --force '{command}'"

"""Writing gold: no acknowledged judgement is lost, however the writer ends, and no line is broken."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from review_place import gold_lines

from pipeline.errors import OutputError
from pipeline.truth.gold_file import append_lines, remove_documents

WRITER = """
import sys
from pathlib import Path
from pipeline.truth.gold_file import append_lines
for number in range(100000):
    append_lines(Path(sys.argv[1]), [{"id": f"{sys.argv[2]}-{number}", "note": "x" * 20000}])
    print(number, flush=True)
"""


def start(path: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stdout=subprocess.PIPE, text=True)


def test_kill_9_loses_no_acknowledged_judgement(tmp_path: Path) -> None:
    """Two writers are killed at random instants five times, and every line stays whole."""
    path = tmp_path / "gold.jsonl"
    for round in range(5):
        writers = {f"{round}-{side}": start(path, f"{round}-{side}") for side in "ab"}
        answered: dict[str, int] = {}
        for writer in writers.values():
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(0.05 + round * 0.013)
        for writer in writers.values():
            writer.send_signal(signal.SIGKILL)
        for name, writer in writers.items():
            assert writer.stdout is not None
            answered[name] = len(writer.stdout.read().split("\n")) - 1
            writer.wait()
        append_lines(path, [{"id": f"after-{round}"}])  # this repairs the line that a killed writer had begun
        result = {line["id"] for line in gold_lines(path)}
        for name, count in answered.items():
            assert {f"{name}-{number}" for number in range(count)} <= result


@pytest.mark.parametrize(
    ("tail", "torn"), [(b'{"id":"b","go', b'{"id":"b","go\n'), (b'{"id":"b"}', None), (b"  ", None)]
)
def test_incomplete_last_gold_line_is_saved_aside(tmp_path: Path, tail: bytes, torn: bytes | None) -> None:
    """It goes to GOLD.torn; a whole line without LF stays."""
    path = tmp_path / "gold.jsonl"
    path.write_bytes(b'{"id":"a"}\n' + tail)
    append_lines(path, [{"id": "c"}])
    remaining = b"" if torn else tail + b"\n"
    assert path.read_bytes() == b'{"id":"a"}\n' + remaining + b'{"id":"c"}\n'
    beside = path.with_name("gold.jsonl.torn")
    assert (beside.read_bytes() if beside.exists() else None) == torn


def test_failed_write_leaves_the_gold_file_unchanged(tmp_path: Path) -> None:
    """A file size limit simulates a full disk."""
    path = tmp_path / "gold.jsonl"
    append_lines(path, [{"id": "a"}])
    before = path.read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from pipeline.truth.gold_file import append_lines\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "append_lines(Path(sys.argv[1]), [{'id': 'b', 'note': 'x' * 5000}])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "OutputError" in ran.stderr
    assert path.read_bytes() == before


def test_unwritable_gold_file_is_an_output_error(tmp_path: Path) -> None:
    """A folder in its place is named in the error."""
    with pytest.raises(OutputError, match="cannot be written"):
        append_lines(tmp_path, [{"id": "a"}])


def test_purge_during_a_review_loses_no_judgement(tmp_path: Path) -> None:
    """Both hold the lock, so a judgement appended while the file is replaced is kept."""
    path = tmp_path / "gold.jsonl"
    append_lines(path, [{"id": "gone", "at": ""}])
    path.with_name("gold.jsonl.torn").write_text('{"id":"gone","go')
    writer = start(path, "kept")
    assert writer.stdout is not None
    writer.stdout.readline()
    for _ in range(20):
        append_lines(path, [{"id": "gone", "at": ""}])
        remove_documents(path, lambda id, _: id == "gone")
    writer.kill()
    count = len(writer.stdout.read().split("\n")) - 1
    writer.wait()
    append_lines(path, [{"id": "last"}])
    ids = [line["id"] for line in gold_lines(path)]
    assert "gone" not in ids
    assert not path.with_name("gold.jsonl.torn").exists()
    assert {f"kept-{number}" for number in range(count)} <= set(ids)
    assert json.loads(path.read_bytes().splitlines()[-1])["id"] == "last"
    assert path.stat().st_mode & 0o777 == 0o640

"""A start from a checkpoint equals a start from all lines, and a checkpoint of another file is ignored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_output import failure, opened, result

from pipeline.config import OutputConfig
from pipeline.output import Output, scan
from pipeline.output.checkpoint import WORTH_BYTES
from pipeline.output.compaction import purge
from pipeline.shards import WHOLE, Shard

LARGE = "x" * (WORTH_BYTES // 4)


def fill(folder: Path, shard: Shard = WHOLE) -> None:
    """Write two runs in which `a` is done twice and `e` fails, large enough for a checkpoint."""
    with opened(folder, shard=shard) as output:
        for id in ("d", "c", "b", "a", 'ü"\\'):
            output.write(result(id, output=LARGE))
        output.write(failure("e"))
    with opened(folder, shard=shard) as output:
        output.write(replace(result("a"), sha256="new", variant="terse", fingerprint="g", version=None))
        output.finish()


def index_state(folder: Path, shard: Shard = WHOLE) -> object:
    """Return all values that an index provides."""
    index = scan(OutputConfig(str(folder)), shard=shard)
    latest = [index.latest(id) for id in ("a", "b", "c", "d", "e", "f", 'ü"\\')]
    state = latest, index.counts(), index.highest_run, index.agents, list(index.done())
    index.close()
    return state


def covered(folder: Path) -> int:
    """Return how many bytes of the results the checkpoint covered at the last start."""
    with opened(folder) as output:
        return sum(output.backend._results.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("shard", [WHOLE, Shard(0, 1)])
def test_checkpoint_equals_the_lines(tmp_path: Path, shard: Shard) -> None:
    """It has the last line of every id; lines appended after it are read too."""
    fill(tmp_path, shard)
    (checkpoint,) = (tmp_path / ".manifests").iterdir()
    assert LARGE.encode()[:100] not in checkpoint.read_bytes()
    with opened(tmp_path, shard=shard) as output:
        output.write(result("b", sha256="later"))
        output.write(result("f"))
    by_checkpoint = index_state(tmp_path, shard)
    checkpoint.unlink()
    assert index_state(tmp_path, shard) == by_checkpoint


def test_lines_covered_by_a_checkpoint_are_not_read(tmp_path: Path) -> None:
    """A line changed far from the edges goes unnoticed, which shows that it was not read."""
    fill(tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"id":"c"', b'"id":"z"'))
    index = scan(OutputConfig(str(tmp_path)))
    assert index.latest("c") is not None
    assert index.latest("z") is None
    assert covered(tmp_path) == path.stat().st_size


def lose_a_line(path: Path) -> None:
    """Remove a line from the middle of the file."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))


def lose_the_end(path: Path) -> None:
    """Truncate the file, as a restored backup older than its checkpoint."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))


def damage_checkpoint(path: Path) -> None:
    """Cut the last line of the checkpoint."""
    checkpoint = path.parent / ".manifests" / path.name
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])


def empty_checkpoint(path: Path) -> None:
    """Empty the checkpoint."""
    (path.parent / ".manifests" / path.name).write_bytes(b"")


@pytest.mark.parametrize("change", [lose_a_line, lose_the_end, damage_checkpoint, empty_checkpoint])
def test_checkpoint_of_another_file_is_ignored(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The lines are read instead, with the same outcome as without a checkpoint."""
    fill(tmp_path)
    change(tmp_path / "results.jsonl")
    assert covered(tmp_path) == 0
    by_checkpoint = index_state(tmp_path)
    (tmp_path / ".manifests" / "results.jsonl").unlink()
    assert index_state(tmp_path) == by_checkpoint


def test_broken_lines_after_a_checkpoint_are_removed(tmp_path: Path) -> None:
    """The file is cut at the right position."""
    fill(tmp_path)
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b"junk\n" + b'{"v":1,')
    with opened(tmp_path) as output:
        assert output.index.counts()["done"] == 5
    assert path.read_bytes() == whole


def test_unwritable_checkpoint_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The next start reads all lines instead."""
    (tmp_path / ".manifests").write_text("")
    fill(tmp_path)
    assert "the next start reads all records" in caplog.text
    assert covered(tmp_path) == 0
    index = scan(OutputConfig(str(tmp_path)))
    assert index.counts()["done"] == 5
    index.close()


def test_small_output_has_no_checkpoint(tmp_path: Path) -> None:
    """Reading its lines takes no longer."""
    with opened(tmp_path) as output:
        output.write(result("a"))
        output.finish()
    assert not (tmp_path / ".manifests").exists()


def test_checkpoint_is_not_written_beside_files_of_other_shards(tmp_path: Path) -> None:
    """The index then has entries that are not in the run's own file."""
    fill(tmp_path, Shard(0, 1))
    with opened(tmp_path) as output:
        output.write(result("g", output=LARGE * 5))
        output.finish()
    assert [path.name for path in (tmp_path / ".manifests").iterdir()] == ["results-00000-of-00001.jsonl"]


def test_purge_removes_the_checkpoint(tmp_path: Path) -> None:
    """The old checkpoint is deleted before the results are rewritten."""
    fill(tmp_path)
    with opened(tmp_path) as output:
        purge_one(output, "b")
    assert list((tmp_path / ".manifests").iterdir()) == []
    assert scan(OutputConfig(str(tmp_path))).latest("b") is None


def purge_one(output: Output, document_id: str) -> None:
    """Purge one document."""
    purge(output.backend, output.index, is_removed=lambda id, _: id == document_id)

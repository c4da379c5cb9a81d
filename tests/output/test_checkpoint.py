"""A start by a checkpoint knows what a start by the lines knows, and a checkpoint of another file is not believed."""

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
    """Two runs, in which `a` is done twice and `e` fails; more than what a checkpoint is worth."""
    with opened(folder, shard=shard) as output:
        for id in ("d", "c", "b", "a", 'ü"\\'):
            output.write(result(id, output=LARGE))
        output.write(failure("e"))
    with opened(folder, shard=shard) as output:
        output.write(replace(result("a"), sha256="new", variant="terse", fingerprint="g", version=None))
        output.finish()


def known(folder: Path, shard: Shard = WHOLE) -> object:
    """All that an index says."""
    index = scan(OutputConfig(str(folder)), shard=shard)
    each = [index.known(id) for id in ("a", "b", "c", "d", "e", "f", 'ü"\\')]
    said = each, index.counts(), index.highest_run, index.agents, list(index.done())
    index.close()
    return said


def covered(folder: Path) -> int:
    """How many bytes of the results the checkpoint stood for at the last reading."""
    with opened(folder) as output:
        return sum(output.backend._results.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("shard", [WHOLE, Shard(0, 1)])
def test_a_checkpoint_says_what_the_lines_say(tmp_path: Path, shard: Shard) -> None:
    """Of every id, its last line; and of lines that came after it, too."""
    fill(tmp_path, shard)
    (checkpoint,) = (tmp_path / ".manifests").iterdir()
    assert LARGE.encode()[:100] not in checkpoint.read_bytes()
    with opened(tmp_path, shard=shard) as output:
        output.write(result("b", sha256="later"))
        output.write(result("f"))
    by_checkpoint = known(tmp_path, shard)
    checkpoint.unlink()
    assert known(tmp_path, shard) == by_checkpoint


def test_what_a_checkpoint_stands_for_is_not_read(tmp_path: Path) -> None:
    """A line changed far from the edges stays unseen: that it was not read shows in this alone."""
    fill(tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"id":"c"', b'"id":"z"'))
    index = scan(OutputConfig(str(tmp_path)))
    assert index.known("c") is not None
    assert index.known("z") is None
    assert covered(tmp_path) == path.stat().st_size


def lose_a_line(path: Path) -> None:
    """Somebody takes a line out of the middle."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))


def lose_the_end(path: Path) -> None:
    """The file is older than its checkpoint: a backup."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))


def damage_checkpoint(path: Path) -> None:
    """Its last line is cut."""
    checkpoint = path.parent / ".manifests" / path.name
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])


def empty_checkpoint(path: Path) -> None:
    """It holds nothing."""
    (path.parent / ".manifests" / path.name).write_bytes(b"")


@pytest.mark.parametrize("change", [lose_a_line, lose_the_end, damage_checkpoint, empty_checkpoint])
def test_a_checkpoint_of_another_file_is_not_believed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The lines are read instead, and say what they say."""
    fill(tmp_path)
    change(tmp_path / "results.jsonl")
    assert covered(tmp_path) == 0
    by_checkpoint = known(tmp_path)
    (tmp_path / ".manifests" / "results.jsonl").unlink()
    assert known(tmp_path) == by_checkpoint


def test_torn_lines_after_a_checkpoint_are_mended(tmp_path: Path) -> None:
    """At their true place in the file."""
    fill(tmp_path)
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b"junk\n" + b'{"v":1,')
    with opened(tmp_path) as output:
        assert output.index.counts()["done"] == 5
    assert path.read_bytes() == whole


def test_a_run_ends_well_without_its_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It only saves time: what cannot be written is a warning, and the next start reads the lines."""
    (tmp_path / ".manifests").write_text("")
    fill(tmp_path)
    assert "the next start reads all records" in caplog.text
    assert covered(tmp_path) == 0
    index = scan(OutputConfig(str(tmp_path)))
    assert index.counts()["done"] == 5
    index.close()


def test_a_small_output_has_none(tmp_path: Path) -> None:
    """Its lines are read as fast."""
    with opened(tmp_path) as output:
        output.write(result("a"))
        output.finish()
    assert not (tmp_path / ".manifests").exists()


def test_files_of_other_shards_leave_it_unwritten(tmp_path: Path) -> None:
    """The index then knows more than one file says."""
    fill(tmp_path, Shard(0, 1))
    with opened(tmp_path) as output:
        output.write(result("g", output=LARGE * 5))
        output.finish()
    assert [path.name for path in (tmp_path / ".manifests").iterdir()] == ["results-00000-of-00001.jsonl"]


def test_what_is_purged_is_in_no_checkpoint(tmp_path: Path) -> None:
    """The old one goes before the results do."""
    fill(tmp_path)
    with opened(tmp_path) as output:
        purge_one(output, "b")
    assert list((tmp_path / ".manifests").iterdir()) == []
    assert scan(OutputConfig(str(tmp_path))).known("b") is None


def purge_one(output: Output, document_id: str) -> None:
    """Takes one document out."""
    purge(output.backend, output.index, gone=lambda id, _: id == document_id)

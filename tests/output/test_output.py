"""Records are written whole or not at all, survive any kill, and are repaired at the next start."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import OutputConfig
from pipeline.errors import ConfigError, InternalError, OutputError
from pipeline.output import Output, backend_of, folder_of, scan
from pipeline.output.line_file import LineFile
from pipeline.output.lines import RECENT_BYTES, last_object, mend
from pipeline.output.record_files import records_by_run
from pipeline.output.record_keys import _key_at_a_glance, key_of_outcome
from pipeline.record_lines import to_line
from pipeline.records import Failure, ModelMetadata, Result, Stamp, Usage
from pipeline.shards import Shard

HERE = Path(__file__).resolve().parents[1]
CHILD_ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE.parent, HERE, HERE / "output", HERE / "run")))}
LINES = [b'{"a":1}\n', b'{"b":"\xc3\xa9"}\n', b'{"c":[1,2]}\n']


def result(id: str, *, sha256: str = "s", agent: str = "extractor", output: object = None) -> Result:
    """Return a small result."""
    return Result(
        id, f"in/{id}", sha256, agent, "default", "f", output, ModelMetadata("vllm", "m"), 1, 0, False, (),
        Usage(1, 2), None, 10, {}, 0.5, "2024-01-01T00:00:00.000Z", "7-8",
    )  # fmt: skip


def failure(id: str, *, sha256: str | None = "s", reason: str = "timeout", runs: int = 1) -> Failure:
    """Return a small failure."""
    return Failure(
        id, f"in/{id}", sha256, "extractor", "default", "f", "call", reason, reason, "", 1, (), None,
        Usage(), (), runs, "2024-01-01T00:00:00.000Z", "7-8",
    )  # fmt: skip


def opened(folder: Path, *, agent: str = "extractor", shard: Shard | None = None, run_id: str = "r") -> Output:
    """Open the output without waiting for its lock."""
    config = OutputConfig(str(folder))
    return Output.open(config, agent=agent, shard=shard, lock_wait_s=0, run_id=run_id, wait=lambda _: False)


def ids(path: Path) -> list[str]:
    """Return the ids in a file of records, in order."""
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def run_child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the code in a child process with these arguments in sys.argv."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=CHILD_ENV, capture_output=True, text=True, timeout=60, check=False)


def test_truncated_file_keeps_exactly_its_whole_lines(tmp_path: Path) -> None:
    """A file cut at any byte keeps the lines before the cut, and a line that only lacks its LF."""
    whole = b"".join(LINES)
    ends = [len(b"".join(LINES[:count])) for count in range(4)]
    for cut in range(len(whole) + 1):
        path = tmp_path / "torn.jsonl"
        path.write_bytes(whole[:cut])
        removed = mend(path)
        whole_lines = max(count for count in range(4) if ends[count] <= cut or ends[count] - 1 == cut > 0)
        assert path.read_bytes() == whole[: ends[whole_lines]], cut
        assert removed == (cut > ends[whole_lines]), cut


@pytest.mark.parametrize(
    "junk", [b"\0" * 5000 + b"\n", b'{"a":\n', b"\xff\xfe\n", b"[1]\n", b"\n", b"[" * 99_999 + b"\n"]
)
def test_broken_lines_anywhere_are_removed_and_counted(tmp_path: Path, junk: bytes) -> None:
    """NULs, cut lines, invalid UTF-8 and non-objects are removed; good lines do not change."""
    path = tmp_path / "broken.jsonl"
    path.write_bytes(junk + LINES[0] + junk + junk + LINES[1] + LINES[2].rstrip())
    assert mend(path) == 3
    assert path.read_bytes() == b"".join(LINES)
    assert [p.name for p in tmp_path.iterdir()] == ["broken.jsonl"]


@pytest.mark.parametrize("begins_as_record", [True, False])
def test_a_line_of_300_mb_does_not_fill_the_memory(tmp_path: Path, begins_as_record: bool) -> None:
    """A line that may be a record is refused and kept; garbage is removed like any broken line."""
    path = tmp_path / "results.jsonl"
    with path.open("wb") as file:
        file.write(LINES[0] + (b'{"b":"' if begins_as_record else b"\0"))
        for _ in range(300):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + LINES[2])
    size = path.stat().st_size
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from pipeline import errors; from pipeline.output.lines import mend\n"
        "path = Path(sys.argv[1])\n"
        "try:\n print(mend(path))\n"
        "except errors.ConfigError as error:\n print(error)\n"
        # not ru_maxrss: a child inherits that of the process that started it
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    child = [sys.executable, "-c", code, str(path)]
    output, peak_kb = subprocess.run(
        child, capture_output=True, text=True, env=CHILD_ENV, check=True
    ).stdout.splitlines()
    assert int(peak_kb) < 300_000
    if begins_as_record:
        assert "the line at byte 8 has more than 64 MiB" in output
        assert path.stat().st_size == size
    else:
        assert output == "1"
        assert path.read_bytes() == LINES[0] + LINES[2]


def test_search_for_the_last_record_is_bounded(tmp_path: Path) -> None:
    """The end of a file is read in windows, up to the longest possible record."""
    path = tmp_path / "results.jsonl"
    with path.open("wb") as file:
        file.write(LINES[0] + b'{"b":"')
        file.truncate(200 << 20)
    with pytest.raises(ConfigError, match="more than 64 MiB"):
        last_object(path)


def test_oversized_record_is_not_written(tmp_path: Path) -> None:
    """A line over the limit is an output error, and the file does not change."""
    lines = LineFile(tmp_path / "results.jsonl")
    with pytest.raises(OutputError, match="need at most 67108864"):
        lines.append(b"x" * ((64 << 20) + 1))
    lines.append(LINES[0])
    lines.close()
    assert lines.path.read_bytes() == LINES[0]


@pytest.mark.parametrize("uri", ["out", "s3://bucket/out"])
def test_append_before_start_is_an_internal_error(tmp_path: Path, uri: str) -> None:
    """The error names the missing call, and no request is sent."""
    config = OutputConfig(uri=str(tmp_path / uri) if "://" not in uri else uri)
    stamp = Stamp(1, "run")
    with pytest.raises(InternalError, match="`start` comes before"):
        backend_of(config).append(b"{}\n", key_of_outcome(result("a"), stamp))


def test_repair_logs_the_file_and_the_number_of_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There is one warning per file."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(LINES[0] + b"junk\nju")
    mend(path)
    (record,) = caplog.records
    assert "results.jsonl" in record.getMessage()
    assert record.__dict__["lines"] == 2


WRITE_UNTIL_FULL = """
import resource, sys
from pathlib import Path
from pipeline.errors import OutputError
from pipeline.output.line_file import LineFile
path = Path(sys.argv[1])
file = LineFile(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    while True:
        file.append(b'{"x":"' + b"y" * 80 + b'"}' + b"\\n")
        print("acknowledged", flush=True)
except OutputError as error:
    print(error)
"""


def test_partially_written_line_is_removed(tmp_path: Path) -> None:
    """At a file size limit the partial line is undone, and the error names file and cause."""
    path = tmp_path / "results.jsonl"
    *acknowledged, error = run_child(WRITE_UNTIL_FULL, path).stdout.splitlines()
    assert len(acknowledged) == 1000 // 89
    assert path.stat().st_size == len(acknowledged) * 89
    assert str(path) in error
    assert "File too large" in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_device_is_an_output_error() -> None:
    """The error contains the path and the cause; after a partial line that cannot be undone no line is written."""
    file = LineFile(Path("/dev/full"))
    with pytest.raises(OutputError, match=r"/dev/full.*No space left"):
        file.append(b"{}\n")
    with pytest.raises(OutputError, match="ends in a partial line"):
        file.append(b"{}\n")


def test_appended_line_is_visible_to_other_readers_at_once(tmp_path: Path) -> None:
    """No flush is needed."""
    file = LineFile(tmp_path / "a.jsonl")
    file.append(LINES[0])
    assert (tmp_path / "a.jsonl").read_bytes() == LINES[0]


def test_records_are_synced_when_the_oldest_is_due(tmp_path: Path) -> None:
    """The first unsynced line starts the timer; until then no sync happens, then all lines are synced."""
    now = [100.0]
    with Output.open(
        OutputConfig(str(tmp_path)),
        agent="extractor",
        shard=None,
        lock_wait_s=0,
        run_id="r",
        wait=lambda _: True,
        clock=lambda: now[0],
    ) as output:
        output.write(result("a"))
        now[0] = 100.3
        output.write(result("b"))
        results = output.backend._files["results"]
        output.sync_due(100.39)
        assert results.unsynced_since == 100.0
        output.sync_due(100.41)
        assert results.unsynced_since is None


KEEP_WRITING = """
import sys
from test_output import failure, opened, result
from pathlib import Path
output = opened(Path(sys.argv[1]), run_id=sys.argv[2])
for number in range(int(sys.argv[3]), 10**9):
    id = f"doc-{number}"
    output.write(failure(id) if number % 5 == 0 else result(id, output="x" * (number * 37 % 9000)))
    print(id, flush=True)
"""


def test_kill_at_random_instants_loses_no_acknowledged_record(tmp_path: Path) -> None:
    """After each kill -9 every line is whole, and the index has at most one record more."""
    chance, acknowledged = random.Random(4), []
    for round_number in range(6):
        command = [sys.executable, "-c", KEEP_WRITING, tmp_path, f"run-{round_number}", str(len(acknowledged))]
        with subprocess.Popen(command, env=CHILD_ENV, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chance.randint(1, 200)):
                acknowledged.append(child.stdout.readline().strip())
            child.send_signal(signal.SIGKILL)
            acknowledged += child.stdout.read().split()
        with opened(tmp_path) as output:
            counts = output.index.counts()
            assert all(output.index.latest(id) for id in acknowledged)
            assert 0 <= counts["done"] + counts["failed"] - len(acknowledged) <= 1
        for name in ("results.jsonl", "errors.jsonl"):
            assert all(json.loads(line) for line in (tmp_path / name).read_bytes().splitlines())
        if counts["done"] + counts["failed"] > len(acknowledged):
            acknowledged.append(f"doc-{len(acknowledged)}")


def test_broken_last_line_is_removed_at_the_next_start(tmp_path: Path) -> None:
    """The whole lines stay, and new lines begin at the start of a line."""
    with opened(tmp_path) as output:
        output.write(result("a"))
    with (tmp_path / "results.jsonl").open("ab") as stream:
        stream.write(b'{"v":1,"id":"torn')
    with opened(tmp_path) as output:
        output.write(result("b"))
    assert ids(tmp_path / "results.jsonl") == ["a", "b"]


def test_merged_line_or_nuls_far_from_the_end_are_detected(tmp_path: Path) -> None:
    """Far from the end lines are only scanned quickly, which still detects both."""
    path = tmp_path / "results.jsonl"
    with opened(tmp_path) as output:
        output.write(result("a"))
        output.write(result('quo"ted'))
        output.write(result("back\\slash"))
    good = path.read_bytes()
    first = good.splitlines(keepends=True)[0]
    hole = first.replace(b'"output":null', b'"output":"' + b"\0" * 9 + b'"').replace(b'"id":"a"', b'"id":"hole"')
    merged = first[:-60] + first.replace(b'"id":"a"', b'"id":"merged"')
    tail = first.replace(b'"id":"a"', b'"id":"tail"').replace(
        b'"output":null', b'"output":"' + b"x" * RECENT_BYTES + b'"'
    )
    path.write_bytes(good + hole + merged + tail)
    with opened(tmp_path) as output:
        assert output.backend.damage[path].lines == 2
        ids_of_all = ("a", 'quo"ted', "back\\slash", "hole", "merged", "tail")
        assert [id for id in ids_of_all if output.index.latest(id)] == ["a", 'quo"ted', "back\\slash", "tail"]
    assert path.read_bytes() == good + tail


@pytest.mark.parametrize("question", [None, "0123456789abcdef" * 4])
def test_quick_scan_accepts_every_written_line(question: str | None) -> None:
    """The full parser takes three times as long, so writer and scanner must agree on the layout."""
    written = replace(result("a"), question_sha256=question)
    stamp = Stamp(3, "r", "0/2")
    assert _key_at_a_glance(to_line(written, stamp)) == key_of_outcome(written, stamp)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 300)), max_size=30), st.integers(0, 10), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_since_a_run_come_first_and_are_complete(
    tmp_path: Path, written: list[tuple[int, int]], since: int, is_compacted: bool
) -> None:
    """A file of one writer is ordered by run; a compacted one may have any order."""
    path = tmp_path / "results.jsonl"
    records = written if is_compacted else sorted(written)
    lines = [
        to_line(result(str(number), output="x" * size), Stamp(run, "r")) for number, (run, size) in enumerate(records)
    ]
    path.write_bytes(b"".join(lines))
    outcome = [(int(key.id), key.run) for _, key in records_by_run(path, "results", since=since, near_bytes=500)]
    assert sorted(outcome) == [(number, run) for number, (run, _) in enumerate(records)]
    if not is_compacted and since:
        expected = [number for number, (run, _) in enumerate(records) if run >= since]
        place = [number for number, _ in outcome]
        assert not expected or place.index(expected[-1]) <= len(expected) + 2


def test_run_numbers_never_decrease(tmp_path: Path) -> None:
    """They come from records and run files, whichever of them the last run left."""
    with opened(tmp_path, run_id="one") as output:
        assert output.stamp.run == 1
        output.write(failure("a"))
    with opened(tmp_path, run_id="two") as output:
        assert output.stamp.run == 2
        output.finish()
        output.write_run({"counts": {}})
    with opened(tmp_path, run_id="three") as output:
        assert output.stamp.run == 3
        assert [run["run_id"] for run in output.runs()] == ["two"]


def test_outdated_errors_are_removed_at_the_end(tmp_path: Path) -> None:
    """A later result removes an error, a later error replaces it; each failed id has one line."""
    with opened(tmp_path) as output:
        for id in "abc":
            output.write(failure(id))
    with opened(tmp_path) as output:
        output.write(result("a"))
        output.write(failure("b", reason="overloaded", runs=1))
        output.finish()
    errors = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_bytes().splitlines()]
    assert [(line["id"], line["reason"]) for line in errors] == [("c", "timeout"), ("b", "overloaded")]


def test_outdated_errors_of_a_killed_run_are_removed_at_the_next_start(tmp_path: Path) -> None:
    """The killed run could not remove them itself."""
    with opened(tmp_path) as output:
        output.write(failure("a"))
    with opened(tmp_path) as output:
        output.write(result("a"))
    assert ids(tmp_path / "errors.jsonl") == ["a"]
    with opened(tmp_path):
        assert ids(tmp_path / "errors.jsonl") == []


def test_failure_of_a_changed_document_keeps_its_old_result(tmp_path: Path) -> None:
    """Both lines remain; the document counts as failed, and its result as stale."""
    with opened(tmp_path) as output:
        output.write(result("a", sha256="old"))
    with opened(tmp_path) as output:
        output.write(failure("a", sha256="new"))
        output.finish()
        assert output.index.counts()["stale"] == 1
    assert ids(tmp_path / "results.jsonl") == ids(tmp_path / "errors.jsonl") == ["a"]
    assert scan(OutputConfig(str(tmp_path))).has_stale_result("a")


def test_output_of_another_agent_is_refused_unchanged(tmp_path: Path) -> None:
    """The error names both agents, and even a broken line is not repaired."""
    with opened(tmp_path, agent="extractor") as output:
        output.write(result("a"))
    before = (tmp_path / "results.jsonl").read_bytes() + b'{"v":1'
    (tmp_path / "results.jsonl").write_bytes(before)
    with pytest.raises(ConfigError, match=r"'event_classifier'.*'extractor'"):
        opened(tmp_path, agent="event_classifier")
    assert (tmp_path / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", [b'{"id":"mine"}\n', b'{"v":2,"id":"x"}\n', b'{"v":1,"id":3,"run":1}\n'])
def test_foreign_file_is_refused_unchanged(tmp_path: Path, line: bytes) -> None:
    """JSON that is not one of our records is never removed as broken."""
    (tmp_path / "results.jsonl").write_bytes(line)
    with pytest.raises(ConfigError, match=r"results\.jsonl"):
        opened(tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == line


def test_run_file_is_never_changed(tmp_path: Path) -> None:
    """A repeated run id gets another file; a run that writes its file twice is an error."""
    with opened(tmp_path, run_id="job") as output:
        first = output.write_run({"exit_code": 3})
    with opened(tmp_path, run_id="job") as output:
        second = output.write_run({"exit_code": 0})
        with pytest.raises(OutputError, match="never changed"):
            output.write_run({"exit_code": 1})
        assert [run["exit_code"] for run in output.runs()] == [3, 0]
    assert (first, second) == ("runs/job.json", "runs/job.run2.json")


@pytest.mark.parametrize("run_id", ["", "a/b", "..\n", "x" * 129, "é"])
def test_run_id_that_is_no_file_name_is_refused(tmp_path: Path, run_id: str) -> None:
    """A run id cannot make the program write outside the output."""
    with pytest.raises(ConfigError, match="run id"):
        opened(tmp_path, run_id=run_id)


@pytest.mark.parametrize("uri", ["http://host/out", "ftp://b", "file://host/out", "", "s3:b/out", "S3:/b", "file:out"])
def test_invalid_output_uri_is_refused(uri: str) -> None:
    """It is a configuration error before any file is created."""
    with pytest.raises(ConfigError, match=r"output\.uri"):
        folder_of(uri)


def test_file_uri_is_a_folder() -> None:
    """Percent escapes in a file:// URI are decoded."""
    assert folder_of("file:///a%20b/c") == Path("/a b/c")


def test_output_path_that_is_a_file_is_a_configuration_error(tmp_path: Path) -> None:
    """The same applies if one of its parents is a file."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(ConfigError, match="is a file"):
            opened(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_is_an_output_error(tmp_path: Path) -> None:
    """The error names the path."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match=tmp_path.name):
            opened(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_record_that_is_not_json_is_not_written(tmp_path: Path) -> None:
    """NaN is an internal error; neither the file nor the index gets the record."""
    with opened(tmp_path) as output:
        with pytest.raises(InternalError, match="'a'"):
            output.write(result("a", output=float("nan")))
        assert output.index.latest("a") is None
    assert (tmp_path / "results.jsonl").read_bytes() == b""


def test_shards_change_only_their_own_files(tmp_path: Path) -> None:
    """While two shards are open, the start of one does not repair the file of the other."""
    torn = tmp_path / "results-00001-of-00002.jsonl"
    with opened(tmp_path, shard=Shard(1, 2)) as other, opened(tmp_path, shard=Shard(0, 2)) as output:
        other.write(result("b"))
        output.write(result("a"))
    torn.write_bytes(torn.read_bytes() + b'{"v":1,')
    before = torn.read_bytes()
    with opened(tmp_path, shard=Shard(0, 2)) as output:
        assert output.stamp.run == 2
        assert output.stamp.shard == "0/2"
        assert output.write_run({}) == "runs/r-00000-of-00002.json"
    assert torn.read_bytes() == before
    with opened(tmp_path) as output:
        assert output.index.counts()["done"] == 2
    assert ids(torn) == ["b"]


def test_removing_outdated_errors_spares_the_files_of_siblings(tmp_path: Path) -> None:
    """Replacing a sibling's errors file would make it write to a deleted file."""
    with opened(tmp_path, shard=Shard(1, 2)) as sister:
        mine = next(name for name in map(str, range(99)) if Shard(0, 2).owns(name))
        sister.write(failure("1"))
        for outcome in (failure(mine), result(mine)):
            with opened(tmp_path, shard=Shard(0, 2)) as output:
                output.write(outcome)
                output.finish()
        sister.write(failure("3"))
    assert ids(tmp_path / "errors-00001-of-00002.jsonl") == ["1", "3"]
    assert ids(tmp_path / "errors-00000-of-00002.jsonl") == []


def test_shard_removes_its_outdated_errors_from_an_unsharded_file(tmp_path: Path) -> None:
    """Errors of other shards stay, and broken lines are removed."""
    shard = Shard(0, 2)
    mine = next(name for name in map(str, range(99)) if shard.owns(name))
    foreign_id = next(name for name in map(str, range(99)) if not shard.owns(name))
    with opened(tmp_path) as output:
        output.write(failure(mine))
        output.write(failure(foreign_id))
    with (tmp_path / "errors.jsonl").open("ab") as stream:
        stream.write(b"{torn")
    with opened(tmp_path, shard=shard) as output:
        assert ids(tmp_path / "errors.jsonl") == [mine, foreign_id]
        output.write(result(mine))
        output.finish()
    assert ids(tmp_path / "errors.jsonl") == [foreign_id]


def test_temporary_files_of_a_killed_run_are_deleted(tmp_path: Path) -> None:
    """The next start deletes those of atomic writes, and no other files."""
    places = (".errors.jsonl", ".report.json", ".report.html", "runs/.a.json", ".manifests/.results.jsonl")
    leftovers = [tmp_path / f"{place}.0123456789ab.tmp" for place in places]
    others = [tmp_path / ".notes.tmp", tmp_path / "runs" / "mine.0123456789ab.tmp"]
    for path in (*leftovers, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    with opened(tmp_path):
        assert [path.exists() for path in (*leftovers, *others)] == [False] * len(leftovers) + [True] * len(others)


def test_shard_deletes_only_its_own_temporary_files(tmp_path: Path) -> None:
    """A sibling may be writing its own at this moment, and the report belongs to all."""
    own_shard, other_shard = Shard(0, 2), Shard(1, 2)
    names = [f".errors{own_shard.suffix}.jsonl", f".errors{other_shard.suffix}.jsonl", ".report.json"]
    paths = [tmp_path / f"{name}.0123456789ab.tmp" for name in names]
    for path in paths:
        path.write_bytes(b"x")
    with opened(tmp_path, shard=own_shard):
        assert [path.exists() for path in paths] == [False, True, True]


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o640, 0o750), (0o077, 0o600, 0o700)])
def test_only_the_owner_and_the_group_can_read_an_output(
    tmp_path: Path, umask: int, file_mode: int, folder_mode: int
) -> None:
    """Records contain text of documents; a stricter umask applies."""
    before = os.umask(umask)
    try:
        with opened(tmp_path / "out") as output:
            output.write(result("a"))
            output.write(failure("b"))
            output.write_run({})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*")}
    files = {name: mode for name, mode in modes.items() if name not in ("runs", ".runs")}
    assert len(files) >= 3
    assert set(files.values()) == {file_mode}
    assert {modes["runs"], modes[".runs"], (tmp_path / "out").stat().st_mode & 0o777} == {folder_mode}

"""Compaction and purging: kept records exist at every instant, and purged ones disappear everywhere."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from opened_files import files_opened
from s3_faults import FaultProxy
from s3_server import S3Server
from slow_marks import mostly_slow
from test_output import failure, result
from test_remote_output import WAITS, configured, ids, keys, opened, store_of

from pipeline.config import OutputConfig
from pipeline.output import Index, OutputBackend, backend_of, scan
from pipeline.output.compaction import compact, last_lines, purge
from pipeline.output.local import LocalBackend
from pipeline.output.part_writer import Limits
from pipeline.output.parts import part_of
from pipeline.output.record_keys import Kind, Records
from pipeline.output.remote import RemoteBackend
from pipeline.shards import CHUNKED, WHOLE, Shard, suffix_in
from pipeline.stores import RemoteStore

FIRST = Shard(0, 1)
OLD, NEW = "2024-01-01T00:00:00.000Z", "2024-06-01T00:00:00.000Z"


class DeathError(BaseException):
    """The simulated death of the process, which no code catches."""


class Dying:
    """A real store whose process dies before the n-th change."""

    def __init__(self, store: RemoteStore, lives: int) -> None:
        self._store, self.lives = store, lives

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("create", "put", "replace", "delete"):
            return method

        def counted(*arguments: Any, **named: Any) -> Any:
            if self.lives == 0:
                raise DeathError
            self.lives -= 1
            return method(*arguments, **named)

        return counted


@pytest.fixture(params=["folder", "store"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> OutputConfig:
    """Return a new output in each backend."""
    if request.param == "folder":
        return OutputConfig(str(tmp_path / "out"))
    return configured(request.getfixturevalue("s3"), request.getfixturevalue("bucket"), part_bytes=800)


def fill(config: OutputConfig, shard: Shard = FIRST) -> None:
    """Write three runs: `a` done three times, `b` repaired, `c` done and then failed with other bytes, `d` failed."""
    with opened(config, shard=shard) as output:
        output.write(replace(result("a", output="first" * 99), finished_at=OLD))
        output.write(failure("b"))
        output.write(result("c"))
    with opened(config, shard=shard) as output:
        output.write(replace(result("a", output="second" * 99), finished_at=NEW))
        output.write(result("b"))
    with opened(config) as output:
        output.write(replace(result("a", output="third"), finished_at=NEW))
        output.write(failure("c", sha256="other"))
        output.write(failure("d"))
        output.finish()
        reasons = {"timeout": {"count": 2, "examples": [{"id": "c", "message": ""}, {"id": "d", "message": ""}]}}
        output.write_run({"stats": {"reasons": reasons}, "finished_at": NEW})


def lines(config: OutputConfig, kind: str) -> list[tuple[str, int]]:
    """Return the ids and runs of all records of a kind, sorted."""
    backend = backend_of(config)
    return sorted((head.id, head.run) for _, head in backend.records(kind))  # type: ignore[arg-type]


def test_compaction_keeps_the_last_line_of_each_id(config: OutputConfig) -> None:
    """A stale result stays beside its error, the counts do not change, and run numbers keep growing."""
    fill(config)
    before = scan(config).counts()
    with opened(config) as output:
        compact(output.backend, output.index)
    assert lines(config, "results") == [("a", 3), ("b", 2), ("c", 1)]
    assert lines(config, "errors") == [("c", 3), ("d", 3)]
    assert scan(config).counts() == before
    with opened(config) as output:
        assert output.stamp.run >= 4


def test_compaction_keeps_the_last_two_fingerprints(config: OutputConfig) -> None:
    """`diff --by fingerprint` needs them; with `history=False` only the last line stays."""
    for fingerprint in "1223":
        with opened(config, shard=Shard(0, 1)) as output:
            output.write(replace(result("a"), fingerprint=fingerprint))
            output.write(replace(result("b"), fingerprint="1"))
    with opened(config) as output:
        assert compact(output.backend, output.index) == 1
    assert lines(config, "results") == [("a", 3), ("a", 4), ("b", 4)]
    latest = scan(config).latest("a")
    assert latest is not None and latest.fingerprint == "3"
    with opened(config) as output:
        assert compact(output.backend, output.index, history=False) == 1
    assert lines(config, "results") == [("a", 4), ("b", 4)]


def test_purge_removes_documents_everywhere(config: OutputConfig) -> None:
    """Lines, manifests and the examples in run files are changed; all other records stay."""
    fill(config)
    with opened(config) as output:
        purge(output.backend, output.index, is_removed=lambda id, _: id in ("a", "d"))
    assert lines(config, "results") == [("b", 2), ("c", 1)]
    assert lines(config, "errors") == [("c", 3)]
    (run,) = backend_of(config).files("runs")
    assert json.loads(run[1])["stats"]["reasons"]["timeout"]["examples"] == [{"id": "c", "message": ""}]
    index = scan(config)
    assert [index.latest(id) is None for id in "abcd"] == [True, False, False, True]


def test_purge_removes_ids_from_notes_of_copies(config: OutputConfig) -> None:
    """The copies keep their records and other notes; compaction alone changes no notes."""
    with opened(config) as output:
        for name, notes in {"a": (), "b": ("shared:a", "encoding:cp1252"), "c": ("reused:b",)}.items():
            output.write(replace(result(name), notes=notes))
        compact(output.backend, output.index)
    with opened(config) as output:
        purge(output.backend, output.index, is_removed=lambda id, _: id == "a")
    notes_of = {key.id: json.loads(line)["notes"] for line, key in backend_of(config).records("results")}
    assert notes_of == {"b": ["shared", "encoding:cp1252"], "c": ["reused:b"]}


def test_purge_by_age_uses_the_last_line(config: OutputConfig) -> None:
    """A document that was redone recently stays."""
    fill(config)
    with opened(config) as output:
        purge(output.backend, output.index, is_removed=lambda _, at: at < NEW)
    assert lines(config, "results") == [("a", 3)]


@pytest.mark.parametrize("what", mostly_slow(["purge", "compact", "compact chunks"]))
def test_kill_at_each_step_in_a_store_loses_no_record(s3: S3Server, bucket: str, what: str) -> None:
    """After a death before any change the index has all kept records, and a second attempt finishes."""
    for lives in range(100):
        config = configured(s3, f"{bucket}/{lives}", part_bytes=800)
        fill(config, shard=chunk(0) if "chunks" in what else FIRST)
        store = Dying(store_of(config), lives)
        backend = RemoteBackend(store, Limits(60, 800), shard=WHOLE)  # type: ignore[arg-type]
        survived = change(backend, what)
        index = scan(config)
        assert [index.latest(id) is not None for id in "bc"] == [True, True]
        assert index.latest("c").failed  # type: ignore[union-attr]
        assert index.has_stale_result("c")
        if what != "purge":
            assert index.latest("a").run == 3  # type: ignore[union-attr]
            assert index.counts()["failed"] == 2
        index.close()
        with opened(config, **WAITS) as output:
            change_all(output.backend, output.index, what)
        expected = ["b", "c"] if what == "purge" else ["a", "b", "c"]
        assert sorted(ids(config)) == expected
        assert len(keys(config, "manifests")) == len(keys(config, "results")) + len(keys(config, "errors"))
        if survived:
            assert lives > 5
            return
    raise AssertionError("it never came to its end")


def change_all(backend: OutputBackend, index: Index, step: str) -> None:
    """Purge `a` or compact, depending on `what`."""
    if step == "purge":
        purge(backend, index, is_removed=lambda id, _: id == "a")
    else:
        compact(backend, index)


def change(backend: RemoteBackend, step: str) -> bool:
    """Run the whole change; return whether the backend survived it."""
    try:
        backend.lock("dying", lock_wait_s=0, wait=lambda _: False, clock=lambda: 0.0)
        index = backend.read()
        backend.start(index, clock=lambda: 0.0)
        change_all(backend, index, step)
        index.close()
        backend.close()
    except DeathError:
        return False
    return True


def test_kill_in_a_folder_leaves_the_old_files_or_both(tmp_path: Path) -> None:
    """Before the rename no file has changed; after it the shards' files may still exist."""
    config = OutputConfig(str(tmp_path / "out"))
    fill(config)
    shards = {path: path.read_bytes() for path in (tmp_path / "out").glob("results-*.jsonl")}
    counts = scan(config).counts()
    backend = LocalBackend(tmp_path / "out", shard=WHOLE)
    with pytest.raises(DeathError):
        backend.rewrite("results", dying_lines)
    assert scan(config).counts() == counts
    assert shards == {path: path.read_bytes() for path in shards}
    with opened(config) as output:
        compact(output.backend, output.index)
    assert list((tmp_path / "out").glob("results-*.jsonl")) == []
    for path, data in shards.items():
        path.write_bytes(data)
    assert scan(config).counts() == counts
    with opened(config) as output:
        compact(output.backend, output.index)
    assert lines(config, "results") == [("a", 3), ("b", 2), ("c", 1)]


def dying_lines(lines: Records) -> Records:
    """Yield the first line, then die."""
    yield next(lines)
    raise DeathError


def chunk(index: int) -> Shard:
    """Return chunk `index` of 9, which holds the ids that begin with its number."""
    return Shard(index, CHUNKED, 9, lambda id: id.startswith(str(index)))


def files_of(config: OutputConfig) -> dict[str, list[str]]:
    """Return the ids in the results of each chunk, and those of other files under `""`."""
    if config.storage:
        store = store_of(config)
        read = [(part_of(key), store.get(key)) for key in keys(config, "results")]
        result = [(part.shard.suffix, data) for part, data in read if part is not None]
    else:
        result = [(suffix_in(path.name), path.read_bytes()) for path in Path(config.uri).glob("results*.jsonl")]
    ids: dict[str, list[str]] = {}
    for suffix, data in result:
        ids.setdefault(suffix, []).extend(json.loads(line)["id"] for line in data.splitlines())
    return {suffix: sorted(item) for suffix, item in ids.items()}


def fill_chunks(config: OutputConfig, *, whole: bool) -> None:
    """Let each of three chunks do two documents, one of them twice; with `whole` add a run without a plan."""
    if whole:
        with opened(config) as output:
            output.write(result("w"))
    for _ in range(2):
        for index in range(3):
            with opened(config, shard=chunk(index)) as output:
                output.write(result(f"{index}a"))
                if output.index.latest(f"{index}b") is None:
                    output.write(result(f"{index}b"))


@pytest.mark.parametrize("whole", [False, True])
def test_compaction_keeps_the_records_of_each_chunk_apart(config: OutputConfig, whole: bool) -> None:
    """The next run of a chunk reads only its own; without other records there is no empty file for them."""
    fill_chunks(config, whole=whole)
    before = scan(config).counts()
    for _ in range(2):
        with opened(config) as output:
            compact(output.backend, output.index)
        chunks = {f"-chunk-{index:05d}": [f"{index}a", f"{index}b"] for index in range(3)}
        assert files_of(config) == {**chunks, **({"": ["w"]} if whole else {})}
        assert scan(config).counts() == before
    with closing(scan(config, shard=chunk(1))) as index:
        assert [index.latest(id) is not None for id in ("1a", "1b", "0a", "2b")] == [True, True, False, False]
    with opened(config, shard=chunk(1)) as output:
        output.write(result("1c"))
    assert files_of(config)["-chunk-00001"] == ["1a", "1b", "1c"]


def test_start_of_a_chunk_opens_few_files(tmp_path: Path) -> None:
    """Before and after compaction the number of opened files does not grow with the other chunks."""
    opens = []
    for others in (30, 90):
        folder = tmp_path / f"{others}"
        config = OutputConfig(str(folder))
        with opened(config, shard=chunk(0)) as output:
            output.write(result("0a"))
        for index in range(1, others):
            line = (folder / "results-chunk-00000.jsonl").read_bytes().replace(b'"0a"', b'"%da"' % index)
            (folder / f"results-chunk-{index:05d}.jsonl").write_bytes(line)
            (folder / f"errors-chunk-{index:05d}.jsonl").touch()
        for _ in range(2):
            with files_opened(folder) as paths:
                scan(config, shard=chunk(0)).close()
            opens.append(len([path for path in paths if path.endswith("l")]))
            with opened(config) as output:
                compact(output.backend, output.index)
    assert opens[:2] == opens[2:]
    assert max(opens) < 25


def test_start_of_a_chunk_sends_few_store_requests(s3: S3Server, bucket: str) -> None:
    """The names of parts show their chunk, so the number does not grow with the other chunks."""
    requests = []
    for others in (3, 9):
        direct = configured(s3, f"{bucket}/{others}")
        for index in range(others):
            with opened(direct, shard=chunk(index)) as output:
                output.write(result(f"{index}a"))
        with opened(direct) as output:
            compact(output.backend, output.index)
        with FaultProxy(s3.port) as tap:
            config = replace(direct, storage={**direct.storage, "endpoint": tap.endpoint})
            scan(config, shard=chunk(0)).close()
            requests.append(len(tap.seen))
    assert requests[0] == requests[1] < 12


def test_last_lines_are_complete_while_shards_append(tmp_path: Path) -> None:
    """A reader without the lock reads twice, and a line is appended to the first file in between."""
    config = OutputConfig(str(tmp_path))
    for index in range(2):
        with opened(config, shard=Shard(index, 2)) as output:
            output.write(result(f"{index}"))
    first = tmp_path / "results-00000-of-00002.jsonl"
    line = first.read_bytes()
    backend = backend_of(config)
    read = backend.records

    def appending(kind: Kind) -> Records:
        yield from read(kind)
        with first.open("ab") as stream:
            stream.write(line.replace(b'"id":"0"', b'"id":"new"'))

    backend.records = appending  # type: ignore[method-assign, assignment]
    assert {key.id for _, key in last_lines(backend)} >= {"0", "1"}


def test_parquet_has_the_last_line_of_each_id(place: Place) -> None:
    """DuckDB reads typed columns, one for each property of the answer."""
    duckdb = pytest.importorskip("duckdb")
    place.documents(4)
    place.run()
    place.change("d001.txt", "another text")
    place.run()
    ran = place.call("compact", "out", "--format", "parquet")
    assert (ran.code, place.done()) == (0, {f"d00{n}.txt": 1 for n in range(4)}), ran.err
    columns = "id, run, output.summary, date_diff('hour', finished_at, now())"
    rows = duckdb.sql(f"SELECT {columns} FROM '{place.folder}/out/results.parquet'").fetchall()
    assert sorted((id, run) for id, run, _, _ in rows) == [(f"d00{n}.txt", 1 + (n == 1)) for n in range(4)]
    assert all(summary and hours in (0, 1) for _, _, summary, hours in rows)


def test_purge_missing_removes_documents_absent_from_the_input(place: Place) -> None:
    """--missing lists the input, --dry-run only counts, and the report no longer has them."""
    place.documents(4)
    place.run()
    (place.folder / "inbox" / "d002.txt").unlink()
    assert "1 result and" in place.call("purge", "out", "--missing", "--dry-run").out
    assert place.done()["d002.txt"] == 1
    assert place.call("purge", "out", "--missing").code == 0
    assert "d002.txt" not in place.done()
    assert place.report()["output"]["done"] == 3
    assert "d002" not in (place.folder / "out" / "report.html").read_text(encoding="utf-8")
    place.sent_documents()
    place.run()
    assert place.sent_documents() == []


@pytest.mark.parametrize("how", ["empty", "gone", "damaged"])
def test_purge_missing_is_refused_if_the_input_is_unknown(place: Place, how: str) -> None:
    """The input is empty, missing, or has a container that cannot be read to its end."""
    place.documents(2)
    place.run()
    inbox = place.folder / "inbox"
    for path in inbox.iterdir():
        path.unlink()
    if how == "gone":
        inbox.rmdir()
    elif how == "damaged":
        (inbox / "a.jsonl.gz").write_bytes(b"no gzip")
    ran = place.call("purge", "out", "--missing")
    assert ran.code in (2, 3), ran.err
    assert len(place.done()) == 2


def test_purge_ids_reads_a_file_of_ids(place: Place) -> None:
    """It has one id a line; a missing or empty file, or no criterion at all, is exit 2."""
    place.documents(3)
    place.run()
    (place.folder / "ids.txt").write_text("d000.txt\nnot there\n", encoding="utf-8")
    assert place.call("purge", "out", "--ids", "ids.txt").code == 0
    assert sorted(place.done()) == ["d001.txt", "d002.txt"]
    (place.folder / "ids.txt").write_text("\n", encoding="utf-8")
    for arguments in (["--ids", "ids.txt"], ["--ids", "none.txt"], []):
        assert place.call("purge", "out", *arguments).code == 2
    assert place.call("purge", "nowhere", "--ids", "ids.txt").code == 2
    assert place.call("purge", "out", "--older-than", "1h").code == 0
    unclear = place.call("purge", "out", "--older-than", "400")
    assert (unclear.code, "need its unit" in unclear.err) == (2, True), "400 seconds would be nearly everything"
    assert sorted(place.done()) == ["d001.txt", "d002.txt"]

"""Compacting and purging: what stays is there at every instant, and what goes is gone everywhere."""

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
    """The process is killed here: nothing catches this."""


class Dying:
    """A store that dies before its n-th change; everything else is the real one's."""

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
    """An output in each backend."""
    if request.param == "folder":
        return OutputConfig(str(tmp_path / "out"))
    return configured(request.getfixturevalue("s3"), request.getfixturevalue("bucket"), part_bytes=800)


def fill(config: OutputConfig, shard: Shard = FIRST) -> None:
    """Three runs: `a` done three times, `b` mended, `c` done and then failed with other bytes, `d` failed."""
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
    """The ids and runs of all records of a kind, sorted."""
    backend = backend_of(config)
    return sorted((head.id, head.run) for _, head in backend.records(kind))  # type: ignore[arg-type]


def test_compacting_leaves_the_last_line_of_each_id(config: OutputConfig) -> None:
    """A stale result stays beside its error; the index says the same as before; the next run has a higher number."""
    fill(config)
    before = scan(config).counts()
    with opened(config) as output:
        compact(output.backend, output.index)
    assert lines(config, "results") == [("a", 3), ("b", 2), ("c", 1)]
    assert lines(config, "errors") == [("c", 3), ("d", 3)]
    assert scan(config).counts() == before
    with opened(config) as output:
        assert output.stamp.run >= 4


def test_compacting_keeps_the_last_two_questions(config: OutputConfig) -> None:
    """For `diff --by fingerprint`; `history=False` keeps the last line only, which is what counts as the result."""
    for fingerprint in "1223":
        with opened(config, shard=Shard(0, 1)) as output:
            output.write(replace(result("a"), fingerprint=fingerprint))
            output.write(replace(result("b"), fingerprint="1"))
    with opened(config) as output:
        assert compact(output.backend, output.index) == 1
    assert lines(config, "results") == [("a", 3), ("a", 4), ("b", 4)]
    known = scan(config).known("a")
    assert known is not None and known.fingerprint == "3"
    with opened(config) as output:
        assert compact(output.backend, output.index, history=False) == 1
    assert lines(config, "results") == [("a", 4), ("b", 4)]


def test_purging_takes_documents_out_of_everything(config: OutputConfig) -> None:
    """Lines, manifests and the runs' examples; what else there is stays."""
    fill(config)
    with opened(config) as output:
        purge(output.backend, output.index, gone=lambda id, _: id in ("a", "d"))
    assert lines(config, "results") == [("b", 2), ("c", 1)]
    assert lines(config, "errors") == [("c", 3)]
    (run,) = backend_of(config).files("runs")
    assert json.loads(run[1])["stats"]["reasons"]["timeout"]["examples"] == [{"id": "c", "message": ""}]
    index = scan(config)
    assert [index.known(id) is None for id in "abcd"] == [True, False, False, True]


def test_purging_takes_the_id_out_of_the_notes_of_identical_documents(config: OutputConfig) -> None:
    """They keep their records, and the other notes; compacting alone changes none."""
    with opened(config) as output:
        for name, notes in {"a": (), "b": ("shared:a", "encoding:cp1252"), "c": ("reused:b",)}.items():
            output.write(replace(result(name), notes=notes))
        compact(output.backend, output.index)
    with opened(config) as output:
        purge(output.backend, output.index, gone=lambda id, _: id == "a")
    kept = {key.id: json.loads(line)["notes"] for line, key in backend_of(config).records("results")}
    assert kept == {"b": ["shared", "encoding:cp1252"], "c": ["reused:b"]}


def test_a_documents_last_line_says_how_old_it_is(config: OutputConfig) -> None:
    """A document that was done again lately stays."""
    fill(config)
    with opened(config) as output:
        purge(output.backend, output.index, gone=lambda _, at: at < NEW)
    assert lines(config, "results") == [("a", 3)]


@pytest.mark.parametrize("what", ["compact", "purge", pytest.param("compact chunks", marks=pytest.mark.slow)])
def test_a_kill_at_each_step_in_a_store_loses_nothing(s3: S3Server, bucket: str, what: str) -> None:
    """After a death before every single change the index says the same of what stays, and a second try ends it."""
    for lives in range(100):
        config = configured(s3, f"{bucket}/{lives}", part_bytes=800)
        fill(config, shard=chunk(0) if "chunks" in what else FIRST)
        store = Dying(store_of(config), lives)
        backend = RemoteBackend(store, Limits(60, 800), shard=WHOLE)  # type: ignore[arg-type]
        survived = change(backend, what)
        index = scan(config)
        assert [index.known(id) is not None for id in "bc"] == [True, True]
        assert index.known("c").failed  # type: ignore[union-attr]
        assert index.has_stale_result("c")
        if what != "purge":
            assert index.known("a").run == 3  # type: ignore[union-attr]
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


def change_all(backend: OutputBackend, index: Index, what: str) -> None:
    """What is tried: `purge` takes `a` out."""
    if what == "purge":
        purge(backend, index, gone=lambda id, _: id == "a")
    else:
        compact(backend, index)


def change(backend: RemoteBackend, what: str) -> bool:
    """True when the backend lived through it."""
    try:
        backend.lock("dying", lock_wait_s=0, wait=lambda _: False, clock=lambda: 0.0)
        index = backend.read()
        backend.start(index, clock=lambda: 0.0)
        change_all(backend, index, what)
        index.close()
        backend.close()
    except DeathError:
        return False
    return True


def test_a_kill_in_a_folder_leaves_the_old_or_both(tmp_path: Path) -> None:
    """Before the rename everything is as it was; after it the shards' files may still stand beside."""
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
    """The first line, and then the end of the process."""
    yield next(lines)
    raise DeathError


def chunk(index: int) -> Shard:
    """Chunk `index` of 9, which holds the ids that begin with its number."""
    return Shard(index, CHUNKED, 9, lambda id: id.startswith(str(index)))


def files_of(config: OutputConfig) -> dict[str, list[str]]:
    """The ids in the results of each chunk, and of everything else under `""`, where there are any."""
    if config.storage:
        store = store_of(config)
        read = [(part_of(key), store.get(key)) for key in keys(config, "results")]
        found = [(part.shard.suffix, data) for part, data in read if part is not None]
    else:
        found = [(suffix_in(path.name), path.read_bytes()) for path in Path(config.uri).glob("results*.jsonl")]
    ids: dict[str, list[str]] = {}
    for suffix, data in found:
        ids.setdefault(suffix, []).extend(json.loads(line)["id"] for line in data.splitlines())
    return {suffix: sorted(each) for suffix, each in ids.items()}


def fill_chunks(config: OutputConfig, *, whole: bool) -> None:
    """Each of three chunks does two documents, and one of them twice; with `whole`, a run without a plan does one."""
    if whole:
        with opened(config) as output:
            output.write(result("w"))
    for _ in range(2):
        for index in range(3):
            with opened(config, shard=chunk(index)) as output:
                output.write(result(f"{index}a"))
                if output.index.known(f"{index}b") is None:
                    output.write(result(f"{index}b"))


@pytest.mark.parametrize("whole", [False, True])
def test_compacting_leaves_the_records_of_a_chunk_by_themselves(config: OutputConfig, whole: bool) -> None:
    """So that the next run of the chunk reads no others; without others there is no empty file of them."""
    fill_chunks(config, whole=whole)
    before = scan(config).counts()
    for _ in range(2):
        with opened(config) as output:
            compact(output.backend, output.index)
        chunks = {f"-chunk-{index:05d}": [f"{index}a", f"{index}b"] for index in range(3)}
        assert files_of(config) == {**chunks, **({"": ["w"]} if whole else {})}
        assert scan(config).counts() == before
    with closing(scan(config, shard=chunk(1))) as index:
        assert [index.known(id) is not None for id in ("1a", "1b", "0a", "2b")] == [True, True, False, False]
    with opened(config, shard=chunk(1)) as output:
        output.write(result("1c"))
    assert files_of(config)["-chunk-00001"] == ["1a", "1b", "1c"]


def test_the_start_of_a_chunk_reads_as_much_beside_many_others_as_beside_few(tmp_path: Path) -> None:
    """Before compacting and after it: files of others are not opened, or a few of them for their last line."""
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
            with files_opened(folder) as seen:
                scan(config, shard=chunk(0)).close()
            opens.append(len([path for path in seen if path.endswith("l")]))
            with opened(config) as output:
                compact(output.backend, output.index)
    assert opens[:2] == opens[2:]
    assert max(opens) < 25


def test_the_start_of_a_chunk_requests_as_much_beside_many_others(s3: S3Server, bucket: str) -> None:
    """In a store the names of parts tell whose they are."""
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


def test_rows_are_complete_while_shards_append_to_their_files(tmp_path: Path) -> None:
    """A reader without the lock reads the records twice; between the two a line was appended to the first file."""
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


def test_parquet_holds_the_last_line_of_each_id(place: Place) -> None:
    """Read by DuckDB: typed columns, also for each property of the answer."""
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


def test_documents_that_are_gone_are_purged(place: Place) -> None:
    """--missing lists the input; --dry-run only counts; the report no longer knows them."""
    place.documents(4)
    place.run()
    (place.folder / "inbox" / "d002.txt").unlink()
    assert "1 result and" in place.call("purge", "out", "--missing", "--dry-run").out
    assert place.done()["d002.txt"] == 1
    assert place.call("purge", "out", "--missing").code == 0
    assert "d002.txt" not in place.done()
    assert place.report()["output"]["done"] == 3
    assert "d002" not in (place.folder / "out" / "report.html").read_text(encoding="utf-8")
    place.asked()
    place.run()
    assert place.asked() == []


@pytest.mark.parametrize("how", ["empty", "gone", "damaged"])
def test_nothing_is_purged_when_the_input_is_not_known(place: Place, how: str) -> None:
    """An empty input, none at all, or a container that cannot be read to its end."""
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


def test_ids_of_a_file_are_purged(place: Place) -> None:
    """One a line; a missing file, an empty one, or nothing to purge by is exit 2."""
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

"""`pipeline run` with an output in an object store, as a user, a second machine and DuckDB see it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from s3_server import S3Server, s3_server

from pipeline.stores import RemoteStore


class There:
    """An output in a store, with direct access for checks."""

    def __init__(self, place: Place, server: S3Server, bucket: str, **settings: Any) -> None:
        """Configure the place for this output."""
        self.uri, self.place, self.server = f"s3://{bucket}/out", place, server
        place.env.update(server.env)
        self.settings = {"output.uri": self.uri, **settings}
        place.configure(self.settings)
        keys = {"access_key_id": "test-key", "secret_access_key": "test-secret", "region": "us-east-1"}
        self.store = RemoteStore.open(self.uri, storage={"endpoint": server.endpoint, **keys})

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return all records of a kind, part by part."""
        parts = [entry.key for entry in self.store.list(kind)]
        return [json.loads(line) for key in parts for line in self.store.get(key).splitlines()]

    def done(self) -> Counter[str]:
        """Return the number of result lines of each document."""
        return Counter(line["id"] for line in self.lines("results"))

    def json(self, name: str) -> Any:
        """Return a small JSON file."""
        return json.loads(self.store.get(name))


@pytest.fixture
def there(place: Place, s3: S3Server, bucket: str) -> There:
    """Return an output in the server that all tests share."""
    return There(place, s3, bucket)


@pytest.fixture
def mortal(place: Place) -> Iterator[There]:
    """Yield an output in a server of its own that a test can kill."""
    with s3_server() as server:
        yield There(place, server, "tests/mortal", **{"output.part_bytes": 2000, "vllm.timeout": 20})


def test_remote_output_has_all_files_of_a_run(there: There) -> None:
    """No file is written on this machine, and a second run sends no request."""
    place = there.place
    names = place.documents({"a.txt": "text", "b.txt": "text", "bad.txt": "[[fault:http_400]]"})
    ran = place.run("--run-id", "first", "--set", "runner.max_error_rate=1")
    assert f"{there.uri}/report.html" in ran.out
    assert there.done() == {"a.txt": 1, "b.txt": 1}
    assert [line["id"] for line in there.lines("errors")] == ["bad.txt"]
    assert there.json("report.json")["output"]["done"] == 2
    assert b"<html" in there.store.get("report.html")
    assert there.json("runs/first.json")["counts"]["found"] == 3
    assert not (place.folder / "out").exists()
    assert sorted(set(place.sent_documents())) == names
    place.run("--set", "runner.max_error_rate=1")
    assert place.sent_documents() == []


@pytest.mark.parametrize("before", [(), ("0/2", "1/2")], ids=["whole", "two shards"])
def test_resolved_errors_of_other_shards_are_removed_by_an_unsharded_run(there: There, before: tuple[str, ...]) -> None:
    """Shards do not read the whole output for that; current errors stay."""
    place = there.place
    texts = {f"d{n}.txt": "text" for n in range(8)}
    place.documents({**texts, "once.txt": "[[fault:http_400*2]]", "always.txt": "[[fault:http_400]]"})
    flags = ("--set", "runner.max_error_rate=1")
    for shard in before:
        place.run(*flags, "--shard", shard)
    if not before:
        place.run(*flags)
    assert sorted(line["id"] for line in there.lines("errors")) == ["always.txt", "once.txt"]
    for index in range(3):
        place.run(*flags, "--shard", f"{index}/3", "--only-failed", "rejected")
    assert there.json("report.json")["output"]["failed"] == 1
    place.sent_documents()
    place.run(*flags)
    assert place.sent_documents() == []
    assert [(line["id"], line["runs"]) for line in there.lines("errors")] == [("always.txt", 2)]


def test_report_is_rebuilt_from_the_store(there: There) -> None:
    """The address of the output is enough."""
    there.place.documents(3)
    there.place.run()
    there.store.delete("report.json")
    ran = there.place.call("report", there.uri)
    assert (ran.code, there.json("report.json")["output"]["done"]) == (0, 3), ran.err


def test_second_run_on_a_prefix_names_the_holder(there: There) -> None:
    """With `lock_wait_s: 0` it exits with 3 at once, and the first run is not disturbed."""
    place = there.place
    names = place.documents(12)
    place.server.latency_s = 3.0
    first = place.start("run", "--run-id", "holder", "--concurrency", "2")
    place.wait_for(lambda: len(place.server.chats()) >= 2, "a chat")
    second = place.call("run")
    place.server.latency_s = 0.0
    assert second.code == 3
    assert "run_id holder" in second.err
    assert first.end().code == 0
    assert there.done() == dict.fromkeys(names, 1)


@pytest.mark.slow
def test_killed_run_is_resumed_on_another_machine(there: There, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It needs only the address: documents in a part are skipped, the others are sent again."""
    place = there.place
    names = place.documents(30)
    place.configure({"output.uri": there.uri, "output.part_bytes": 2000})
    place.server.latency_s = 0.1
    child = place.start("run", "--concurrency", "4")
    place.wait_for(lambda: len(there.done()) >= 6, "six results in parts")
    child.end(9)
    safe = there.done()
    assert 6 <= len(safe) < 30
    place.sent_documents()
    place.server.latency_s = 0.0
    elsewhere = Place(tmp_path_factory.mktemp("elsewhere"), place.server, env=place.env)
    elsewhere.configure({"output.uri": there.uri, "input.uri": str(place.folder / "inbox"), "runner.lock_wait_s": 60})
    elsewhere.run()
    assert sorted(elsewhere.sent_documents()) == sorted(set(names) - set(safe))
    assert there.done() == dict.fromkeys(names, 1)
    assert elsewhere.run().code == 0
    assert elsewhere.sent_documents() == []


def test_temporary_store_outage_loses_no_record(mortal: There) -> None:
    """Parts wait in memory, and no more documents are sent than fit."""
    place = mortal.place
    names = place.documents(60)
    place.server.latency_s = 0.05
    child = place.start("run", "--concurrency", "4")
    place.wait_for(lambda: len(mortal.done()) >= 6, "six results in parts")
    mortal.server.kill()
    mortal.server.start_again()
    ran = child.end()
    assert ran.code == 0, ran.err
    assert mortal.done() == dict.fromkeys(names, 1)
    assert sorted(place.sent_documents()) == names


@pytest.mark.slow
def test_lasting_store_outage_exits_with_3(mortal: There) -> None:
    """Documents in no part count as left, and the next run does exactly those."""
    place = mortal.place
    names = place.documents(60)
    place.server.latency_s = 0.05
    place.configure({**mortal.settings, "output.storage.retry_for_s": 1, "runner.max_outage_s": 2})
    child = place.start("run", "--concurrency", "4")
    place.wait_for(lambda: len(mortal.done()) >= 6, "six results in parts")
    mortal.server.kill()
    ran = child.end()
    assert ran.code == 3, ran.err
    assert "the request to the store failed" in ran.err
    assert len(place.sent_documents()) < 60
    mortal.server.start_again()
    safe = mortal.done()
    match = re.search(r"60 found, (\d+) done, (\d+) left", ran.out)
    assert match is not None, ran.out
    # a part that was being uploaded may or may not have arrived
    assert int(match[1]) <= len(safe)
    place.server.latency_s = 0.0
    place.run("--set", "runner.lock_wait_s=60")
    assert sorted(place.sent_documents()) == sorted(set(names) - set(safe))
    assert mortal.done() == dict.fromkeys(names, 1)


def test_two_simultaneous_shards_share_an_output(there: There) -> None:
    """Each writes its own parts, and the rebuilt report covers both."""
    place = there.place
    names = place.documents(10)
    place.server.latency_s = 0.1
    children = [place.start("run", "--shard", f"{index}/2") for index in (0, 1)]
    assert [child.end().code for child in children] == [0, 0]
    assert there.done() == dict.fromkeys(names, 1)
    assert place.call("report", there.uri).code == 0
    report = there.json("report.json")
    assert report["run"]["counts"]["done"] == 10
    assert report["missing_shards"] == []


def test_input_and_output_may_be_in_different_services(there: There) -> None:
    """Each has its own keys and endpoint; equal bucket names do not mean the same bucket."""
    place = there.place
    for name in there.server.env:
        del place.env[name]
    with s3_server() as elsewhere:
        source = RemoteStore.open(f"{there.uri}/in", storage=storage_of(elsewhere, "test"))
        source.put("a.txt", b"[[doc:a.txt]] text")
        source.put("results/b.txt", b"[[doc:b.txt]] text")
        inner = {"input.storage": storage_of(elsewhere, "reader"), "output.storage": storage_of(there.server, "test")}
        for output in (f"{there.uri}/in", f"{there.uri}/in/results"):
            place.configure({"input.uri": f"{there.uri}/in", "output.uri": output, **inner})
            place.run()
            assert sorted(place.sent_documents()) == ["a.txt", "b.txt"]
            assert "2 found" in place.run("--sample", "2").out
        assert place.call("purge", output, "--missing").out.endswith("0 results and 0 errors were removed.\n")


def storage_of(server: S3Server, key: str) -> dict[str, str]:
    """Return the storage options for a server with one of its keys."""
    keys = {"access_key_id": f"{key}-key", "secret_access_key": f"{key}-secret"}
    return {"endpoint": server.endpoint, "region": "us-east-1", **keys}


def test_duckdb_reads_parts_directly(there: There, tmp_path: Path) -> None:
    """It can query all records, or the last line of each id."""
    duckdb = pytest.importorskip("duckdb")
    place = there.place
    place.documents(4)
    place.run()
    place.change("d001.txt", "another text")
    place.run()
    for entry in there.store.list("results"):
        path = tmp_path / entry.key
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(there.store.get(entry.key))
    source = f"read_json('{tmp_path}/results/*.jsonl', format = 'newline_delimited', filename = true)"
    assert duckdb.sql(f"SELECT count(*) FROM {source}").fetchall() == [(5,)]
    last = f"SELECT id, run FROM {source} QUALIFY row_number() OVER (PARTITION BY id ORDER BY run DESC) = 1"
    assert sorted(duckdb.sql(last).fetchall()) == [
        ("d000.txt", 1), ("d001.txt", 2), ("d002.txt", 1), ("d003.txt", 1)
    ]  # fmt: skip


def test_compact_writes_a_parquet_file_to_the_store(there: There, tmp_path: Path) -> None:
    """Its rows come from parts of two runs; one line of each id remains."""
    duckdb = pytest.importorskip("duckdb")
    place = there.place
    names = place.documents(4)
    place.run()
    place.change("d001.txt", "another text")
    place.run()
    ran = place.call("compact", there.uri, "--format", "parquet")
    assert (ran.code, there.done()) == (0, dict.fromkeys(names, 1)), ran.err
    (tmp_path / "results.parquet").write_bytes(there.store.get("results.parquet"))
    rows = duckdb.sql(f"SELECT id, run FROM '{tmp_path}/results.parquet'").fetchall()
    assert sorted(rows) == [(name, 1 + (name == "d001.txt")) for name in names]


def test_errors_command_reads_a_remote_output(there: There) -> None:
    """`pipeline errors` groups failures and shows a document's history."""
    there.place.documents({"a.txt": "text", "b.txt": "[[fault:http_400]]"})
    there.place.run("--set", "runner.max_error_rate=1")
    payload = json.loads(there.place.call("errors", there.uri, "--json").out)
    assert [(group["reason"], group["count"]) for group in payload["groups"]] == [("rejected", 1)]
    assert "DONE a.txt" in there.place.call("errors", there.uri, "--show", "a.txt").out


def test_diff_uses_the_configured_storage_options(there: There) -> None:
    """The credentials come from output.storage if the environment has none."""
    place = there.place
    place.documents(3)
    place.run()
    storage = {"endpoint": there.server.endpoint, "access_key_id": "test-key", "secret_access_key": "test-secret"}
    for name in there.server.env:
        del place.env[name]
    place.configure({**there.settings, "output.storage": {**storage, "region": "us-east-1"}})
    place.run("--output", "here")
    ran = place.call("diff", "here", there.uri, "--json")
    assert ran.code == 0, ran.err
    payload = json.loads(ran.out)
    assert (payload["documents"], payload["identical"]) == ({"done_in_both": 3}, 3)

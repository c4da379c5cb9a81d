"""Shards that create, replace and delete files of one output while their siblings list and read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_llm import FakeLLM
from s3_faults import FaultProxy
from s3_server import S3Server
from sibling_stress import repeated, stress

from pipeline.output.local import LocalBackend
from pipeline.output.part_writer import Limits
from pipeline.output.remote import RemoteBackend
from pipeline.shards import WHOLE
from pipeline.stores import RemoteStore


@pytest.mark.slow
def test_simultaneous_shards_all_exit_with_0(tmp_path: Path, server: FakeLLM) -> None:
    """The file system delays each call; each document is done once, whatever the number of shards."""
    wrong = stress(tmp_path, server.url, output="out", shards=6, rounds=3, delay_s=0.02, env={})
    assert wrong == []
    lines = [json.loads(line) for path in (tmp_path / "out").glob("results*.jsonl") for line in path.open()]
    assert repeated(lines) == []
    assert len(lines) == 16


def record(id: str, run: int = 1) -> bytes:
    """Return a result line."""
    common = {"sha256": "0", "agent": "a", "variant": "v", "fingerprint": "f", "version": None, "run_id": "r"}
    return json.dumps({"v": 1, "id": id, "uri": id, **common, "run": run}).encode() + b"\n"


def test_temporary_run_file_is_not_read(tmp_path: Path) -> None:
    """It is about to be renamed."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".x.json.0123456789ab.tmp").write_bytes(b"{}")
    (tmp_path / "runs" / "x.json").write_bytes(b"{}")
    assert list(LocalBackend(tmp_path, shard=WHOLE).files("runs")) == [("runs/x.json", b"{}")]


def test_dangling_link_is_skipped(tmp_path: Path) -> None:
    """The link simulates a file that is deleted between its listing and its reading."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "gone.json").symlink_to("nowhere")
    assert list(LocalBackend(tmp_path, shard=WHOLE).files("runs")) == []


def test_lines_moved_by_a_compaction_are_read_at_their_new_place(tmp_path: Path) -> None:
    """A reader without the lock has listed the shards' files; the second is removed while it reads the first."""
    for name, id in (("results-00000-of-00002.jsonl", "a"), ("results-00001-of-00002.jsonl", "b")):
        (tmp_path / name).write_bytes(record(id))
    records = LocalBackend(tmp_path, shard=WHOLE).records("results")
    first = next(records)
    (tmp_path / "results.jsonl").write_bytes(record("a") + record("b"))
    (tmp_path / "results-00001-of-00002.jsonl").unlink()
    assert {head.id for _, head in [first, *records]} == {"a", "b"}


def test_part_deleted_by_a_sibling_is_read_from_its_replacement(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that ends rewrites its errors and deletes the old parts, while another one reads all of them."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    uri, error = f"s3://{bucket}/out", record("a").replace(b'"run": 1', b'"run": 1, "reason": "rejected", "runs": 1')
    direct = RemoteStore.open(uri, storage={})
    direct.put("errors/000001-00000-of-00002-000000.jsonl", error)

    def delete_first(method: str, target: str) -> None:
        if method == "GET" and "000001-00000-of-00002-000000" in target and "list-type" not in target:
            direct.put("errors/000002-00000-of-00002-000000.jsonl", error.replace(b'"run": 1', b'"run": 2'))
            direct.delete("errors/000001-00000-of-00002-000000.jsonl")

    with FaultProxy(s3.port, before=delete_first) as tap:
        backend = RemoteBackend(
            RemoteStore.open(uri, storage={"endpoint": tap.endpoint}), Limits(60, 1 << 20), shard=WHOLE
        )
        index = backend.read()
    assert (index.highest_run, index.failed_count()) == (2, 1)
    index.close()

"""Merged manifests: many small parts are indexed with few requests, and outdated merged manifests are ignored."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from s3_faults import FaultProxy
from s3_server import S3Server
from test_compaction import DeathError, Dying, chunk
from test_output import failure, result
from test_remote_output import configured, keys, opened, store_of

from pipeline.config import OutputConfig
from pipeline.output import merged_manifests, scan
from pipeline.output.compaction import purge
from pipeline.output.part_writer import Limits
from pipeline.output.remote import RemoteBackend
from pipeline.shards import WHOLE, Shard

FOLDER = "manifests/merged"


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge from four parts on, and make objects of a few manifests."""
    monkeypatch.setattr(merged_manifests, "MERGED_FROM", 4)
    monkeypatch.setattr(merged_manifests, "FULL_BYTES", 800)


@pytest.fixture
def config(s3: S3Server, bucket: str) -> OutputConfig:
    """Return a new output in which each record has a part of its own."""
    return configured(s3, bucket, part_bytes=1)


def nights(config: OutputConfig, ids: str, *, shard: Shard = WHOLE) -> None:
    """Run once for each id, with one document, and once without a document."""
    for id in [*ids, ""]:
        with opened(config, shard=shard) as output:
            if id:
                output.write(result(id))
            output.finish()


def index_state(config: OutputConfig, shard: Shard = WHOLE) -> Any:
    """Return all values that an index provides."""
    with closing(scan(config, shard=shard)) as index:
        return [index.latest(id) for id in "abcdefghij"], index.counts(), index.highest_run, index.agents


def requests(config: OutputConfig, s3: S3Server, shard: Shard = WHOLE) -> int:
    """Return the number of requests of a start that reads the index."""
    with FaultProxy(s3.port) as tap:
        scan(replace(config, storage={**config.storage, "endpoint": tap.endpoint}), shard=shard).close()
        return len(tap.seen)


def drop(config: OutputConfig) -> None:
    """Remove the merged manifests."""
    store_of(config).delete(*keys(config, FOLDER))


@pytest.mark.parametrize("shard", [WHOLE, Shard(0, 2), chunk(0)])
def test_merged_manifests_equal_the_parts(config: OutputConfig, shard: Shard) -> None:
    """This holds in all shards, with deleted parts and with damaged manifests."""
    shard = replace(shard, holds=lambda _: True)
    ids = [id for id in "abcdefghij" if shard.is_chunk or shard.owns(id)]
    with opened(config, shard=shard) as output:
        output.write(failure(ids[0]))
        output.write(result(ids[1], output="old"))
    nights(config, "".join([*ids, *ids[:3]]), shard=shard)
    store = store_of(config)
    (first, *_) = names = keys(config, FOLDER)
    expected = index_state(config, shard)
    drop(config)
    assert index_state(config, shard) == expected
    assert sum(entry is not None for entry in expected[0]) == len(ids)
    nights(config, "", shard=shard)
    assert len(keys(config, FOLDER)) >= len(names)
    data = store.get(first)
    for damaged in (data[:-9], data[30:], data[: len(data) // 2] + data, b"{}\n" + data, b"\xff\n", b""):
        store.put(first, damaged)
        assert index_state(config, shard) == expected
    store.put(first, data)
    parts = keys(config, "results")
    store.delete(parts[0])
    by_merged = index_state(config, shard)
    drop(config)
    assert index_state(config, shard) == by_merged


def test_requests_of_a_start_do_not_grow_with_the_runs(config: OutputConfig, s3: S3Server) -> None:
    """Full objects stay; later manifests are merged by the next run that finds enough of them."""
    counted = []
    for ids in ("abcdef", "ghijkl"):
        nights(config, ids)
        objects = len(keys(config, FOLDER))
        counted.append(requests(config, s3) - objects)
        assert requests(config, s3, Shard(0, 2)) < 20
    assert objects > 1
    assert max(counted) < 9, "five, and one for each of at most three parts that are not merged yet"


def test_one_run_merges_a_limited_number_of_manifests(config: OutputConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal then need not wait for thousands of requests; later runs merge the others."""
    monkeypatch.setattr(merged_manifests, "MOST_AT_ONCE", 5)
    with opened(config) as output:
        for id in "abcdefghij":
            output.write(result(id))
    merged = []
    for _ in range(3):
        nights(config, "")
        merged.append(sum(store_of(config).get(key).count(b'"part"') for key in keys(config, FOLDER)))
    assert merged == [5, 10, 10]
    assert index_state(config)[1]["done"] == 10


def test_merged_manifests_of_siblings_are_not_read(config: OutputConfig, s3: S3Server) -> None:
    """Neither are their parts."""
    for index in (0, 1):
        nights(config, "abcdef", shard=replace(chunk(index), holds=lambda _: True))
    before = requests(config, s3, chunk(0))
    nights(config, "abcdef", shard=replace(chunk(2), holds=lambda _: True))
    assert requests(config, s3, chunk(0)) == before


def test_purge_removes_merged_manifests(config: OutputConfig) -> None:
    """They contain document ids."""
    nights(config, "abcdefgh")
    assert keys(config, FOLDER)
    with opened(config) as output:
        purge(output.backend, output.index, is_removed=lambda id, _: id == "a")
    assert keys(config, FOLDER) == []
    assert index_state(config)[0][:2] == [None, index_state(config)[0][1]]


def test_kill_while_manifests_are_merged_loses_no_entry(s3: S3Server, bucket: str) -> None:
    """After a death before any change of the store the next start has the same index."""
    for lives in range(20):
        config = configured(s3, f"{bucket}/{lives}", part_bytes=1)
        for id in "abcdef":
            with opened(config) as output:
                output.write(result(id))
        expected = index_state(config)
        if merges(RemoteBackend(Dying(store_of(config), lives), Limits(60, 1), shard=WHOLE)):  # type: ignore[arg-type]
            assert lives > 2
            assert keys(config, FOLDER)
            return
        assert index_state(config) == expected
    raise AssertionError("it never came to its end")


def merges(backend: RemoteBackend) -> bool:
    """Return whether the backend survived the end of a run."""
    try:
        backend.lock("dying", lock_wait_s=0, wait=lambda _: False, clock=lambda: 0.0)
        with closing(backend.read()) as index:
            backend.start(index, clock=lambda: 0.0)
            backend.settle(index)
        backend.close()
    except DeathError:
        return False
    return True

"""An output in an object store keeps every uploaded part whoever dies; tested against a real S3 server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from s3_server import S3Server
from test_output import failure, result

from pipeline.config import OutputConfig
from pipeline.errors import ConfigError, OutputError, TryLaterError
from pipeline.output import Output, scan
from pipeline.output.lease import LEASE_S
from pipeline.output.lines import MAX_LINE_BYTES
from pipeline.shards import WHOLE, Shard
from pipeline.stores import RemoteStore

WAITS = {"lock_wait_s": 1000.0}


class Clock:
    """A clock that advances only when it is set or waited on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """Advance the clock; never report a stop."""
        self.now += seconds
        return False


@pytest.fixture
def config(s3: S3Server, bucket: str) -> OutputConfig:
    """Return a new output; a part of 800 bytes holds one record with "x" * 400."""
    return configured(s3, bucket, part_bytes=800)


def configured(s3: S3Server, bucket: str, *, part_bytes: int = 1 << 26, key: str = "test") -> OutputConfig:
    """Return the output below a bucket."""
    keys = {"access_key_id": f"{key}-key", "secret_access_key": f"{key}-secret"}
    storage = {"endpoint": s3.endpoint, "region": "us-east-1", **keys}
    return OutputConfig(f"s3://{bucket}/out", part_bytes=part_bytes, storage=storage)


def opened(
    config: OutputConfig,
    *,
    agent: str = "extractor",
    shard: Shard = WHOLE,
    clock: Clock | None = None,
    lock_wait_s: float = 0,
) -> Output:
    """Open the output with a clock of its own."""
    clock = clock or Clock()
    return Output.open(
        config, agent=agent, shard=shard, lock_wait_s=lock_wait_s, run_id="r", wait=clock.wait, clock=clock
    )


def store_of(config: OutputConfig) -> RemoteStore:
    """Return the store, for direct access."""
    return RemoteStore.open(config.uri, storage=config.storage)


def keys(config: OutputConfig, folder: str = "") -> list[str]:
    """Return the keys of the store without the lock."""
    return [entry.key for entry in store_of(config).list(folder) if not entry.key.startswith(".lock")]


def ids(config: OutputConfig, kind: str = "results") -> list[str]:
    """Return the ids of all records, by part and position."""
    store = store_of(config)
    return [json.loads(line)["id"] for key in keys(config, kind) for line in store.get(key).splitlines()]


@contextmanager
def abandoned(output: Output) -> Iterator[Output]:
    """Yield an output whose process dies at the end of the block, without writing or releasing the lock."""
    yield output
    output.index.close()


def test_records_are_read_back_from_numbered_parts(config: OutputConfig) -> None:
    """A part name has the run number and its own; each part has a manifest; the next run reads all of it."""
    with opened(config) as output:
        for id in "ab":
            output.write(result(id, output="x" * 400))
        output.write(failure("c"))
        output.finish()
    parts = ["errors/000001-000000.jsonl", "results/000001-000000.jsonl", "results/000001-000001.jsonl"]
    assert keys(config) == [*parts[:1], *(f"manifests/{part}" for part in parts), *parts[1:]]
    assert ids(config) == ["a", "b"]
    with opened(config) as output:
        assert output.stamp.run == 2
        assert [output.index.latest(id) is not None for id in "abcd"] == [True, True, True, False]
        assert output.index.counts()["reasons"] == {"timeout": 1}


def test_part_is_closed_by_the_age_of_its_oldest_record(s3: S3Server, bucket: str) -> None:
    """Closing does not upload; that is the uploader's task."""
    config, clock = configured(s3, bucket), Clock()
    with abandoned(opened(config, clock=clock)) as output:
        output.write(result("a"))
        clock.now = 30
        output.write(result("b"))
        output.sync_due(59.9)
        assert output.unwritten == (2, 0)
        output.sync_due(60.0)
        output.write(result("c"))
        assert keys(config) == []
        output.backend.sync()
    assert ids(config) == ["a", "b", "c"]
    assert len(keys(config, "results")) == 2


def test_kill_loses_only_records_that_are_in_no_part(config: OutputConfig) -> None:
    """The next run, on a machine with only the address, finds the uploaded records."""
    with abandoned(opened(config)) as output:
        output.write(result("safe", output="x" * 400))
        output.write(result("lost"))
        assert output.backend.is_full is False
        output.backend._writer.send()  # type: ignore[attr-defined]
    clock = Clock()
    with opened(config, clock=clock, **WAITS) as output:
        assert clock.now >= LEASE_S
        assert output.stamp.run == 2
        assert output.index.latest("safe") is not None
        assert output.index.latest("lost") is None


def test_missing_or_foreign_manifest_is_rebuilt(config: OutputConfig) -> None:
    """The next run rebuilds it from the part; a reader without the lock writes none, but sees the same."""
    with opened(config) as output:
        for id in "abc":
            output.write(result(id, output="x" * 400))
    store, (first, second, third) = store_of(config), keys(config, "manifests")
    before = {key: store.get(key) for key in (first, second, third)}
    store.delete(first)
    store.put(second, before[third])
    store.put(third, before[third][:-20])
    assert scan(config).counts()["done"] == 3
    assert keys(config, "manifests") == [second, third]
    with opened(config) as output:
        assert output.index.counts()["done"] == 3
    assert {key: store.get(key) for key in (first, second, third)} == before


def test_outdated_errors_are_removed_at_the_end(config: OutputConfig) -> None:
    """Current errors are in a new part, and the old parts are deleted."""
    with opened(config) as output:
        for id in "abc":
            output.write(failure(id))
        output.finish()
    with opened(config) as output:
        output.write(result("a"))
        output.write(failure("b", reason="overloaded"))
        output.finish()
        assert output.index.counts()["reasons"] == {"overloaded": 1, "timeout": 1}
    assert sorted(ids(config, "errors")) == ["b", "c"]
    assert all(key.startswith("errors/000002") for key in keys(config, "errors"))
    assert len(keys(config, "manifests/errors")) == len(keys(config, "errors"))


def test_kill_while_errors_are_rewritten_loses_none(config: OutputConfig) -> None:
    """Old and new parts both exist: the next run counts each error once and leaves one line of it."""
    with opened(config) as output:
        for id in "abc":
            output.write(failure(id))
    store = store_of(config)
    before = {key: store.get(key) for key in keys(config)}
    with opened(config) as output:
        output.write(result("a"))
        output.finish()
    for key, data in before.items():
        store.put(key, data)
    assert scan(config).counts()["failed"] == 2
    with opened(config) as output:
        assert output.index.failed_count() == 2
    assert sorted(ids(config, "errors")) == ["b", "c"]


@pytest.mark.parametrize(
    ("holder_shard", "other_shard"),
    [(WHOLE, WHOLE), (WHOLE, Shard(0, 2)), (Shard(0, 2), WHOLE), (Shard(0, 2), Shard(1, 3))],
)
def test_conflicting_shards_exclude_each_other(config: OutputConfig, holder_shard: Shard, other_shard: Shard) -> None:
    """The second run gets an error that names the holder of the output, and can open it when the first has ended."""
    with opened(config, shard=holder_shard), pytest.raises(TryLaterError, match=r"another run holds.*run_id r"):
        opened(config, shard=other_shard)
    opened(config, shard=other_shard).close()


def test_shards_of_one_count_run_side_by_side(config: OutputConfig) -> None:
    """Each writes parts under its own name and indexes its own ids; an unsharded reader has all."""
    mine = next(name for name in map(str, range(99)) if Shard(0, 2).owns(name))
    foreign_id = next(name for name in map(str, range(99)) if Shard(1, 2).owns(name))
    with opened(config, shard=Shard(0, 2)) as first_output, opened(config, shard=Shard(1, 2)) as other:
        first_output.write(result(mine))
        other.write(result(foreign_id))
    assert keys(config, "results") == [f"results/000001-0000{index}-of-00002-000000.jsonl" for index in (0, 1)]
    assert scan(config, shard=Shard(0, 2)).counts()["done"] == 1
    assert scan(config).counts()["done"] == 2


def test_one_of_many_simultaneous_runs_gets_the_lease(config: OutputConfig) -> None:
    """Of sixteen runs one wins, and the others name it."""
    won, lost = [], []
    barrier = threading.Barrier(16)

    def start() -> None:
        barrier.wait()
        try:
            won.append(opened(config))
        except TryLaterError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 15)
    won[0].close()


def test_suspended_holder_stops_without_writing(config: OutputConfig) -> None:
    """Another run has taken over its lease; the records in its memory are not written."""
    clock = Clock()
    asleep = opened(config, clock=clock)
    asleep.write(result("a"))
    with opened(config, **WAITS) as other:
        other.write(result("b"))
        clock.now = 1000
        with pytest.raises(TryLaterError, match="lost to another run"):
            asleep.finish()
        assert asleep.unwritten == (1, 0)
        asleep.close()
    assert ids(config) == ["b"]


def test_renewed_lease_is_not_taken_over(config: OutputConfig) -> None:
    """This holds however long another run waits."""
    clock, waiting = Clock(), Clock()
    with opened(config, clock=clock) as output:

        def wait(seconds: float) -> bool:
            clock.now += 6
            output.backend._check_lease()  # type: ignore[attr-defined]
            return waiting.wait(seconds)

        with pytest.raises(TryLaterError, match="another run holds"):
            Output.open(
                config, agent="extractor", shard=None, lock_wait_s=3 * LEASE_S, run_id="x", wait=wait, clock=waiting
            )
        output.write(result("a"))
    assert ids(config) == ["a"]


def test_long_wait_for_a_lease_logs_the_holder_and_slows_down(
    config: OutputConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs a line a minute, and polls every 5 to 10 s after the first minute."""
    caplog.set_level("INFO", logger="pipeline")
    clock, waiting, polls = Clock(), Clock(), list[float]()
    with opened(config, clock=clock) as output:

        def wait(seconds: float) -> bool:
            polls.append(seconds)
            clock.now += max(6.0, seconds)
            output.backend._check_lease()  # type: ignore[attr-defined]
            return waiting.wait(max(6.0, seconds))

        with pytest.raises(TryLaterError, match=r"run_id r, .*waited 600 s"):
            Output.open(config, agent="extractor", shard=None, lock_wait_s=600, run_id="x", wait=wait, clock=waiting)
    assert all(0.5 <= seconds <= 1 for seconds in polls[:10])
    assert all(5 <= seconds <= 10 for seconds in polls[11:-1])
    records = [record for record in caplog.records if record.getMessage() == "Waiting for the output"]
    assert 9 <= len(records) <= 11
    assert all("run_id r" in vars(record)["holder"] for record in records)


def test_second_writer_of_a_part_name_is_refused(config: OutputConfig) -> None:
    """Two runs have the same run number by accident; only the first upload counts."""
    first, second = opened(config), opened(config, **WAITS)
    assert first.stamp.run == second.stamp.run
    second.write(result("b"))
    second.backend.sync()
    first.write(result("a"))
    with pytest.raises(OutputError, match="another run has taken"):
        first.backend.sync()
    assert ids(config) == ["b"]
    second.close()


def test_output_of_another_agent_is_refused(config: OutputConfig) -> None:
    """The lock is released."""
    with opened(config) as output:
        output.write(result("a"))
    with pytest.raises(ConfigError, match=r"'event_classifier'.*'extractor'"):
        opened(config, agent="event_classifier")
    opened(config).close()


def change_key(config: OutputConfig, **storage: object) -> OutputConfig:
    """Return the same output with other storage options."""
    return OutputConfig(config.uri, storage={**config.storage, **storage})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda config: OutputConfig("s3://no-such-bucket/out", storage=config.storage), "no-such-bucket"),
        (lambda config: change_key(config, secret_access_key="wrong"), "refused"),
        (lambda config: change_key(config, access_key_id="reader-key", secret_access_key="reader-secret"), "refused"),
    ],
)
def test_wrong_storage_settings_are_a_configuration_error(
    config: OutputConfig, make: Callable[[OutputConfig], OutputConfig], message: str
) -> None:
    """These are a missing bucket, a wrong key and a read-only key; the error names the setting, not the key."""
    with pytest.raises(ConfigError, match=message) as error:
        opened(make(config))
    assert "output.storage" in str(error.value)
    assert "secret" not in str(error.value)


def test_unreachable_store_is_an_output_error(config: OutputConfig) -> None:
    """It is reported in bounded time."""
    with pytest.raises(OutputError, match="request to the store failed"):
        opened(change_key(config, endpoint="http://127.0.0.1:9", retry_for_s=0))


def test_oversized_line_in_a_part_is_refused_like_a_local_one(config: OutputConfig) -> None:
    """Endless garbage is skipped, but a line that may be a record is refused."""
    too_long = "x" * MAX_LINE_BYTES
    with opened(config) as output:
        output.write(result("a"))
        with pytest.raises(OutputError, match=r"input\.max_document_bytes"):
            output.write(result("b", output=too_long))
    store, (part,), (manifest,) = store_of(config), keys(config, "results"), keys(config, "manifests")
    good = store.get(part)
    store.delete(manifest)
    store.put(part, b"\0" + too_long.encode() + b"\n" + good)
    assert scan(config).counts()["done"] == 1
    store.put(part, good + b'{"id":"' + too_long.encode() + b'"}\n')
    with pytest.raises(ConfigError, match=f"the line at byte {len(good)} has more than 64 MiB"):
        scan(config)

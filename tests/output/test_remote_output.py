"""An output in an object store: what was written in a part is kept, whoever dies; held against a real S3 server."""

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
    """A clock that moves when it is told to, or a bit at each wait."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """Nobody ever says stop."""
        self.now += seconds
        return False


@pytest.fixture
def config(s3: S3Server, bucket: str) -> OutputConfig:
    """An output that nobody has used; parts of 800 bytes hold one record with "x" * 400."""
    return configured(s3, bucket, part_bytes=800)


def configured(s3: S3Server, bucket: str, *, part_bytes: int = 1 << 26, key: str = "test") -> OutputConfig:
    """The output below a bucket and its prefix."""
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
    """The output, by a clock of its own."""
    clock = clock or Clock()
    return Output.open(
        config, agent=agent, shard=shard, lock_wait_s=lock_wait_s, run_id="r", wait=clock.wait, clock=clock
    )


def store_of(config: OutputConfig) -> RemoteStore:
    """The store, to look behind the output's back."""
    return RemoteStore.open(config.uri, storage=config.storage)


def keys(config: OutputConfig, folder: str = "") -> list[str]:
    """What is there, but for the lock."""
    return [found.key for found in store_of(config).list(folder) if not found.key.startswith(".lock")]


def ids(config: OutputConfig, kind: str = "results") -> list[str]:
    """The ids of all records, by part and place."""
    store = store_of(config)
    return [json.loads(line)["id"] for key in keys(config, kind) for line in store.get(key).splitlines()]


@contextmanager
def abandoned(output: Output) -> Iterator[Output]:
    """An output whose process dies at the end of the block: nothing is written or given back any more."""
    yield output
    output.index.close()


def test_records_come_back_in_parts_of_their_run(config: OutputConfig) -> None:
    """A part has the run's number and its own; each has a manifest; the next run knows all of it."""
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
        assert [output.index.known(id) is not None for id in "abcd"] == [True, True, True, False]
        assert output.index.counts()["reasons"] == {"timeout": 1}


def test_a_part_is_closed_by_age(s3: S3Server, bucket: str) -> None:
    """The oldest record counts, and who closes does not write: that is the uploader's."""
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


def test_what_no_part_held_is_lost_and_nothing_else(config: OutputConfig) -> None:
    """After a kill the next run, on a machine with nothing but the address, knows what was written and no more."""
    with abandoned(opened(config)) as output:
        output.write(result("safe", output="x" * 400))
        output.write(result("lost"))
        assert output.backend.is_full is False
        output.backend._writer.send()  # type: ignore[attr-defined]
    clock = Clock()
    with opened(config, clock=clock, **WAITS) as output:
        assert clock.now >= LEASE_S
        assert output.stamp.run == 2
        assert output.index.known("safe") is not None
        assert output.index.known("lost") is None


def test_a_missing_or_foreign_manifest_is_made_anew(config: OutputConfig) -> None:
    """By the next run, from the part; a reader without the lock makes none, and sees the same."""
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


def test_errors_that_no_longer_stand_are_gone_at_the_end(config: OutputConfig) -> None:
    """Those that stand are in a new part, as they were; nothing of the old ones is left."""
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


def test_a_kill_while_errors_are_tidied_loses_none(config: OutputConfig) -> None:
    """Old and new parts both there: the next run counts each once and leaves one line of each."""
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
    ("held", "wanted"), [(WHOLE, WHOLE), (WHOLE, Shard(0, 2)), (Shard(0, 2), WHOLE), (Shard(0, 2), Shard(1, 3))]
)
def test_these_exclude_each_other(config: OutputConfig, held: Shard, wanted: Shard) -> None:
    """The second is told who holds it, and gets it when the first is through."""
    with opened(config, shard=held), pytest.raises(TryLaterError, match=r"another run holds.*run_id r"):
        opened(config, shard=wanted)
    opened(config, shard=wanted).close()


def test_shards_of_one_count_go_side_by_side(config: OutputConfig) -> None:
    """Each writes parts of its own name, knows its own ids, and a whole reader knows all."""
    mine = next(name for name in map(str, range(99)) if Shard(0, 2).owns(name))
    theirs = next(name for name in map(str, range(99)) if Shard(1, 2).owns(name))
    with opened(config, shard=Shard(0, 2)) as one, opened(config, shard=Shard(1, 2)) as other:
        one.write(result(mine))
        other.write(result(theirs))
    assert keys(config, "results") == [f"results/000001-0000{index}-of-00002-000000.jsonl" for index in (0, 1)]
    assert scan(config, shard=Shard(0, 2)).counts()["done"] == 1
    assert scan(config).counts()["done"] == 2


def test_of_many_that_start_at_once_one_gets_it(config: OutputConfig) -> None:
    """Sixteen runs, one winner, and the others say who won."""
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


def test_a_holder_that_was_asleep_stops_and_writes_nothing(config: OutputConfig) -> None:
    """Another run took its lease over; what it still had in memory is not written."""
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


def test_a_lease_that_is_renewed_is_not_taken_over(config: OutputConfig) -> None:
    """However long the other waits."""
    clock, waiting = Clock(), Clock()
    with opened(config, clock=clock) as output:

        def wait(seconds: float) -> bool:
            clock.now += 6
            output.backend._allowed()  # type: ignore[attr-defined]
            return waiting.wait(seconds)

        with pytest.raises(TryLaterError, match="another run holds"):
            Output.open(
                config, agent="extractor", shard=None, lock_wait_s=3 * LEASE_S, run_id="x", wait=wait, clock=waiting
            )
        output.write(result("a"))
    assert ids(config) == ["a"]


def test_a_long_wait_for_a_lease_names_the_holder_and_slows_down(
    config: OutputConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A line a minute; after the first minute a poll takes 5 to 10 s, so that hours of waiting cost little."""
    caplog.set_level("INFO", logger="pipeline")
    clock, waiting, polls = Clock(), Clock(), list[float]()
    with opened(config, clock=clock) as output:

        def wait(seconds: float) -> bool:
            polls.append(seconds)
            clock.now += max(6.0, seconds)
            output.backend._allowed()  # type: ignore[attr-defined]
            return waiting.wait(max(6.0, seconds))

        with pytest.raises(TryLaterError, match=r"run_id r, .*waited 600 s"):
            Output.open(config, agent="extractor", shard=None, lock_wait_s=600, run_id="x", wait=wait, clock=waiting)
    assert all(0.5 <= seconds <= 1 for seconds in polls[:10])
    assert all(5 <= seconds <= 10 for seconds in polls[11:-1])
    said = [record for record in caplog.records if record.getMessage() == "Waiting for the output"]
    assert 9 <= len(said) <= 11
    assert all("run_id r" in vars(record)["holder"] for record in said)


def test_two_writers_of_one_part_name_do_not_both_write_it(config: OutputConfig) -> None:
    """The second, which has the same run number by whatever mischance, is told and has written nothing."""
    one, other = opened(config), opened(config, **WAITS)
    assert one.stamp.run == other.stamp.run
    other.write(result("b"))
    other.backend.sync()
    one.write(result("a"))
    with pytest.raises(OutputError, match="another run has taken"):
        one.backend.sync()
    assert ids(config) == ["b"]
    other.close()


def test_another_agent_is_refused(config: OutputConfig) -> None:
    """Exit 2, and the lock is free again."""
    with opened(config) as output:
        output.write(result("a"))
    with pytest.raises(ConfigError, match=r"'event_classifier'.*'extractor'"):
        opened(config, agent="event_classifier")
    opened(config).close()


def change_key(config: OutputConfig, **storage: object) -> OutputConfig:
    """The same output by other options."""
    return OutputConfig(config.uri, storage={**config.storage, **storage})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda config: OutputConfig("s3://no-such-bucket/out", storage=config.storage), "no-such-bucket"),
        (lambda config: change_key(config, secret_access_key="wrong"), "refused"),
        (lambda config: change_key(config, access_key_id="reader-key", secret_access_key="reader-secret"), "refused"),
    ],
)
def test_what_a_person_must_change_is_a_configuration_error(
    config: OutputConfig, make: Callable[[OutputConfig], OutputConfig], said: str
) -> None:
    """No bucket, a wrong key, a key that may not write: exit 2, naming the setting, without the key."""
    with pytest.raises(ConfigError, match=said) as error:
        opened(make(config))
    assert "output.storage" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_store_that_does_not_answer_is_for_later(config: OutputConfig) -> None:
    """Exit 3, in bounded time."""
    with pytest.raises(OutputError, match="request to the store failed"):
        opened(change_key(config, endpoint="http://127.0.0.1:9", retry_for_s=0))


def test_a_line_that_is_too_long_is_neither_written_nor_passed_over(config: OutputConfig) -> None:
    """A part holds what a local file may: garbage without end is skipped, what may be a record is refused."""
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

"""An output store that is unavailable for a while: no record is lost, and two runs never write at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Place, line_with
from s3_faults import FaultProxy
from s3_server import S3Server
from test_output import result
from test_remote_output import Clock, configured, ids

from pipeline.config import OutputConfig
from pipeline.errors import OutputError, TryLaterError
from pipeline.output import Output
from pipeline.output.lease import LEASE_S
from pipeline.stores import RemoteStore

TROUBLE = ("expired_token", "forbidden", "slow_down", "internal_error", "no_bucket", "reset")


class Away:
    """An output in a store behind a proxy, with direct access for checks."""

    def __init__(self, place: Place, server: S3Server, bucket: str, proxy: FaultProxy) -> None:
        """Configure parts of two records and short retries of the store's client."""
        self.place, self.proxy, self.uri = place, proxy, f"s3://{bucket}/out"
        keys = {"access_key_id": "test-key", "secret_access_key": "test-secret", "region": "us-east-1"}
        self.direct = {"endpoint": server.endpoint, **keys}
        self.settings: dict[str, Any] = {
            "output.uri": self.uri,
            "output.part_bytes": 1500,
            "output.storage": {"endpoint": proxy.endpoint, **keys, "retry_for_s": 0},
        }
        place.configure(self.settings)
        self.store = RemoteStore.open(self.uri, storage=self.direct)

    def done(self) -> Counter[str]:
        """Return the number of result lines of each document."""
        parts = [entry.key for entry in self.store.list("results")]
        return Counter(json.loads(line)["id"] for key in parts for line in self.store.get(key).splitlines())


@pytest.fixture
def away(place: Place, s3: S3Server, bucket: str) -> Iterator[Away]:
    """Yield a new output."""
    with FaultProxy(s3.port) as proxy:
        yield Away(place, s3, bucket, proxy)


@pytest.mark.parametrize("fault", TROUBLE)
def test_run_waits_for_a_failing_output_store(away: Away, fault: str) -> None:
    """Few more requests are sent, one warning is logged, and at the end each document has one line."""
    place = away.place
    names = place.documents(40)
    place.server.latency_s = 0.05
    child = place.start("run")
    place.wait_for(lambda: len(away.done()) >= 4, "four results in parts")
    away.proxy.fault = fault
    line_with(child, "The output is not available; retrying for up to 3600 s")
    away.proxy.fault = None
    ran = child.end()
    assert ran.code == 0, ran.err
    assert "not available" not in ran.err
    assert away.done() == dict.fromkeys(names, 1)
    assert sorted(place.sent_documents()) == names


@pytest.mark.slow
def test_lasting_output_store_failure_is_exit_3(away: Away) -> None:
    """No document fails; documents in no part are left for the next run."""
    place = away.place
    names = place.documents(40)
    place.server.latency_s = 0.05
    child = place.start("run", "--set", "runner.max_outage_s=2")
    place.wait_for(lambda: len(away.done()) >= 4, "four results in parts")
    away.proxy.fault = "expired_token"
    ran = child.end()
    assert ran.code == 3, ran.err
    assert "(runner.max_outage_s)" in ran.err and "Traceback" not in ran.err
    assert ran.err.count(" ERROR ") == 1, "one story, told once"
    assert "0 failed" in ran.out or "failed" not in ran.out
    assert len(place.sent_documents()) < 40
    away.proxy.fault = None
    safe = away.done()
    place.run("--set", "runner.lock_wait_s=60")
    assert sorted(place.sent_documents()) == sorted(set(names) - set(safe))
    assert away.done() == dict.fromkeys(names, 1)


def test_end_of_a_run_waits_for_the_output_store(away: Away) -> None:
    """All answers are there, and their records are kept until the store is back."""
    place = away.place
    names = place.documents(6)
    place.configure({**away.settings, "output.part_bytes": 1 << 26})
    away.proxy.wanted = lambda method, target, _: method == "PUT" and "results" in target
    away.proxy.fault = "slow_down"
    child = place.start("run")
    line_with(child, "The output is not available")
    assert away.done() == {}
    away.proxy.fault = None
    ran = child.end()
    assert ran.code == 0, ran.err
    assert away.done() == dict.fromkeys(names, 1)


def test_signal_ends_the_wait_for_a_store(away: Away) -> None:
    """The run ends within `grace_s`; documents in no part are left for the next run."""
    place = away.place
    names = place.documents(6)
    place.configure({**away.settings, "output.part_bytes": 1 << 26, "runner.grace_s": 1})
    away.proxy.wanted = lambda method, target, _: method == "PUT" and "results" in target
    away.proxy.fault = "slow_down"
    child = place.start("run")
    line_with(child, "The output is not available")
    ran = child.end(15)
    assert ran.code == 143, ran.err
    away.proxy.fault = None
    place.run("--set", "runner.lock_wait_s=60")
    assert away.done() == dict.fromkeys(names, 1)


def test_run_waits_for_an_unreachable_store_at_the_start(away: Away) -> None:
    """It waits up to `max_outage_s`; refused credentials at a first start are exit 2 at once."""
    place = away.place
    names = place.documents(3)
    away.proxy.fault = "reset"
    child = place.start("run")
    line_with(child, "The output is not available")
    away.proxy.fault = None
    assert child.end().code == 0
    assert away.done() == dict.fromkeys(names, 1)
    away.proxy.fault = "reset"
    assert place.call("run", "--set", "runner.max_outage_s=1").code == 3
    away.proxy.fault = "expired_token"
    assert place.call("run").code == 2


@pytest.mark.slow
def test_holder_cut_off_beyond_its_lease_writes_no_more(away: Away) -> None:
    """Another run on another machine takes over; when the store is back, the first run exits with 3."""
    place = away.place
    names = place.documents(30)
    place.server.latency_s = 0.05
    first = place.start("run")
    place.wait_for(lambda: len(away.done()) >= 4, "four results in parts")
    away.proxy.fault = "reset"
    line_with(first, "The output is not available")
    before = [entry.key for entry in away.store.list("results")]
    place.configure({**away.settings, "output.storage": away.direct, "runner.lock_wait_s": 2 * LEASE_S})
    assert place.call("run").code == 0
    after = {entry.key: entry.etag for entry in away.store.list()}
    away.proxy.fault = None
    ran = first.end()
    assert ran.code == 3, ran.err
    assert "lost to another run" in ran.err
    assert {entry.key: entry.etag for entry in away.store.list()} == after
    assert {key for key in after if key.startswith("results/000001")} == set(before)
    assert away.done() == dict.fromkeys(names, 1)


@pytest.mark.slow
def test_holder_resumes_after_a_store_outage_longer_than_its_lease(away: Away) -> None:
    """No other run could take over meanwhile, and a waiting second run gives way."""
    place = away.place
    names = place.documents(30)
    place.server.latency_s = 0.05
    first = place.start("run")
    place.wait_for(lambda: len(away.done()) >= 4, "four results in parts")
    away.proxy.fault = "slow_down"
    line_with(first, "The output is not available")
    assert place.call("run", "--set", f"runner.max_outage_s={LEASE_S + 1}").code == 3
    away.proxy.fault = None
    ran = first.end()
    assert ran.code == 0, ran.err
    assert away.done() == dict.fromkeys(names, 1)


def opened(config: OutputConfig, clock: Clock) -> Output:
    """Open an output that waits for its store for 100 s by this clock."""
    return Output.open(
        config,
        agent="extractor",
        shard=None,
        lock_wait_s=0,
        run_id="r",
        wait=clock.wait,
        clock=clock,
        max_outage_s=100,
    )


def test_lost_reply_to_a_renewal_does_not_lose_the_lease(s3: S3Server, bucket: str) -> None:
    """The store has accepted the renewal, and refuses the repeated one."""
    clock = Clock()
    with FaultProxy(s3.port) as proxy:
        direct = configured(s3, bucket, part_bytes=800)
        config = OutputConfig(direct.uri, storage={**direct.storage, "endpoint": proxy.endpoint, "retry_for_s": 0})
        with opened(config, clock) as output:
            lease = output.backend._lease  # type: ignore[attr-defined]
            proxy.fault = "lost_reply"
            for _ in range(3):
                clock.now += 6
                with pytest.raises(OutputError, match="request to the store failed"):
                    lease.check()
            proxy.fault = None
            lease.check()
            output.write(result("a"))
    assert ids(direct) == ["a"]


def test_no_part_is_written_while_the_lease_cannot_be_renewed(s3: S3Server, bucket: str) -> None:
    """Parts could be stored, but another run may hold the output by now."""
    clock = Clock()
    with FaultProxy(s3.port, wanted=lambda _, target, __: ".lock" in target) as proxy:
        direct = configured(s3, bucket, part_bytes=800)
        config = OutputConfig(direct.uri, storage={**direct.storage, "endpoint": proxy.endpoint, "retry_for_s": 0})
        output = opened(config, clock)
        output.write(result("a"))
        proxy.fault = "slow_down"
        clock.now += LEASE_S
        with pytest.raises(OutputError, match=r"waited 1\d\d s \(runner.max_outage_s\)"):
            output.finish()
        assert output.unwritten == (1, 0)
        proxy.fault = None
        with pytest.raises(TryLaterError):
            output.backend.sync()
        output.close()
        assert ids(direct) == []

"""Outputs in stores that cannot decide conditional writes, or let nothing be deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from conftest import Place
from s3_faults import FaultProxy
from s3_server import S3Server


@pytest.fixture
def proxy(place: Place, s3: S3Server, bucket: str) -> Iterator[FaultProxy]:
    """The store of an output that nobody has used, behind a proxy."""
    with FaultProxy(s3.port) as proxy:
        place.env.update({**s3.env, "AWS_ENDPOINT_URL": proxy.endpoint})
        place.configure({"output.uri": f"s3://{bucket}/out"})
        place.documents(3)
        yield proxy


def is_conditional(method: str, target: str, _key: str) -> bool:
    """True for the writes that locks and probes are made of."""
    return method == "PUT" and "/.lock" in target


@pytest.mark.parametrize("fault", ["not_implemented", "ignore_conditions"])
def test_a_store_without_conditional_writes_is_exit_2_at_once(place: Place, proxy: FaultProxy, fault: str) -> None:
    """Two runs would both write; `check` says so as well, before the first run."""
    proxy.wanted, proxy.fault = is_conditional, fault
    begun = time.monotonic()
    ran = place.call("run")
    assert (ran.code, place.asked()) == (2, []), ran.err
    assert "conditional writes" in ran.err
    checked = place.call("check")
    assert (checked.code, "FAILED  output" in checked.out) == (2, True), checked.out
    assert time.monotonic() - begun < 100


def test_a_store_that_decides_conditions_passes_the_check(place: Place, proxy: FaultProxy) -> None:
    """Also the second time, when the probe's object is there."""
    for _ in range(2):
        checked = place.call("check")
        assert (checked.code, "OK      output" in checked.out) == (0, True), checked.out
    assert proxy.count("PUT", ".lock-probe") > 0


@pytest.mark.parametrize("fault", ["delete_denied", "forbidden"])
def test_without_the_permission_to_delete_a_run_goes_on(place: Place, proxy: FaultProxy, fault: str) -> None:
    """Settled errors stay where they are, which a warning says; the records are right."""
    place.documents({"bad.txt": "[[fault:http_400]]"})
    place.call("run", "--set", "runner.max_error_rate=1")
    place.change("bad.txt", "Repaired.")
    proxy.wanted, proxy.fault = lambda method, target, _key: method == "POST" and "delete" in target, fault
    ran = place.run()
    assert "allow DELETE" in ran.err
    assert place.run().code == 0

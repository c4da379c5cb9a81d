"""Outputs in stores that ignore conditional writes or forbid deletion."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from conftest import Place
from s3_faults import FaultProxy
from s3_server import S3Server


@pytest.fixture
def proxy(place: Place, s3: S3Server, bucket: str) -> Iterator[FaultProxy]:
    """Yield a proxy in front of the store of a new output."""
    with FaultProxy(s3.port) as proxy:
        place.env.update({**s3.env, "AWS_ENDPOINT_URL": proxy.endpoint})
        place.configure({"output.uri": f"s3://{bucket}/out"})
        place.documents(3)
        yield proxy


def is_conditional(method: str, target: str, _key: str) -> bool:
    """Return whether a request is a conditional write of a lock or probe."""
    return method == "PUT" and "/.lock" in target


@pytest.mark.parametrize("fault", ["not_implemented", "ignore_conditions"])
def test_store_without_conditional_writes_is_exit_2(place: Place, proxy: FaultProxy, fault: str) -> None:
    """Two runs could both write; `check` reports it before the first run."""
    proxy.wanted, proxy.fault = is_conditional, fault
    begun = time.monotonic()
    ran = place.call("run")
    assert (ran.code, place.sent_documents()) == (2, []), ran.err
    assert "conditional writes" in ran.err
    checked = place.call("check")
    assert (checked.code, "FAILED  output" in checked.out) == (2, True), checked.out
    assert time.monotonic() - begun < 100


def test_store_with_conditional_writes_passes_check(place: Place, proxy: FaultProxy) -> None:
    """It also passes the second time, when the probe object exists."""
    for _ in range(2):
        checked = place.call("check")
        assert (checked.code, "OK      output" in checked.out) == (0, True), checked.out
    assert proxy.count("PUT", ".lock-probe") > 0


@pytest.mark.parametrize("fault", ["delete_denied", "forbidden"])
def test_store_that_forbids_deletion_is_only_a_warning(place: Place, proxy: FaultProxy, fault: str) -> None:
    """Outdated errors stay in the store, and the records are correct."""
    place.documents({"bad.txt": "[[fault:http_400]]"})
    place.call("run", "--set", "runner.max_error_rate=1")
    place.change("bad.txt", "Repaired.")
    proxy.wanted, proxy.fault = lambda method, target, _key: method == "POST" and "delete" in target, fault
    ran = place.run()
    assert "allow DELETE" in ran.err
    assert place.run().code == 0

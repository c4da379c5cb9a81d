"""The end of a run: no document waits for a batch to fill or for a slow document."""

from __future__ import annotations

import signal

import pytest
from conftest import Place


@pytest.mark.parametrize("concurrency", [2, "auto"])
def test_hanging_document_delays_no_other(place: Place, concurrency: object) -> None:
    """All other documents are done while it is still in flight."""
    place.configure({"runner.concurrency": concurrency, "runner.grace_s": 0, "vllm.timeout": 300})
    names = place.documents(30)
    place.change(names[0], "[[fault:hang]]")
    child = place.start("run")
    place.wait_for_results(29)
    assert place.done().keys() == set(names[1:])
    assert child.end(signal.SIGTERM).code == 143

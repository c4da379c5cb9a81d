"""The end of a run: nothing waits for a batch to fill, and a slow document holds up nothing but itself."""

from __future__ import annotations

import signal

import pytest
from conftest import Place


@pytest.mark.parametrize("concurrency", [2, "auto"])
def test_a_document_that_hangs_holds_up_no_other(place: Place, concurrency: object) -> None:
    """All others are done while it is still in flight, the last ones too."""
    place.configure({"runner.concurrency": concurrency, "runner.grace_s": 0, "vllm.timeout": 300})
    names = place.documents(30)
    place.change(names[0], "[[fault:hang]]")
    child = place.start("run")
    place.wait_for_results(29)
    assert place.done().keys() == set(names[1:])
    assert child.end(signal.SIGTERM).code == 143

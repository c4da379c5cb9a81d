"""Two runs on one output at the same time, of which one must give way."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from conftest import Place


def assert_one_run_gives_way(place: Place, one_run_ended: threading.Event) -> None:
    """Start two runs and set the event when one has ended; it must exit with 3 and name the other, which completes."""
    both = [place.start("run", "--run-id", f"rival-{number}") for number in range(2)]
    with ThreadPoolExecutor(2) as threads:
        ends = [threads.submit(child.end) for child in both]
        wait(ends, return_when=FIRST_COMPLETED)
        one_run_ended.set()
        ran = [end.result() for end in ends]
    assert sorted(outcome.code for outcome in ran) == [0, 3], [outcome.err for outcome in ran]
    loser = next(number for number in range(2) if ran[number].code == 3)
    assert f"rival-{1 - loser}" in ran[loser].err

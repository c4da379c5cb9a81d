"""A slow library is stopped after its share of a document's CPU time, and the visible text is read instead."""

from __future__ import annotations

import signal

import pytest

from pipeline.config.limits import InputLimits
from pipeline.documents.helpers.cpu_share import OverShareError, cpu_share
from pipeline.documents.helpers.pool import POOL


def test_block_ends_at_its_share_of_the_cpu_time() -> None:
    """The share is taken from the remaining CPU time, and the timer is off after the block."""
    signal.setitimer(signal.ITIMER_PROF, 60)
    try:
        with pytest.raises(OverShareError), cpu_share(0.001):
            while True:
                pass
        assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def test_no_timer_without_a_cpu_limit() -> None:
    """Outside a helper process no timer is set."""
    with cpu_share(0.5):
        assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0


def test_large_ordinary_page_is_read() -> None:
    """Finding its main text takes over half of the limit, so the whole visible text is read in the rest."""
    words = "The company said on Monday that profit rose, and the board proposed a dividend. " * 6
    body = "".join(f"<p>{words}<a href=/x{n}>note {n}</a> <b>bold</b></p>" for n in range(4_000))
    page = f"<html><head><title>Annual report</title></head><body><nav>Home</nav>{body}</body></html>"
    decoded = POOL.decode("html", page.encode(), text_field="text", limits=InputLimits(cpu_s=3))
    assert "note 3999" in decoded.text
    assert decoded.metadata["title"] == "Annual report"

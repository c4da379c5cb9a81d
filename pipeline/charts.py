"""Numbers over time as a small inline SVG: readable lines instead of a charting library.

It must not contain a script, a colour or a size of its own: the page's style sheet gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 320, 120, 44, 18, 8


def series_chart(title: str, values: Sequence[float | None], *, bucket_s: float, tone: str) -> str:
    """A figure with one bar for each bucket of time, of `bucket_s` seconds; None leaves a gap."""
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    inner_width, inner_height = _WIDTH - _LEFT - 4, _HEIGHT - _TOP - _BOTTOM
    step = inner_width / max(len(values), 1)
    bars = "".join(
        _bar(_LEFT + at * step, step, (value / most) * inner_height)
        for at, value in enumerate(values)
        if value is not None and value > 0
    )
    base = _HEIGHT - _BOTTOM
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}, at most {_number(most)}">'
        f'<path class="axis" d="M{_LEFT} {_TOP}V{base}H{_WIDTH - 4}"/><g class="{escape(tone)}">{bars}</g>'
        f'<text x="{_LEFT - 5}" y="{_TOP + 8}" text-anchor="end">{_number(most)}</text>'
        f'<text x="{_LEFT - 5}" y="{base}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 4}">start</text>'
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT - 4}" text-anchor="end">{_time(len(values) * bucket_s)}</text>'
        "</svg></figure>"
    )


def _bar(x: float, width: float, height: float) -> str:
    y = _HEIGHT - _BOTTOM - height
    gap = 0.5 if width > 2 else 0.0
    return f'<rect x="{x + gap:.1f}" y="{y:.1f}" width="{width - 2 * gap:.2f}" height="{height:.1f}"/>'


def _number(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

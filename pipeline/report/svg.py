"""Bar charts over time as small inline SVGs.

They must not contain scripts, colours or sizes: the page's style sheet sets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pipeline.logs import visible

_WIDTH = 360
_HEIGHT = 120
_LEFT = 38
_BOTTOM = 16
_TOP = 6
_BASE = _HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one colour in a chart, one per time span; None where there is no value."""

    name: str
    values: Sequence[float | None]
    tone: str


def chart(title: str, series: Sequence[Series], *, spans: int, bucket_s: float) -> str:
    """Return a figure with one stacked bar per span of `bucket_s` seconds."""
    stacks = [[_at(one, at) for one in series] for at in range(spans)]
    most = max(map(sum, stacks), default=0.0) or 1.0
    step = (_WIDTH - _LEFT - 4) / max(spans, 1)
    bars = "".join(_bars(series, at, stacks=stacks, step=step, most=most) for at in range(len(series)))
    shown = escape(visible(title))
    return (
        f"<figure><figcaption>{shown}{_legend(series)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{shown}, at most {_number(most)}">'
        f"<title>{shown}, at most {_number(most)}</title>"
        f'<path class="axis" d="M{_LEFT} {_TOP}V{_BASE}H{_WIDTH - 4}"/>{bars}'
        f'<text x="{_LEFT - 5}" y="{_TOP + 8}" text-anchor="end">{_number(most)}</text>'
        f'<text x="{_LEFT - 5}" y="{_BASE}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 3}">start</text>'
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT - 3}" text-anchor="end">{_time(spans * bucket_s)}</text>'
        f"</svg>{_data(series, spans=spans, bucket_s=bucket_s)}</figure>"
    )


def _data(series: Sequence[Series], *, spans: int, bucket_s: float) -> str:
    """Return the values of the chart as a table, closed until somebody opens it."""
    head = "".join(f"<th>{escape(visible(one.name))}</th>" for one in series)
    rows = "".join(
        f"<tr><td>{_time(at * bucket_s)}</td>"
        + "".join(f"<td>{_number(_at(one, at))}</td>" for one in series)
        + "</tr>"
        for at in range(spans)
    )
    return (
        "<details><summary>values</summary><div class=wide><table>"
        f"<thead><tr><th>from</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _at(series: Series, at: int) -> float:
    if at >= len(series.values):
        return 0.0
    return series.values[at] or 0.0


def _bars(series: Sequence[Series], index: int, *, stacks: list[list[float]], step: float, most: float) -> str:
    """Return one series as an SVG group, each bar on top of those of the series before."""
    scale = (_BASE - _TOP) / most
    gap = 0.5 if step > 2 else 0.0
    drawn = []
    for at, stack in enumerate(stacks):
        if stack[index] > 0:
            height = stack[index] * scale
            top = _BASE - sum(stack[: index + 1]) * scale
            x = _LEFT + at * step + gap
            width = step - 2 * gap
            drawn.append(f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.2f}" height="{height:.1f}"/>')
    return f'<g class="{escape(series[index].tone)}">{"".join(drawn)}</g>'


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    return "".join(f'<span class="key {escape(one.tone)}">{escape(visible(one.name))}</span>' for one in series)


def _number(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""Charts as values: the positions of their bars and points, their labels, and the table of their values.

It must not write markup or know a colour: the page adds both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 360
HEIGHT = 120
LEFT = 38
TOP = 6
BASE = HEIGHT - 16
RIGHT = WIDTH - 4
_WIDEST_BAR = 24.0


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one series in a chart, one per position; None where there is no value."""

    name: str
    values: Sequence[float | None]
    tone: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar in the units of the chart, as text; `label`: its meaning, "" for none."""

    x: str
    y: str
    width: str
    height: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class DrawnSeries:
    """The bars of a series, and its values as text."""

    name: str
    tone: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class BarChart:
    """Stacked bars. `most`: the value at the top. `ends`: below the first and the last bar. `rows`: label, values."""

    title: str
    most: str
    series: tuple[DrawnSeries, ...]
    ends: tuple[str, str]
    position: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A point with its interval, in the units of the chart; `tone` distinguishes the newest from earlier ones."""

    x: str
    y: str
    low: str
    high: str
    tone: str
    label: str


@dataclass(frozen=True, slots=True)
class PointChart:
    """Points between 0 and 1 over another quantity; `right`: the value at the right end of the axis."""

    title: str
    over: str
    right: str
    points: tuple[Point, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def timeline_chart(title: str, series: Sequence[Series], *, spans: int, bucket_s: float) -> BarChart:
    """Return a chart with one stacked bar per span of `bucket_s` seconds."""
    labels = [time_text(at * bucket_s) for at in range(spans)]
    ends = ("start", time_text(spans * bucket_s))
    step = (RIGHT - LEFT) / max(spans, 1)
    return _bars(title, series, labels=labels, ends=ends, position="from", step=step)


def run_chart(title: str, series: Sequence[Series], *, labels: Sequence[str]) -> BarChart:
    """Return a chart with one stacked bar per run, the newest at the right."""
    step = (RIGHT - LEFT) / max(len(labels), 1)
    run_names = [f"run {label}" for label in labels]
    return _bars(
        title, series, labels=run_names, ends=(run_names[0], run_names[-1]), position="run", step=step, named=True
    )


def _bars(
    title: str,
    series: Sequence[Series],
    *,
    labels: Sequence[str],
    ends: tuple[str, str],
    position: str,
    step: float,
    named: bool = False,
) -> BarChart:
    stacks = [[_value_at(row, at) for row in series] for at in range(len(labels))]
    most = max(map(sum, stacks), default=0.0) or 1.0
    scale = (BASE - TOP) / most
    gap = 0.5 if step > 2 else 0.0
    if named:
        gap = max(gap, (step - _WIDEST_BAR) / 2)
    drawn = []
    for index, row in enumerate(series):
        bars = [
            Bar(
                x=f"{LEFT + at * step + gap:.1f}",
                y=f"{BASE - sum(stack[: index + 1]) * scale:.1f}",
                width=f"{step - 2 * gap:.2f}",
                height=f"{stack[index] * scale:.1f}",
                label=f"{labels[at]}: {number_text(stack[index])} {row.name}" if named else "",
            )
            for at, stack in enumerate(stacks)
            if stack[index] > 0
        ]
        drawn.append(DrawnSeries(row.name, row.tone, tuple(bars)))
    rows = tuple((label, *map(number_text, stacks[at])) for at, label in enumerate(labels))
    return BarChart(title, number_text(most), tuple(drawn), ends, position, rows)


@dataclass(frozen=True, slots=True)
class Placed:
    """A value between 0 and 1 with its interval, over `x`."""

    label: str
    x: float
    value: float
    low: float
    high: float


def point_chart(title: str, placed: Sequence[Placed], *, over: str) -> PointChart:
    """Return a chart with one point and interval per value; the last one is the newest."""
    right = max((point.x for point in placed), default=0.0) * 1.1 or 1.0
    points = [
        Point(
            x=f"{LEFT + point.x / right * (RIGHT - LEFT):.1f}",
            y=_height(point.value),
            low=_height(point.low),
            high=_height(point.high),
            tone="ok" if point is placed[-1] else "r5",
            label=f"{point.label}: {point.value:.2f} ({point.low:.2f} to {point.high:.2f}) at {number_text(point.x)}",
        )
        for point in placed
    ]
    rows = tuple(
        (point.label, number_text(point.x), f"{point.value:.2f}", f"{point.low:.2f} to {point.high:.2f}")
        for point in placed
    )
    head = ("run", over, "F1", "95 % interval")
    return PointChart(title, over, number_text(right), tuple(points), head, tuple(rows))


def _height(value: float) -> str:
    return f"{BASE - value * (BASE - TOP):.1f}"


def _value_at(series: Series, at: int) -> float:
    if at >= len(series.values):
        return 0.0
    return series.values[at] or 0.0


def number_text(value: float) -> str:
    """Return a number in at most five characters: `0.25`, `120`, `34.8k`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def time_text(seconds: float) -> str:
    """Return `90 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

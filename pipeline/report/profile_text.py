"""The profile of the values as a few lines of text: filled fields, their values, and the drift."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.logs import visible
from pipeline.report.contents import Report
from pipeline.report.profiled import MovedShare, Movement, Profile, ProfiledField, ProfiledVariant, Span, ValueShare
from pipeline.terminal import YELLOW, cut, grouped, in_colour, labelled, paragraph, percent_text, plural

SHOWN_VALUES = 3
_LABEL_COLUMNS = 16
_BROKEN_WORD = 12
"""Columns that a line may leave free, as it ends before a word that does not fit."""


def profile_lines(report: Report, *, colour: bool, width: int) -> list[str]:
    """Return a heading and the lines of three labels; none for an output without a profile."""
    profile = report.profile
    if not profile.documents:
        return []
    fields = profile.fields
    rows = {
        "filled": _join(_filled(fields), width),
        "values": _join(_values(fields), width, lines=2),
        "moved": _movement_text(profile.against, width),
    }
    lines = [line for label, text in rows.items() for line in labelled(label, text, indent=2, width=width)]
    if profile.against and profile.against.moved:
        lines[-1] = in_colour(lines[-1], YELLOW, colour=colour)
    repetition_note = "" if profile.exact else ", including earlier results of repeated documents"
    heading = f"Values of {plural(profile.documents, 'result')}{repetition_note}"
    return [*paragraph(heading, width=width), *lines]


def _join(parts: Iterable[str], width: int, *, lines: int = 1) -> str:
    """Return as many parts as fit on some lines, which end between words."""
    return fitting(parts, lines * (width - _LABEL_COLUMNS) - lines * _BROKEN_WORD + _BROKEN_WORD - 3)


def fitting(parts: Iterable[str], room: int) -> str:
    """Return as many whole parts as fit into this number of columns."""
    line = ""
    for part in parts:
        longer = f"{line}; {part}" if line else _shortened(part, room)
        if len(longer) > room:
            return line if line.endswith("…") else f"{line}; …"
        line = longer
    return line


def _shortened(part: str, room: int) -> str:
    """Return a part that fits into this number of columns: without its last values, else cut in its middle."""
    if len(part) <= room:
        return part
    end = part.rfind(", ", 0, room - 1)
    return f"{part[:end]}, …" if end > 0 else cut(part, room)


def _filled(fields: Mapping[str, ProfiledField]) -> Iterator[str]:
    """Yield the shares of filled fields, the least first."""
    ordered = sorted(fields.items(), key=lambda item: item[1].filled)
    if all(row.filled == 1 for _, row in ordered):
        yield f"all of {plural(len(ordered), 'field')} in each result"
        return
    for name, row in ordered:
        yield f"{visible(name)} {share_text(row.filled)}"


def _values(fields: Mapping[str, ProfiledField]) -> Iterator[str]:
    """Yield the fields of numbers and dates, then those of few values, the least varied first; no free text."""
    ranges = [(name, row.dates) for name, row in fields.items() if row.dates is not None]
    ranges += [(name, row.numbers) for name, row in fields.items() if row.numbers is not None]
    for name, part in ranges:
        yield f"{visible(name)} {range_text(part)}"
    done = {name for name, _ in ranges}
    listed = {name: [value for value in row.values if value.value is not None] for name, row in fields.items()}
    frequent = [(name, values) for name, values in listed.items() if name not in done and values]
    for name, values in sorted(frequent, key=lambda item: -item[1][0].share):
        yield f"{visible(name)} {_most_frequent(values)}"


def _most_frequent(values: Sequence[ValueShare]) -> str:
    """Return the most frequent values with their shares."""
    return ", ".join(f"{value_text(value)} {share_text(value.share)}" for value in values[:SHOWN_VALUES])


def field_lines(profile: Profile | ProfiledVariant, *, width: int, variant: str = "") -> Iterator[str]:
    """Yield a heading and a line for each field: filled, distinct values, the most frequent, ranges."""
    of_variant = f" of variant {visible(variant)}" if variant else ""
    yield f"{plural(profile.documents, 'result')}{of_variant}"
    names = [visible(name) for name in profile.fields]
    column = min(max(map(len, names), default=0), 30)
    for name, row in zip(names, profile.fields.values(), strict=True):
        parts = [f"{grouped(row.distinct)} distinct"] if row.distinct else []
        parts += [_most_frequent(row.values)]
        parts += [range_text(part) for part in (row.numbers, row.dates) if part is not None]
        sizes = ((row.lengths, "characters"), (row.items, "items"))
        parts += [_range_text(part, unit) for part, unit in sizes if part is not None]
        head = f"  {cut(name, column):<{column}}  filled {share_text(row.filled):>5}  "
        yield (head + fitting(filter(None, parts), max(width - len(head) - 3, 0))).rstrip()


def _range_text(part: Span, unit: str) -> str:
    """Return `3 to 90, median 12 characters`."""
    is_singular = part.least == part.greatest == 1
    return f"{range_text(part)} {unit.removesuffix('s') if is_singular else unit}"


def _movement_text(against: Movement | None, width: int) -> str:
    if against is None or not against.compared:
        return "no earlier run with enough results to compare with"
    runs = ", ".join(map(str, sorted(set(against.runs))[:3]))
    other_runs = f"run {runs} ({plural(against.documents_before, 'result')})"
    if not against.moved:
        return f"nothing against {other_runs}, of {plural(against.compared, 'share')} compared"
    text = _join(map(move_text, against.moved), width - len(other_runs) - 10)
    return f"{text} against {other_runs}"


def move_text(move: MovedShare) -> str:
    """Return `currency "USD" 31 % → 65 %`."""
    value = "filled" if move.what == "filled" else value_text(move)
    return f"{visible(move.field)} {value} {share_text(move.share_before)} → {share_text(move.share)}"


def value_text(row: ValueShare | MovedShare) -> str:
    """Return a value as text, or `(text)` for a text that may not be shown."""
    value = row.value
    if value is None:
        return "(text)"
    if isinstance(value, bool):
        return str(value).lower()
    return visible(value) if isinstance(value, str) else number_text(value)


def range_text(part: Span) -> str:
    """Return `3 to 9,100, median 12`; without the median where there is none."""
    least, greatest = number_text(part.least), number_text(part.greatest)
    if least == greatest:
        return least
    return f"{least} to {greatest}" + ("" if part.median is None else f", median {number_text(part.median)}")


def number_text(value: Any) -> str:
    """Return a number with its thousands grouped, or a date as it is."""
    if isinstance(value, int):
        return grouped(value) if abs(value) < 10**15 else f"{float(value):.4g}"
    return f"{value:,.6g}" if isinstance(value, float) else visible(str(value))


def share_text(share: float) -> str:
    """Return a share in percent; a share that is neither 0 nor 1 is never shown as one."""
    if 0 < share < 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else percent_text(share)

"""Facts about the windows of a document, from its record, for `errors --show`, `show` and `try`.

It must not read a file: it is given the lines of windows.jsonl.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.long.windows import Span
from pipeline.output.lines import parse
from pipeline.terminal import plural

_SHOWN_RANGES = 20


def answered_spans(lines: Iterable[bytes], record: Mapping[str, Any]) -> list[Span]:
    """Return the windows of a failed document that are answered, sorted: those of its bytes and its newest question."""
    records = (parse(line) for line in lines)
    own = [
        window for window in records if window and (window["id"], window["sha256"]) == (record["id"], record["sha256"])
    ]
    if not own:
        return []
    question = max(own, key=lambda window: str(window["finished_at"]))["question"]
    return sorted({Span(window["start"], window["end"]) for window in own if window["question"] == question})


def window_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts about the window that failed and the answered ones, or about the windows of a merged record."""
    if record.get("windows") is not None:
        return {"windows": _ledger_text(record["windows"]), "merge": _merge_text(record.get("merge") or {})}
    failed = record.get("window")
    if failed is None:
        return {}
    place = f"{failed['n']:,} of {failed['of']:,}, characters {failed['start']:,} to {failed['end']:,}"
    spans = [Span(*bounds) for bounds in record.get("answered_windows") or ()]
    number = len(spans) if spans else failed["answered"]
    ranges = [f"{start:,} to {end:,} ({plural(windows, 'window')})" for start, end, windows in _ranges(spans)]
    more_text = f" and {len(ranges) - _SHOWN_RANGES:,} more" if len(ranges) > _SHOWN_RANGES else ""
    where = f": characters {', '.join(ranges[:_SHOWN_RANGES])}{more_text}" if ranges else ""
    return {"failed window": place, "answered": f"{plural(number, 'window')}{where}"}


def _ranges(spans: Iterable[Span]) -> list[tuple[int, int, int]]:
    """Return the text that sorted windows cover: start, end and number of the windows of each contiguous range."""
    ranges: list[tuple[int, int, int]] = []
    for start, end in spans:
        if ranges and start <= ranges[-1][1]:
            first, last, windows = ranges.pop()
            ranges.append((first, max(last, end), windows + 1))
        else:
            ranges.append((start, end, 1))
    return ranges


def _ledger_text(ledger: Mapping[str, Any]) -> str:
    reused = f", {ledger['reused']:,} of them answered in an earlier run" if ledger["reused"] else ""
    return f"{len(ledger['rows']):,} over {ledger['chars']:,} characters{reused}"


def _merge_text(merge: Mapping[str, Any]) -> str:
    """Return how many values differed and how many items were left out; "" when there are none."""
    conflicts = merge.get("conflicts_total", 0)
    dropped_count = dropped_items(merge)
    parts = [f"{plural(conflicts, 'value')} differed"] if conflicts else []
    return ", ".join(parts + ([f"{plural(dropped_count, 'item')} left out"] if dropped_count else []))


def dropped_items(merge: Mapping[str, Any]) -> int:
    """Return how many items the merge of a record left out."""
    return sum(drop["given"] - drop["kept"] for drop in merge.get("dropped", ()))


def merge_lines(record: Mapping[str, Any]) -> list[str]:
    """Return a line for each conflict, dropped item and quote of a merged record."""
    merge = record.get("merge") or {}
    lines = []
    for conflict in merge.get("conflicts", ()):
        values = [conflict["taken"], *conflict["others"]]
        values_text = ", ".join(f"window {value['window']} has {value['value']!r}" for value in values)
        lines.append(f"conflict {conflict['path']} ({conflict['rule']}): {values_text}")
    if (unnamed_conflicts := merge.get("conflicts_total", 0) - len(merge.get("conflicts", ()))) > 0:
        lines.append(f"and {plural(unnamed_conflicts, 'conflict')} more")
    lines += [
        f"dropped {conflict['path']}: {conflict['kept']:,} of {conflict['given']:,} kept"
        for conflict in merge.get("dropped", ())
    ]
    for quote in record.get("evidence") or ():
        place = f"characters {quote['start']:,} to {quote['end']:,}"
        window = f", window {quote['window']}" if quote.get("window") else ""
        lines.append(f"evidence {quote['path']}: {place}{window}, {quote['match']}")
    return lines

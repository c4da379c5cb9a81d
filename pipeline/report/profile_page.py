"""The profile of the values on the report page: a table of all fields, one for each variant, and what moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.markup import Row, section, table, text
from pipeline.report.profile_text import move_text, range_text, share_text, value_text
from pipeline.terminal import plural

_HEAD = ("Field", "Filled", "Distinct", "Most frequent", "Numbers or dates", "Lengths", "Items")
_SHOWN_VALUES = 5


def profile_section(profile: Mapping[str, Any] | None) -> str:
    """Return the sections about values; "" for an output without a profile."""
    if not profile or not profile["documents"]:
        return ""
    about = f"Over {plural(profile['documents'], 'result')}"
    about += (
        "" if profile["exact"] else " (documents that were done again count each time; `pipeline report` reads all)"
    )
    against = profile["against"]
    moved = {} if against is None else {move["field"]: move for move in reversed(against["moved"])}
    tables = [table("Values of the results", _HEAD, _rows(profile["fields"], moved)), _moves(against)]
    variants = profile["variants"] if len(profile["variants"]) > 1 else {}
    tables += [table(f"Values of variant {name}", _HEAD, _rows(row["fields"], {})) for name, row in variants.items()]
    return f"{section('Values', f'<p>{text(about)}.</p>')}{''.join(tables)}"


def _rows(fields: Mapping[str, Any], moved: Mapping[str, Any]) -> Iterator[Row]:
    for name, row in fields.items():
        values = row["values"][:_SHOWN_VALUES]
        spread = row.get("dates") or row.get("numbers")
        yield (
            f"{name} (moved)" if name in moved else name,
            share_text(row["filled"]),
            row["distinct"] or None,
            ", ".join(f"{value_text(each)} {share_text(each['share'])}" for each in values) or None,
            range_text(spread) if spread else None,
            range_text(row["lengths"]) if "lengths" in row else None,
            range_text(row["items"]) if "items" in row else None,
        )


def _moves(against: Mapping[str, Any] | None) -> str:
    """Return what moved against the run before, by more than chance and by two points at least."""
    if against is None or not against["compared"]:
        return ""
    runs = ", ".join(map(str, sorted(set(against["runs"]))[:5]))
    title = f"Values that moved against run {runs}"
    if not against["moved"]:
        compared = plural(against["compared"], "share")
        return section(title, f"<p>None of {text(compared)} moved by more than chance.</p>")
    rows = [(move_text(move), f"{move['share'] - move['share_before']:+.0%}") for move in against["moved"]]
    return table(title, ("Share", "Change"), rows)

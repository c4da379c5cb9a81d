"""The profile of the values of an output: for each field how often it is filled, its values, numbers, dates, lengths.

Profiles of runs, variants and shards can be merged; a run's profile is stored as JSON. It contains no text of a
document but values that the schema lists; other texts are digests, unless `show_texts` was set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pipeline.values.profiled_fields import fields_of
from pipeline.values.sketches import Range, distinct_count, merged_hashes, merged_ranges, reduced

KEPT_VALUES = 32
DIGEST = "sha256:"
_RANGES = ("numbers", "dates", "lengths", "items")


@dataclass(frozen=True, slots=True)
class FieldProfile:
    """One field. Counts are of documents: a value that a document has twice counts once.

    `values`: label → documents; a label is a value as JSON text, or the digest of a text. `error`: by how much a count
    may be too small, and the largest count of a missing value. `items`: the lengths of lists.
    """

    documents: int
    filled: int
    values: Mapping[str, int]
    error: int
    hashes: tuple[int, ...]
    numbers: Range | None = None
    dates: Range | None = None
    lengths: Range | None = None
    items: Range | None = None

    @property
    def distinct(self) -> int:
        """The number of distinct values: an estimate for many, never more than the number of values."""
        counted = sum(part.count for part in (self.numbers, self.dates, self.lengths) if part is not None)
        return min(distinct_count(self.hashes), max(len(self.hashes), self.filled, counted))


@dataclass(frozen=True, slots=True)
class ValueProfile:
    """All fields of one variant, or of several. `fingerprints`: the prompts and schemas of the documents' runs."""

    documents: int
    fields: Mapping[str, FieldProfile]
    fingerprints: frozenset[str] = frozenset()


EMPTY = ValueProfile(0, {})


def digest_label(text: str) -> str:
    """Return the label of a text whose value is not shown."""
    return DIGEST + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def shows_texts(profile: ValueProfile, schema: Mapping[str, Any] | None) -> bool:
    """Return True when the profile has the text of a value that the schema does not list."""
    listed = {path for node in fields_of(schema) for path in node.listed_paths()}
    return any(
        label.startswith('"') for path, field in profile.fields.items() if path not in listed for label in field.values
    )


def merged(parts: Iterable[ValueProfile]) -> ValueProfile:
    """Return one profile of all parts; a field that a part lacks counts as empty in its documents."""
    profiles = [part for part in parts if part.documents]
    if len(profiles) <= 1:
        return profiles[0] if profiles else EMPTY
    documents = sum(part.documents for part in profiles)
    names = dict.fromkeys(name for part in profiles for name in part.fields)
    fields = {
        name: _merged_field([part.fields[name] for part in profiles if name in part.fields], documents)
        for name in names
    }
    return ValueProfile(documents, fields, frozenset().union(*(part.fingerprints for part in profiles)))


def _merged_field(parts: list[FieldProfile], documents: int) -> FieldProfile:
    added: dict[Any, int] = {}
    for part in parts:
        for label, count in part.values.items():
            added[label] = added.get(label, 0) + count
    values, error = reduced(added, KEPT_VALUES)
    return FieldProfile(
        documents,
        sum(part.filled for part in parts),
        {str(label): count for label, count in values.items()},
        sum(part.error for part in parts) + error,
        merged_hashes(part.hashes for part in parts),
        **{name: merged_ranges(getattr(part, name) for part in parts) for name in _RANGES},
    )


def to_json(profile: ValueProfile) -> dict[str, Any]:
    """Return the profile as it is stored with a run."""
    fields = {name: _field_json(field) for name, field in profile.fields.items()}
    return {"documents": profile.documents, "fingerprints": sorted(profile.fingerprints), "fields": fields}


def _field_json(field: FieldProfile) -> dict[str, Any]:
    ranges = {name: part for name in _RANGES if (part := getattr(field, name)) is not None}
    return {
        "documents": field.documents,
        "filled": field.filled,
        "values": dict(field.values),
        "error": field.error,
        "hashes": list(field.hashes),
        **{name: [part.count, part.least, part.greatest, *part.points] for name, part in ranges.items()},
    }


def from_json(stored: Mapping[str, Any] | None) -> ValueProfile:
    """Return the profile that is stored with a run; an empty one for a run of an earlier version."""
    if not stored:
        return EMPTY
    fields = {name: _field_of(field) for name, field in stored["fields"].items()}
    return ValueProfile(stored["documents"], fields, frozenset(stored["fingerprints"]))


def _field_of(stored: Mapping[str, Any]) -> FieldProfile:
    ranges = {
        name: Range(stored[name][0], stored[name][1], stored[name][2], tuple(stored[name][3:]))
        for name in _RANGES
        if name in stored
    }
    return FieldProfile(
        stored["documents"], stored["filled"], stored["values"], stored["error"], tuple(stored["hashes"]), **ranges
    )

"""Rules that decide whether a predicted value agrees with a gold value, and which values count as "nothing".

It must not know schemas: graded_fields.py chooses the rule of each field.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

_BEFORE_SPACE = re.compile(r"[.,](?=\s|$)")
_WORD = re.compile(r"\w+")
_ISO_8601 = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)"
    r"(?:[Tt ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)? ?(?:([Zz])|([+-])(\d\d):?(\d\d)?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Comparator:
    """The comparison of two values of a field, with the tolerances of `number` and `tokens`."""

    compare: str = "exact"
    abs: float = 0.0
    rel: float = 1e-9
    at_least: float = 0.5

    def agree(self, predicted: Any, gold: Any) -> bool:
        """Return True when the two values agree; values of another type than the rule's must be equal."""
        return COMPARISONS[self.compare](self, predicted, gold)

    def normal_form(self, value: Any) -> str | None:
        """Return a text that is equal exactly for values that agree; None when this rule has none."""
        if self.compare == "exact" or (self.compare == "text" and not isinstance(value, str)):
            return canonical_json(value)
        if self.compare != "text":
            return None
        return f"words {words}" if (words := _without_punctuation(value)) else f"text {folded(value)}"


def is_something(value: Any) -> bool:
    """Return False for a value that means "not mentioned": null, an empty list, a string of white space."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value != []


def canonical_json(value: Any) -> str:
    """Return JSON that is equal for equal values: sorted keys, and 1 for 1.0 (but never for true)."""
    return json.dumps(_whole_numbers(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def folded(text: str) -> str:
    """Return the text after NFKC and case folding, with each run of white space as one space."""
    caseless = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", caseless).split())


def _exact(_rule: Comparator, predicted: Any, gold: Any) -> bool:
    return canonical_json(predicted) == canonical_json(gold)


def _number(rule: Comparator, predicted: Any, gold: Any) -> bool:
    if not (_is_number(predicted) and _is_number(gold)):
        return _exact(rule, predicted, gold)
    try:
        return bool(abs(predicted - gold) <= max(rule.abs, rule.rel * abs(gold)))
    except OverflowError:  # an integer beyond the range of a float
        return bool(predicted == gold)


def _text(rule: Comparator, predicted: Any, gold: Any) -> bool:
    if not (isinstance(predicted, str) and isinstance(gold, str)):
        return _exact(rule, predicted, gold)
    first = _without_punctuation(predicted)
    second = _without_punctuation(gold)
    return first == second if first and second else folded(predicted) == folded(gold)


def _date(rule: Comparator, predicted: Any, gold: Any) -> bool:
    first = _moment(predicted)
    second = _moment(gold)
    if first is None or second is None:
        return _text(rule, predicted, gold)
    if first.instant is not None and second.instant is not None:
        return first.instant == second.instant
    return first.day == second.day


def _tokens(rule: Comparator, predicted: Any, gold: Any) -> bool:
    if not (isinstance(predicted, str) and isinstance(gold, str)):
        return _exact(rule, predicted, gold)
    first = Counter(_WORD.findall(predicted.casefold()))
    second = Counter(_WORD.findall(gold.casefold()))
    total = first.total() + second.total()
    if not total:
        return folded(predicted) == folded(gold)
    return 2 * (first & second).total() / total >= rule.at_least


COMPARISONS: Mapping[str, Callable[[Comparator, Any, Any], bool]] = {
    "exact": _exact,
    "number": _number,
    "text": _text,
    "date": _date,
    "tokens": _tokens,
}
"""The rules by their name in `eval.fields`; `off` is not among them."""


def _without_punctuation(text: str) -> str:
    words = " ".join(_BEFORE_SPACE.sub("", folded(text)).split())
    start = 0
    end = len(words)
    while start < end and _is_punctuation(words[start]):
        start += 1
    while end > start and _is_punctuation(words[end - 1]):
        end -= 1
    return words[start:end]


def _is_punctuation(char: str) -> bool:
    return char.isspace() or unicodedata.category(char).startswith("P")


class _Moment(NamedTuple):
    day: date
    instant: datetime | None


def _moment(value: Any) -> _Moment | None:
    """Return the day of an ISO 8601 text as written and, if it has a time, the instant in UTC; None for other values.

    A time without an offset is taken as UTC.
    """
    match = _ISO_8601.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, offset_hours, offset_minutes = match.groups()
    try:
        day_date = date(int(year), int(month), int(day))
        if hour is None:
            return _Moment(day_date, None)
        micros = int((fraction or "0").ljust(6, "0")[:6])
        local = datetime(
            day_date.year, day_date.month, day_date.day, int(hour), int(minute), int(second or 0), micros, timezone.utc
        )
        offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
        return _Moment(day_date, local + offset if sign == "-" else local - offset)
    except (ValueError, OverflowError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole_numbers(inner) for name, inner in value.items()}
    return [_whole_numbers(item) for item in value] if isinstance(value, list) else value

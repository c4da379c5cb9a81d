"""The profile of the values as frozen values: the part that report.json, text and page show.

It must not read a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.report import plain


@dataclass(frozen=True, slots=True)
class ValueShare:
    """A frequent value; None for a text that is not shown. `share`: of the documents."""

    value: Any = None
    documents: int = 0
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """The least, the median and the greatest of numbers or of dates; two different dates have no median."""

    least: Any = None
    median: Any = None
    greatest: Any = None


@dataclass(frozen=True, slots=True)
class ProfiledField:
    """One field, by its dotted path. `filled`: share of the documents. `distinct`: an estimate above 48.

    `lengths`: of texts, in characters. `items`: of lists.
    """

    filled: float = 0.0
    distinct: int = 0
    values: tuple[ValueShare, ...] = ()
    numbers: Span | None = field(default=None, metadata=plain.LEFT_OUT)
    dates: Span | None = field(default=None, metadata=plain.LEFT_OUT)
    lengths: Span | None = field(default=None, metadata=plain.LEFT_OUT)
    items: Span | None = field(default=None, metadata=plain.LEFT_OUT)


@dataclass(frozen=True, slots=True)
class ProfiledVariant:
    """The fields of the results of one variant."""

    documents: int = 0
    fields: Mapping[str, ProfiledField] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MovedShare:
    """A share that moved by more than chance; `what`: the share of results with the field `filled`, or of a `value`."""

    field: str = ""
    what: str = "value"
    value: Any = None
    share: float = 0.0
    share_before: float = 0.0
    p: float = 0.0


@dataclass(frozen=True, slots=True)
class Movement:
    """The newest run (of each shard) against the last one before it with enough results; `compared`: shares."""

    runs: tuple[int, ...] = ()
    documents: int = 0
    documents_before: int = 0
    compared: int = 0
    moved: tuple[MovedShare, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The current results. `exact`: each counts once; else documents that were done again count each time."""

    documents: int = 0
    exact: bool = True
    fields: Mapping[str, ProfiledField] = field(default_factory=dict)
    variants: Mapping[str, ProfiledVariant] = field(default_factory=dict)
    against: Movement | None = None

"""The settings of `overflow: split`, which cuts a long document into windows; an agent or a variant sets them.

It must not cut anything: long/ does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.config.checks import check_fields
from pipeline.config.constraints import nearest, unknown_key
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """Sizes of windows. `window_tokens` None: only if they do not fit; `overlap_tokens` None: by window size."""

    window_tokens: int | None = None
    overlap_tokens: int | None = None
    lead_chars: int = 300

    def __post_init__(self) -> None:
        check_fields(self, "split")
        if self.window_tokens and self.overlap_tokens and self.overlap_tokens * 4 > self.window_tokens:
            most_overlap = self.window_tokens // 4
            raise ConfigError(
                f"overlap_tokens: got {self.overlap_tokens}, need at most a quarter of the window ({most_overlap})"
            )


def split_errors(settings: Mapping[str, Any], *, overflow: str | None, place: str) -> Iterator[str]:
    """Yield an error message for each unusable setting; `overflow`: the value that applies beside them."""
    names = [field.name for field in fields(SplitConfig)]
    for name in settings:
        if name not in names:
            yield unknown_key(f"{place}.{name}", settings[name], near=nearest(name, names), accepted_keys=names)
    try:
        SplitConfig(**{name: value for name, value in settings.items() if name in names})
    except ConfigError as cause:
        yield from (f"{place}.{line}" for line in str(cause).splitlines())
    if settings and overflow != "split":
        yield f"{place}: got settings beside overflow: {overflow or 'fail'}, need overflow: split"

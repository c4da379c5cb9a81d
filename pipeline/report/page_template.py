"""Rendering a page from its template: every value is escaped, and control characters in it are spelled out.

jinja2 is imported only when a page is rendered, as the import takes time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pipeline.logs import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def render(name: str, values: Mapping[str, Any]) -> str:
    """Return the page of a template of this package."""
    return _environment().get_template(name).render(values)


def render_macro(name: str, macro: str, *arguments: Any) -> str:
    """Return the output of a template's macro for these arguments."""
    return str(getattr(_environment().get_template(name).module, macro)(*arguments))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # takes a tenth of a second

    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_source),
        finalize=_template_value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _source(name: str) -> str:
    return (files("pipeline.report") / name).read_text(encoding="utf-8")


def _template_value(value: Any) -> Any:
    """Return a value as the page shows it, before it is escaped; None as a dash. Markup of macros stays as it is."""
    if hasattr(value, "__html__"):
        return value
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    return visible(str(value))

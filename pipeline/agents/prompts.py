"""Prompt templates: checked when an agent is loaded, filled for each document.

It must not know agents or providers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from string import Template

from pipeline.config.agent_file import AgentFile, VariantFile
from pipeline.config.constraints import nearest
from pipeline.documents.metadata_names import METADATA, value_of
from pipeline.documents.special_tokens import break_special_tokens
from pipeline.errors import ConfigError
from pipeline.records import Document

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FOREIGN = re.compile(
    r"\{\{-?\s*(?P<jinja>[A-Za-z_][A-Za-z0-9_]*)[^{}\n]{0,80}\}\}|(?<![${])\{(?P<format>[a-z_]+)\}(?!\})"
)
PLACEHOLDERS = ("document", "id", "uri", *METADATA)
LEAD = "lead"
"""The placeholder for the beginning of a document; empty except for windows of a document that is split."""


def check_variables(variables: Iterable[str], *, path: Path, reserved_names: tuple[str, ...] = ()) -> None:
    """Raise ConfigError for a variable that no template can name; errors for `reserved_names` too."""
    reserved = ("document", "id", "uri", *reserved_names)
    for name in variables:
        if not _NAME.fullmatch(name) or name in reserved:
            need = f"need letters, digits and _ without a digit first, and none of {', '.join(reserved)}"
            raise ConfigError(f"{path}: variables: got {name!r}, {need}")


def check_prompts(prompts: AgentFile | VariantFile, *, path: Path, place: str, variables: tuple[str, ...] = ()) -> None:
    """Raise ConfigError with the line of the prompt that cannot be filled."""
    placeholders = (*PLACEHOLDERS, *variables)
    for line, name in _placeholders(prompts.system_prompt or "", f"{path}: {place}system_prompt"):
        at = f"{path}: {place}system_prompt, line {line}"
        raise ConfigError(f"{at}: got ${name}, need static text (write $$ for a dollar)")
    if prompts.user_prompt is None:
        return
    _check_syntax(prompts.user_prompt, f"{path}: {place}user_prompt", placeholders=placeholders)
    names = set()
    for line, name in _placeholders(prompts.user_prompt, f"{path}: {place}user_prompt"):
        names.add(name)
        if name not in placeholders:
            near = nearest(name, placeholders)
            hint = f"; the nearest is ${near}" if near else ""
            at = f"{path}: {place}user_prompt, line {line}"
            raise ConfigError(
                f"{at}: got ${name}, need one of ${', $'.join(placeholders)}, or a name in `variables`{hint}"
            )
    if "document" not in names:
        raise ConfigError(f"{path}: {place}user_prompt: got no $document, need it where the document belongs")


def _check_syntax(template: str, place: str, *, placeholders: Collection[str]) -> None:
    """Raise ConfigError for a placeholder in the syntax of Jinja or str.format, which would be sent unchanged."""
    for match in _FOREIGN.finditer(template):
        name = match["jinja"] or match["format"]
        if name in placeholders and (match["jinja"] or name == "document"):
            line = template.count("\n", 0, match.start()) + 1
            syntax = "Jinja's syntax" if match["jinja"] else "the syntax of str.format"
            raise ConfigError(f"{place}, line {line}: got {match[0]!r}, which is {syntax}; need ${name}")


def rendered(template: str, document: Document) -> str:
    """Return the template filled with the document."""
    values = {name: text for name, (text, _) in named_values(template, document).items()}
    return Template(template).substitute({**values, "document": document.text})


def named_values(template: str, document: Document) -> dict[str, tuple[str, bool]]:
    """Return name → (value, whether it held a special token) for all placeholders but `$document`.

    Names and metadata are as untrusted as the text: special tokens of chat templates in them are broken up. Missing
    metadata is empty.
    """
    if not _placeholder_names(template):
        return {}
    values: dict[str, object] = {**document.metadata, "id": document.id, "uri": document.uri}
    texts = {name: value_of(values, name) for name in _placeholder_names(template)}
    return {name: break_special_tokens("" if text is None else str(text)) for name, text in texts.items()}


@lru_cache(maxsize=64)
def _placeholder_names(template: str) -> frozenset[str]:
    """Return the names of all placeholders except `$document`."""
    names = {match["named"] or match["braced"] for match in Template.pattern.finditer(template)}
    return frozenset(name for name in names if name not in (None, "document"))


def metadata_placeholders(template: str) -> tuple[str, ...]:
    """Return the names of metadata in a template, each once, in order."""
    names = (match["named"] or match["braced"] for match in Template.pattern.finditer(template))
    return tuple(dict.fromkeys(name for name in names if name not in (None, "document", "id", "uri")))


def names_lead(template: str) -> bool:
    """Return True when the template itself places the document's beginning."""
    return LEAD in _placeholder_names(template)


@lru_cache(maxsize=64)
def document_places(template: str) -> int:
    """Return how many times the template contains the document's text."""
    names = (match["named"] or match["braced"] for match in Template.pattern.finditer(template))
    return sum(name == "document" for name in names)


def _placeholders(template: str, place: str) -> Iterator[tuple[int, str]]:
    """Yield line (from 1) and name of each placeholder; ConfigError on a `$` that starts none."""
    for match in Template.pattern.finditer(template):
        line = template.count("\n", 0, match.start()) + 1
        name = match["named"] or match["braced"]
        if name is not None:
            yield line, name
        elif match["invalid"] is not None:
            excerpt = template[match.start() : match.start() + 10].split("\n")[0]
            raise ConfigError(f"{place}, line {line}: got {excerpt!r}, need $name, ${{name}}, or $$ for a dollar")

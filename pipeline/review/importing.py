"""`pipeline review --import FILE`: judgements from another source, with the digests of the output's documents.

All lines are checked before the first is appended; lines that the gold file has already are skipped, so that a file can
be imported again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.output.backend import OutputBackend
from pipeline.review.session import GOLD_VERSION, ReviewOptions
from pipeline.terminal import plural
from pipeline.truth.comparators import canonical_json
from pipeline.truth.gold import SAMPLE, checked_line, finite, gold_lines, relaxed_schema
from pipeline.truth.gold_file import append_lines

_SHOWN_IDS = 3


def import_lines(path: Path, backend: OutputBackend, options: ReviewOptions, *, now: str) -> str:
    """Append the judgements of a file to the gold, and return a sentence about them.

    ConfigError for a line that is not valid and for documents that the output does not have; then nothing is written.
    """
    lines = _read(path)
    digests = _digests(backend, {line["id"] for _, line in lines})
    missing = sorted({line["id"] for _, line in lines if line["id"] not in digests})
    if missing:
        ids = ", ".join(missing[:_SHOWN_IDS]) + (", …" if len(missing) > _SHOWN_IDS else "")
        raise ConfigError(
            f"--import: {len(missing)} of the documents of {path} are not in {options.output} ({ids}); "
            "nothing was imported"
        )
    schema = relaxed_schema(options.schema, where="the output's schema")
    existing = _known_lines(options.gold)
    checked: list[dict[str, Any]] = []
    guessed = 0
    for at, line in lines:
        filled = checked_line(_filled(line, digests, options, now=now), at, schema=schema, agent=options.agent)
        if _content(filled, dated="at" in line) not in existing:
            checked.append(filled)
            guessed += "why" not in line
    if not checked:
        return f"{path} holds no new judgement: {options.gold} has {_all_of(len(lines))} already."
    append_lines(options.gold, checked)
    sentence = f"{_judgements(len(checked))} from {path} appended to {options.gold}."
    if known_already := len(lines) - len(checked):
        sentence += f" {_judgements(known_already)} {'was' if known_already == 1 else 'were'} there already."
    if guessed:
        sentence += (
            f" {guessed:,} of them {'does' if guessed == 1 else 'do'} not say how the document was chosen (why) and "
            f"{'counts' if guessed == 1 else 'count'} as drawn by chance: "
            "if you chose them otherwise, the numbers of `pipeline eval` describe your choice, not the archive."
        )
    return sentence


def _known_lines(gold: Path) -> frozenset[str]:
    """Return the contents of the lines that a gold file has, each with its time and without it."""
    lines = gold_lines(gold) if gold.exists() else []
    return frozenset(_content(line, dated=dated) for line in lines for dated in (True, False))


def _content(line: Mapping[str, Any], *, dated: bool) -> str:
    """Return a line as text that does not depend on the order of its keys; `dated`: with the time of the judgement."""
    return canonical_json({name: value for name, value in line.items() if dated or name != "at"})


def _judgements(number: int) -> str:
    return plural(number, "judgement")


def _all_of(number: int) -> str:
    return "it" if number == 1 else f"all {number:,}"


def _read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (FILE:NUMBER, object) of each line; ConfigError for a line that is not an object with an id."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as exc:
        raise ConfigError(f"--import: {path} cannot be read: {exc.strerror or exc}") from exc
    lines = []
    for number, text in enumerate(data.split(b"\n"), 1):
        if not text.strip():
            continue
        at = f"{path}:{number}"
        try:
            line = json.loads(text, parse_float=finite, parse_constant=finite)
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"{at}: is no JSON") from exc
        if not isinstance(line, dict) or not isinstance(line.get("id"), str):
            raise ConfigError(f"{at}: got no id, need that of the document")
        lines.append((at, line))
    if not lines:
        raise ConfigError(f"--import: {path} holds no line, need a JSON object a line")
    return lines


def _digests(backend: OutputBackend, ids: Collection[str]) -> dict[str, str]:
    """Return the sha256 of these documents from their last lines."""
    with closing(backend.read()) as index:
        records = {id: index.latest(id) for id in ids}
    return {id: record.sha256 for id, record in records.items() if record is not None and record.sha256}


def _filled(line: Mapping[str, Any], digests: Mapping[str, str], options: ReviewOptions, *, now: str) -> dict[str, Any]:
    gold = line.get("gold")
    names = gold if isinstance(gold, dict) else {}
    filled = {"v": GOLD_VERSION, "why": SAMPLE, "by": options.by, "at": now, "sha256": digests[line["id"]], **line}
    return filled | ({} if "how" in line else {"how": dict.fromkeys(names, "typed")})

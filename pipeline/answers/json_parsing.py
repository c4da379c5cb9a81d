"""Parse a text that should be JSON, with repairs that need no guess.

It must not accept a truncated text, needs linear time, and its messages never quote the text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NoReturn

from pipeline.answers.prose import is_answer_in_prose
from pipeline.answers.thoughts import after_thoughts
from pipeline.config.installing import install_command
from pipeline.errors import ConfigError, Stage

_MAX_DEPTH = 200
_MAX_REPAIRED_CHARS = 1 << 19
_MAX_FULL_CHARS = 8000
_MAX_REGIONS = 100
# a string always ends, at the latest with the text, so neither pattern ever backtracks
_STRING = r'"(?:[^"\\]+|\\.?)*(?:"|\Z)'
_STRING_OR_COMMA = re.compile(_STRING + r"|,(?=[ \t\r\n]*[}\]])", re.DOTALL)
_STRING_OR_BRACKET = re.compile(_STRING + r"|[\[\]{}]", re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_FENCE_LINE = re.compile(r"^[ \t]*```[^`\n]*$", re.MULTILINE)


class AnswerError(Exception):
    """The text is not an answer: `reason` and `stage` as in an error record, `message` without any of the text.

    `hint`: sentences of the document, only for the model's next try.
    """

    def __init__(self, reason: str, message: str, *, stage: Stage = "parse", hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.stage = stage
        self.message = message
        self.hint = hint


def read(text: str, *, repair: str) -> tuple[Any, bool]:
    """Return the value and whether the text was repaired; AnswerError `invalid_json` for anything else.

    `repair`: off, basic or full. The value is nested at most 200 deep and contains no NaN or Infinity.
    """
    try:
        value, repaired = _read(text, repair)
        # the nesting cannot exceed the number of brackets, except in a value that is encoded as a string
        if repaired or text.count("{") + text.count("[") > _MAX_DEPTH:
            _refuse_depth(value)
    except RecursionError as cause:
        raise AnswerError("invalid_json", "nested too deeply") from cause
    return value, repaired


def strip_fence(text: str) -> str:
    """Return the text between one opening and one closing fence line; the text itself without such a pair."""
    opening, newline, body = text.lstrip().partition("\n")
    body = body.rstrip()
    if newline and opening.startswith("```") and "`" not in opening[3:] and body.endswith("\n```"):
        return body[:-4]
    return text


def repair_library() -> Callable[..., Any]:
    """Return `loads` of json_repair; ConfigError when it is not installed."""
    try:
        import json_repair
    except ImportError as cause:
        need = f"need the json-repair library: {install_command('repair')}, or set it to basic"
        raise ConfigError(f"answers.repair: got full, {need}") from cause
    loads: Callable[..., Any] = json_repair.loads
    return loads


def _read(text: str, repair: str) -> tuple[Any, bool]:
    try:
        value, repaired = _decode(text)
    except json.JSONDecodeError as cause:
        if repair == "off" or len(text) > _MAX_REPAIRED_CHARS:
            raise _not_json(cause) from cause
        return _repaired_value(_without_thoughts(text).strip(), repair), True
    _refuse(repaired and repair == "off", "a key is given twice")
    inner = _unwrapped(value) if repair != "off" else None
    return (value, repaired) if inner is None else (inner, True)


def _repaired_value(text: str, repair: str) -> Any:
    """Return the value of a text that is not valid JSON."""
    body = strip_fence(text)
    try:
        value = _decode_repaired(body)
    except json.JSONDecodeError as cause:
        return _from_prose(body, repair, cause)
    inner = _unwrapped(value)
    return value if inner is None else inner


def _from_prose(text: str, repair: str, error: json.JSONDecodeError) -> Any:
    """Return the one object in a text with other content; `error`: why the whole text is not JSON."""
    block = _fenced_block(text)
    regions = _regions(block)
    try:
        value = _only_object(regions)
    except json.JSONDecodeError as cause:
        if repair == "full" and len(text) <= _MAX_FULL_CHARS and len(regions) == 1:
            return _guessed(regions[0])
        raise _not_json(error if text.startswith("{") else cause) from cause
    offset = text.index(block)
    starts = (offset + start for start, _ in _spans(block))
    offered = any(text[start] == "{" and is_answer_in_prose(text, start) for start in starts)
    _refuse(not offered, "its object is an example within prose, not an answer")
    return value


def _decode(text: str, *, strict: bool = True) -> tuple[Any, bool]:
    """Return the value and whether an equal key was dropped; not strict: accept control characters in strings."""
    has_dropped = False

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal has_dropped
        members_by_key = dict(pairs)
        if len(members_by_key) == len(pairs):
            return members_by_key
        members_by_key = {}
        for key, value in pairs:
            _refuse(
                key in members_by_key and not _is_same_json(members_by_key[key], value),
                "a key is given twice, with different values",
            )
            members_by_key[key] = value
        has_dropped = True
        return members_by_key

    decoder = json.JSONDecoder(object_pairs_hook=members, parse_float=_number, parse_constant=_constant, strict=strict)
    try:
        return decoder.decode(text), has_dropped
    except json.JSONDecodeError:
        raise
    except ValueError as cause:
        # Python reads no integer of more than 4,300 digits
        raise AnswerError("invalid_json", "a number is too large") from cause


def _decode_repaired(text: str) -> Any:
    """Return the value of a text whose only errors are trailing commas and control characters."""
    return _decode(_STRING_OR_COMMA.sub(lambda match: "" if match[0] == "," else match[0], text), strict=False)[0]


def _unwrapped(value: Any) -> dict[str, Any] | None:
    """Return the object that was encoded as a string once or twice more; None for any other value."""
    for _ in range(2):
        if not isinstance(value, str) or not value.lstrip().startswith(("{", '"', "```")):
            return None
        try:
            value = _decode_repaired(strip_fence(value))
        except json.JSONDecodeError:
            return None
        if isinstance(value, dict):
            return value
    return None


def _without_thoughts(text: str) -> str:
    """Return the text after the model's thoughts; AnswerError when the thoughts have no end."""
    answer = after_thoughts(text)
    if answer is None:
        raise AnswerError("invalid_json", "the reasoning does not end, so there is no answer")
    return answer


def _fenced_block(text: str) -> str:
    """Return the only fenced block of a text, if no bracket is open outside of it; else the text."""
    lines = [] if text.startswith("{") else list(islice(_FENCE_LINE.finditer(text), 3))
    if len(lines) != 2:
        return text
    _regions(text[: lines[0].start()] + text[lines[1].end() :])
    return text[lines[0].end() : lines[1].start()]


def _regions(text: str) -> list[str]:
    """Return the different top-level `{…}` of a text; AnswerError for unbalanced brackets."""
    return list(dict.fromkeys(text[start:end] for start, end in _spans(text) if text[start] == "{"))


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of the top-level brackets of a text, skipping strings inside them."""
    depth = start = at = 0
    while token := (_STRING_OR_BRACKET if depth else _BRACKET).search(text, at):
        at = token.end()
        if token[0] in "{[":
            start = start if depth else token.start()
            depth += 1
            _refuse(depth > _MAX_DEPTH, "nested too deeply")
        elif token[0] in "}]":
            _refuse(depth == 0, "a bracket closes that was never opened")
            depth -= 1
            if depth == 0:
                yield start, at
    _refuse(depth > 0, "it ends before its last bracket is closed")


def _only_object(regions: list[str]) -> Any:
    """Return the one object among the regions, perhaps repeated; AnswerError for different ones."""
    _refuse(len(regions) > _MAX_REGIONS, "it holds too many objects, or braces in prose")
    objects: list[Any] = []
    for region in regions:
        try:
            value = _decode_repaired(region)
        except json.JSONDecodeError:
            # `{name}` in prose is not a broken object
            if '"' in region or len(regions) == 1:
                raise
            continue
        _refuse(bool(objects) and not _is_same_json(objects[0], value), "it holds several different objects")
        objects = [value]
    _refuse(not objects, "there is no JSON object in it")
    return objects[0]


def _guessed(text: str) -> Any:
    """Return the object that json_repair finds in its strict mode; AnswerError for anything else."""
    try:
        # only inside an array does its strict mode refuse a key given twice
        values = repair_library()(f"[{text}]", skip_json_loads=True, strict=True)
        json.dumps(values, allow_nan=False)
    except ValueError as cause:
        raise AnswerError("invalid_json", "it cannot be repaired without a guess") from cause
    _refuse(not isinstance(values, list) or len(values) != 1, "it cannot be repaired without a guess")
    _refuse(not isinstance(values[0], dict), "there is no JSON object in it")
    return values[0]


def _is_same_json(first: Any, second: Any) -> bool:
    """Return True for equal JSON; in Python 1, 1.0 and True are equal."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def _refuse_depth(value: Any) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    depth = 0
    while level and depth < _MAX_DEPTH:
        depth += 1
        below = (item for node in level for item in (node.values() if isinstance(node, dict) else node))
        level = [item for item in below if isinstance(item, (dict, list))]
    _refuse(bool(level), "nested too deeply")


def _number(digits: str) -> float:
    number = float(digits)
    _refuse(math.isinf(number), "a number is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise AnswerError("invalid_json", f"{name} is not JSON")


def _refuse(condition: bool, message: str) -> None:
    if condition:
        raise AnswerError("invalid_json", message)


def _not_json(error: json.JSONDecodeError) -> AnswerError:
    return AnswerError("invalid_json", f"{error.msg} (line {error.lineno}, column {error.colno})")

"""Separate a model's thoughts from its answer where the server has not done so.

A draft inside thoughts is never an answer, whether or not the thoughts were closed. Marks within strings of an object
belong to the answer. It must not parse or change the answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True, slots=True)
class Marks:
    """Marks around the thoughts of a family of models, as regular expressions; `seen_on`: the tried models."""

    opening: str
    closing: str
    seen_on: str


FAMILIES = (
    Marks(
        r"<(?:\w+[:_])?(?:think(?:ing)?|thoughts?|reasoning)>",
        r"</(?:\w+[:_])?(?:think(?:ing)?|thoughts?|reasoning)>",
        "DeepSeek-R1, Qwen3, QwQ, Gemini-like, Seed-OSS (<seed:think>)",
    ),
    Marks(r"\[THINK\]", r"\[/THINK\]", "Magistral"),
    Marks(r"<\|channel>\s*thought", r"<channel\|>", "Gemma 4"),
    Marks(
        r"<\|channel\|>\s*(?:analysis|commentary)",
        r"<\|channel\|>\s*final[^<\n]{0,80}(?:<\|constrain\|>[^<\n]{0,20})?<\|message\|>",
        "gpt-oss (harmony)",
    ),
    Marks(
        r"\Aanalysis(?=[A-Z])",
        r"assistantfinal",
        "gpt-oss (harmony, its marks stripped)",
    ),
    Marks(
        r"<\|(?:begin_of_thought|START_THINKING|think)\|>",
        r"<\|(?:end_of_thought|END_THINKING|/think)\|>",
        "Sky-T1, Command A",
    ),
    Marks(r"\u25c1think\u25b7", r"\u25c1/think\u25b7", "Kimi-VL"),
)

_MARK = re.compile(
    "(?P<opening>" + "|".join(f"(?:{family.opening})" for family in FAMILIES) + ")|"
    "(?P<closing>" + "|".join(f"(?:{family.closing})" for family in FAMILIES) + ")",
    re.IGNORECASE,
)
_FIRST_OBJECT = re.compile(r"\s*(?:```[^`\n]*\n\s*)?(?=\{)")
_CANDIDATES = 8
"""The limit of positions tried as the start of a whole answer: each costs time in proportion to the text."""


def after_thoughts(text: str) -> str | None:
    """Return the text after the model's thoughts; None when the thoughts have no end.

    A text without marks is returned unchanged.
    """
    first = _MARK.search(text)
    if first is None:
        return text
    start = _end_of_first_object(text) or _end_of_object_around(text, first.start())
    marks = list(_MARK.finditer(text, start))
    closings = [mark for mark in marks if mark["closing"] is not None]
    for mark in closings[:_CANDIDATES]:
        if is_one_object(text[mark.end() :]):  # later marks are part of its strings
            return text[mark.end() :]
    end = closings[-1].end() if closings else 0
    if any(mark["opening"] is not None and mark.start() >= end for mark in marks):
        return None
    return text[end:]


def is_one_object(text: str) -> bool:
    """Return True when a text is one JSON object and white space."""
    stripped = text.strip()
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return False
    try:
        return isinstance(json.loads(stripped), dict)
    except (ValueError, RecursionError):
        return False


def _end_of_first_object(text: str) -> int:
    """Return the end of the object, perhaps in a fence, at the start of a text; 0 without one.

    An unclosed object extends to the end of the text: all marks are inside it.
    """
    opening = _FIRST_OBJECT.match(text)
    if opening is None:
        return 0
    depth = 0
    for token in _TOKEN.finditer(text, opening.end()):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return len(text)


def _end_of_object_around(text: str, place: int) -> int:
    """Return the end of the object around a place, if prose precedes the object; 0 without such an object."""
    for brace in islice(_BRACE.finditer(text, 0, place), _CANDIDATES):
        try:
            _, end = _DECODER.raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            continue
        if end > place:
            return end
    return 0


_BRACE = re.compile(r"\{")
_DECODER = json.JSONDecoder()
_TOKEN = re.compile(r'"(?:[^"\\]+|\\.?)*(?:"|\Z)|[{}]', re.DOTALL)

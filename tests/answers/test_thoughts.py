"""Drafts within thoughts, and examples within prose, are never answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answers import AnswerError, answer_in_reasoning, padded_object, parse

OPEN_CLOSE = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<THINK>", "</THINK>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought\n", "<channel|>"),
    (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    (
        "<|channel|>commentary to=x <|constrain|>json<|message|>",
        "<|channel|>final <|constrain|>json<|message|>",
    ),
    ("analysisWe ", "assistantfinal"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
]
OBJECTS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8) | st.none(), min_size=1)
PROSE = st.text(alphabet="abc .,:\n'", max_size=30)
DRAFT, ANSWER = {"draft": 1}, {"answer": 2}


def value_in(text: str, repair: str = "basic") -> Any:
    """Return the accepted value, or None."""
    try:
        return parse(text, repair=repair).value
    except AnswerError:
        return None


@settings(deadline=None)
@given(st.sampled_from(OPEN_CLOSE), PROSE, OBJECTS, OBJECTS, PROSE, st.booleans())
def test_object_after_the_thoughts_is_the_answer(
    marks: tuple[str, str],
    before: str,
    draft: dict[str, Any],
    answer: dict[str, Any],
    after: str,
    opened: bool,
) -> None:
    """A draft is ignored, with or without the opening mark, which some templates put into the prompt."""
    text = (marks[0] if opened else "") + before + json.dumps(draft) + after + marks[1] + json.dumps(answer)
    assert value_in(text) == answer


@settings(deadline=None)
@given(
    st.sampled_from(OPEN_CLOSE),
    PROSE,
    OBJECTS,
    PROSE,
    st.sampled_from(["basic", "full"]),
    st.integers(0, 2),
)
def test_draft_in_thoughts_is_no_answer(
    marks: tuple[str, str],
    before: str,
    draft: dict[str, Any],
    after: str,
    repair: str,
    closed: int,
) -> None:
    """The thoughts may be open, closed without a following object, or only closed."""
    opening, closing = marks
    inner = before + json.dumps(draft) + after
    text = (opening + inner, opening + inner + closing, inner + closing)[closed]
    assert value_in(text, repair) is None


@settings(deadline=None)
@given(st.sampled_from(OPEN_CLOSE), st.sampled_from(OPEN_CLOSE), OBJECTS)
def test_thoughts_after_the_answer_are_refused(
    first: tuple[str, str], second: tuple[str, str], value: dict[str, Any]
) -> None:
    """Open thoughts at the end may be about to change the answer."""
    text = f"{first[0]}hm{first[1]}{json.dumps(value)}\n"
    if not second[0].startswith("analysis"):
        assert value_in(f"{text}{second[0]} or rather") is None
    assert value_in(text) == value


@pytest.mark.parametrize("marks", OPEN_CLOSE)
@pytest.mark.parametrize("comma", ["", ", "])
def test_thought_marks_in_strings_belong_to_the_answer(marks: tuple[str, str], comma: str) -> None:
    """A document about such models may quote their marks; a trailing comma is repaired."""
    value = {"said": f"it wrote {marks[0]} and {marks[1]}"}
    text = json.dumps(value, ensure_ascii=False)
    assert value_in(text[:-1] + comma + "}") == value
    assert value_in(f"```json\n{text[:-1]}{comma}}}\n```") == value
    assert value_in(f"<think>hm</think>{text}") == value


@pytest.mark.parametrize(
    "text",
    [
        'I would write it, for example {"draft": 1}, if the text said so.',
        'The schema asks for objects, for example: {"draft": 1}',
        'For example:\n\n{"draft": 1}',
        'An answer looks like this (e.g. {"draft": 1}) but the text says nothing.',
        'Ein Objekt wie z. B.: {"draft": 1}',
        'There is nothing to report here, so {"draft": 1} would be wrong.',
        'Here is an example of the format:\n```json\n{"draft": 1}\n```\nThe document is empty.',
    ],
)
def test_object_within_a_sentence_is_no_answer(text: str) -> None:
    """The sentence continues around the object, so it is quoted as an example."""
    assert value_in(text) is None


@pytest.mark.parametrize(
    "text",
    [
        'Here is the JSON: {"answer": 2}',
        'Here is the JSON:\n{"answer": 2}\nI hope it helps.',
        '**Answer:** `{"answer": 2}`',
        'The text gives no example. The answer:\n\n{"answer": 2}',
        'I read the text.\n\n{"answer": 2}',
        'For example, the date is missing. Result: {"answer": 2}',
        '```json\n{"answer": 2}\n```\nFor example, the second line was left out.',
    ],
)
def test_object_offered_in_prose_is_the_answer(text: str) -> None:
    """It begins a line or follows a colon."""
    assert value_in(text) == ANSWER


@settings(deadline=None)
@given(
    st.sampled_from(["for example", "For instance", "e.g.", "such as", "something like"]),
    PROSE,
    OBJECTS,
    PROSE,
)
def test_announced_example_is_no_answer(word: str, before: str, value: dict[str, Any], after: str) -> None:
    """This holds for any text around it."""
    assert value_in(f"So {before.strip()} {word} {json.dumps(value)}{after}") is None


SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
}


@settings(deadline=None)
@given(st.sampled_from(OPEN_CLOSE), PROSE, PROSE)
def test_answer_in_reasoning_must_be_all_of_it(marks: tuple[str, str], before: str, after: str) -> None:
    """It is the whole reasoning, or all that follows its last mark."""
    text = json.dumps(ANSWER)
    assert answer_in_reasoning(f" \n{text}\n", SCHEMA) == text
    assert answer_in_reasoning(f"{before}{marks[1]}\n{text}", SCHEMA) == text
    assert answer_in_reasoning(f"{marks[0]}{before}{text}{after}{marks[1]}", SCHEMA) is None
    assert answer_in_reasoning(f"x{before}{text}{after}", SCHEMA) is None
    assert answer_in_reasoning(f"{text}", None) is None


@settings(deadline=None)
@given(
    OBJECTS,
    st.text(alphabet=" \n\t", min_size=1, max_size=50),
    st.text(min_size=1, max_size=5),
)
def test_padded_object_may_be_followed_only_by_white_space(value: dict[str, Any], space: str, more: str) -> None:
    """Other text means that the answer continued."""
    text = json.dumps(value)
    assert padded_object(text + space) == text
    assert padded_object(text) is None
    assert (padded_object(text + space + more) is None) == bool(more.strip())

"""Parsing answers: what is accepted, what is repaired, and what is refused because a repair would be a guess."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answers import (
    AnswerError,
    complaint,
    judge,
    looks_like_loop,
    parse,
    reask_prompt,
    repair_library,
    strip_fence,
)
from pipeline.answers.schema import compile_schema

WORDS = st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=8)
OBJECTS = st.dictionaries(WORDS, VALUES)
# texts that resemble answers far more often than plain random text
PIECES = ["{", "}", "[", "]", '"', ":", ",", "\\", "\n", " ", "1", "1e999", "NaN", "a", "'", "\ud800", "\\ud800"]
PIECES += ['"a"', "```", "```json\n", "<think>", "</think>", '{"a": 1}', "\x00", "true", "\ufeff"]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "said": {"type": ["string", "null"], "x-quote": True}},
    "additionalProperties": False,
}
COMPILED = compile_schema(SCHEMA, where="test")


def refusal(text: str, repair: str = "basic") -> AnswerError:
    """Return the error that parsing the text raises."""
    with pytest.raises(AnswerError) as caught:
        parse(text, repair=repair)
    return caught.value


@settings(deadline=None)
@given(VALUES.filter(lambda value: not isinstance(value, str)) | st.from_regex(r"\A[a-z ]*\Z"))
def test_valid_json_is_returned_unchanged(value: Any) -> None:
    """It does not count as repaired."""
    answer = parse(json.dumps(value))
    assert (answer.value, answer.repaired, answer.notes) == (value, False, ())


@settings(deadline=None)
@given(OBJECTS, st.sampled_from(["@", "```json\n@\n```", "<think>\nhm {\n</think>\n@", "Here it is:\n@\nDone."]))
def test_wrapped_json_is_extracted_whole(value: dict[str, Any], wrapping: str) -> None:
    """Fences, thoughts or prose around an object do not change it."""
    before, _, after = wrapping.partition("@")
    answer = parse(before + json.dumps(value, indent=1) + after)
    assert answer.value == value
    assert answer.repaired == (wrapping != "@")


@pytest.mark.parametrize("mark", ["<think>", "</think>", "[THINK]", "<THINK> {", "<|channel|>analysis"])
@pytest.mark.parametrize("wrapping", ["@", "```json\n@\n```", "<think>\nhm {\n</think>\n@", "As {asked}:\n@\nDone."])
def test_thought_mark_inside_a_string_is_kept(mark: str, wrapping: str) -> None:
    """Documents mention models too, so the marks may be in values and names."""
    value = {mark: f"It writes {mark} first."}
    assert parse(wrapping.replace("@", json.dumps(value))).value == value


@settings(deadline=None)
@given(OBJECTS)
def test_object_encoded_twice_is_unwrapped(value: dict[str, Any]) -> None:
    """An object in a string in a string is unwrapped, and counts as repaired."""
    text = json.dumps(json.dumps(json.dumps(value)))
    assert parse(text).value == value
    assert parse(text).repaired


@settings(deadline=None)
@given(OBJECTS.filter(bool), st.data())
def test_truncated_answer_is_never_repaired(value: dict[str, Any], data: st.DataObject) -> None:
    """No prefix of an object, fenced or not, is accepted."""
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    for repair in ("off", "basic", "full"):
        assert refusal(cut, repair).reason == "invalid_json"
        assert refusal("```json\n" + cut, repair).reason == "invalid_json"


@settings(deadline=None)
@given(st.text())
def test_strip_fence_restores_the_text(text: str) -> None:
    """Exactly one opening and one closing fence line are removed."""
    assert strip_fence("```json\n" + text + "\n```") == text


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["off", "basic", "full"]))
def test_parse_raises_only_answer_error(text: str, repair: str) -> None:
    """Any text gives a value that can be written as UTF-8 JSON, or an AnswerError."""
    try:
        answer = parse(text, repair=repair)
    except AnswerError as error:
        assert (error.reason, error.stage) == ("invalid_json", "parse")
    else:
        json.dumps(answer.value, ensure_ascii=False, allow_nan=False).encode("utf-8")


@settings(deadline=None)
@given(TEXTS | OBJECTS.map(json.dumps))
def test_judged_answer_matches_the_schema(text: str) -> None:
    """Only a value that is valid under the schema is an answer."""
    try:
        answer = judge(text, COMPILED, document_text="any")
    except AnswerError:
        return
    assert COMPILED.violation(answer.value) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": 1}\n```\n', {"a": 1}),
        ('Sure! Like {"a": 0}:\n```json\n{"a": 1}\n```\nHope it helps.', {"a": 1}),
        ('```json\n{"a": "```"}```', {"a": "```"}),
        ('<think>or {"a": 2}?</think>\n{"a": 1}', {"a": 1}),
        ('or {"a": 2}? yes</think>{"a": 1}', {"a": 1}),
        ('<reasoning>x</reasoning>{"a": 1}', {"a": 1}),
        ('<|channel|>analysis<|message|>{<|end|><|channel|>final<|message|>{"a": 1}', {"a": 1}),
        ('{"a": "</think>", }', {"a": "</think>"}),
        ('The {name} is 5" wide [1]: {"a": 1} :-)', {"a": 1}),
        ('{"a": 1} or, once more, {"a": 1}', {"a": 1}),
        ('{"a": [1, 2, ], "b": ",]", }', {"a": [1, 2], "b": ",]"}),
        ('{"a": "one\ntwo\t"}', {"a": "one\ntwo\t"}),
        ('{"a": 1, "a": 1}', {"a": 1}),
    ],
)
def test_basic_repairs(text: str, value: Any) -> None:
    """They cover fences, thoughts, prose, trailing commas, control characters and equal duplicates."""
    answer = parse(text)
    assert (answer.value, answer.repaired) == (value, True)
    assert refusal(text, "off").reason == "invalid_json"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        '{"a": 1, "b": [1, 2',
        '{"items": [{"a": 1}, {"a": 2}',
        '"items": [{"a": 1}]}',
        '[{"a": 1}, {"a": 2',
        '<think>perhaps {"a": 1}',
        '```json\n{"a": 1}\n```\nbut better: {"a": 2, ',
        '{"a": 1} or {"a": 2}',
        '{"a": 1} or {"a": true}',
        '{"a": 1, "a": 2}',
        '{"a": 1, "a": true}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": ' + "9" * 5000 + "}",
        "{'a': 1}",
        "{a: 1}",
        '{"a": 1 /* one */}',
        '{"a": "back\\\nslash"}',
        '{"\\ud800": 1, "\\ud801": 2}',
        "[" * 300 + "]" * 300,
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_basic_refusals(text: str) -> None:
    """Truncated, ambiguous, too deep or nearly valid JSON is requested again."""
    assert refusal(text).reason == "invalid_json"


@pytest.mark.parametrize(
    "piece", ['{"', "[", "{", "{x}", '{"a":1}{"b":2}', "```\n", "<think>", "\\", '"\\', ",}", ",", ", ", '"']
)
@pytest.mark.parametrize("size", [1 << 19, 8 << 20])
def test_parsing_takes_linear_time(piece: str, size: int) -> None:
    """The largest texts are refused at once; a quadratic algorithm would hang here."""
    for text in (piece * (size // len(piece)), "{" + '"\\' * 3 + piece * (size // len(piece) - 8) + "\\"):
        assert refusal(text).reason == "invalid_json"


def test_lone_surrogates_are_replaced() -> None:
    """They become U+FFFD, in keys too, with a note; a surrogate pair stays its character."""
    answer = parse('{"\\ud800": ["\\udfff", "\\ud83d\\ude00"]}')
    assert answer.value == {"\ufffd": ["\ufffd", "\U0001f600"]}
    assert (answer.repaired, answer.notes) == (False, ("surrogates_scrubbed",))


@pytest.mark.parametrize("backslash", ["\\\\", "\\u005c", "\\u005C"])
def test_lone_surrogates_are_replaced_in_json_within_json(backslash: str) -> None:
    """Such an answer is parsed twice, and only the second time shows the escape."""
    answer = parse('"{\\"a\\":\\"' + backslash + 'ud800\\"}"', repair="basic")
    assert answer.value == {"a": "\ufffd"}
    assert "surrogates_scrubbed" in answer.notes


@pytest.mark.parametrize("text", ["{'a': 1}", "Here: {a: 1}", '{"a": 1 /* one */}'])
def test_full_repairs_more(text: str) -> None:
    """The library repairs single quotes, bare keys and comments."""
    answer = parse(text, repair="full")
    assert (answer.value, answer.repaired) == ({"a": 1}, True)


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 1, 'b': [1, 2",
        "{'a': 1, 'a': 2}",
        "{'b': {'a': 1, 'a': 2}}",
        "{'a': 1e999}",
        "{'a': 1} {'b': 2}",
        "{'a': '" + "x" * 9000 + "'}",
    ],
)
def test_full_refuses_guesses(text: str) -> None:
    """Truncated, duplicated, infinite and long answers stay refused."""
    assert refusal(text, "full").reason == "invalid_json"


def test_full_without_its_library_names_the_extra() -> None:
    """A missing json_repair is a configuration error that says what to install."""
    code = "import sys; sys.modules['json_repair'] = None\n"
    code += "from pipeline.answers import parse\nparse('{b: 1}', repair='full')"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigError: answers.repair" in child.stderr
    assert "extraction-pipeline[repair]" in child.stderr


def test_repair_library_can_be_checked_beforehand() -> None:
    """A config with `full` can be checked before any document is read."""
    assert repair_library()("{'a': 1}") == {"a": 1}


def test_schema_violation_names_its_place() -> None:
    """The message contains the place and the expectation, without the value."""
    with pytest.raises(AnswerError) as caught:
        judge('{"a": "secret"}', COMPILED, document_text="")
    assert (caught.value.reason, caught.value.stage) == ("schema_invalid", "validate")
    assert caught.value.message == "$.a: expected an integer, got a string of 6 characters"


@pytest.mark.parametrize("quote", ["profits rose", "  profits\u00a0rose\n sharply ", "", " ", None])
def test_quote_may_differ_in_white_space(quote: str | None) -> None:
    """White space is folded on both sides, and an empty quote needs no match."""
    text = json.dumps({"said": quote})
    assert judge(text, COMPILED, document_text="The profits\n\trose sharply.").value == {"said": quote}


@pytest.mark.parametrize(
    ("quote", "difference"),
    [
        ("Profits rose", "letter case"),
        ("profits rose!", "punctuation"),
        ("profitsrose", "white space"),
        ("Profits rose!", "letter case and punctuation"),
        ("prófits rose", "accents or forms of letters"),
        ("profits … sharply", "words that an ellipsis leaves out"),
        ("PRÓFITS-ROSE", "letter case, punctuation, white space or accents"),
    ],
)
def test_quote_with_a_small_difference_is_not_grounded(quote: str, difference: str) -> None:
    """Case, punctuation or a missing space matter; the message contains only the place and the kind of difference."""
    with pytest.raises(AnswerError) as caught:
        judge(json.dumps({"said": quote}), COMPILED, document_text="The profits rose sharply.")
    assert (caught.value.reason, caught.value.stage) == ("not_grounded", "validate")
    assert caught.value.message == f"$.said: quote not found in the document; it differs only in {difference}"


@pytest.mark.parametrize("quote", ["losses rose", "…", "rose … profits", "!?"])
def test_missing_quote_is_not_grounded(quote: str) -> None:
    """Other words, another order or no words: the message contains only the place."""
    with pytest.raises(AnswerError) as caught:
        judge(json.dumps({"said": quote}), COMPILED, document_text="The profits rose sharply.")
    assert caught.value.message == "$.said: quote not found in the document"


def test_re_ask_follows_the_user_prompt() -> None:
    """The unchanged prompt is followed by the answer's first 2,000 characters and the complaint."""
    error = AnswerError("schema_invalid", "$.a: expected an integer", stage="validate")
    prompt = reask_prompt("the document", "\ud800" + "x" * 5000, error)
    assert prompt.startswith("the document\n\n")
    assert prompt.count("x" * 1999) == 1
    assert "x" * 2000 not in prompt
    assert prompt.endswith(complaint(error))
    prompt.encode("utf-8")


@pytest.mark.parametrize("reason", ["invalid_json", "schema_invalid", "not_grounded"])
def test_complaint_has_the_error_message(reason: str) -> None:
    """The model gets the message of the error, whatever its reason."""
    assert "$.a: so and so" in complaint(AnswerError(reason, "$.a: so and so"))


@pytest.mark.parametrize(
    "text",
    [
        " " * 200,
        '{"a": 1' + "\n" * 500,
        "x" + "abc" * 200,
        '{"a": "' + "la la " * 100,
        "a" * 400,
        "0123456789abcdef" * 30,
    ],
)
def test_loop_is_detected(text: str) -> None:
    """It is endless white space, or one short pattern up to the end."""
    assert looks_like_loop(text)


@pytest.mark.parametrize("text", ["", " " * 199, "ab" * 199, "ab" * 300 + "!", " ".join(map(str, range(500)))])
def test_ordinary_text_is_no_loop(text: str) -> None:
    """Short texts, texts that continue after the pattern, and plain long texts are none."""
    assert not looks_like_loop(text)


@pytest.mark.parametrize("text", ["{oops", "{} and more", '"', '"{"', "```json\n{\n```"])
def test_string_that_only_begins_like_an_object_stays_a_string(text: str) -> None:
    """A doubly encoded text is unwrapped only if it is an object."""
    assert parse(json.dumps(text)).value == text

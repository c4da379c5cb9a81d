"""Answers: what is taken, what is mended, and what is refused because taking it would be a guess."""

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
# texts that look like answers far more often than plain random ones do
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
    """The error that parsing the text ends with."""
    with pytest.raises(AnswerError) as caught:
        parse(text, repair=repair)
    return caught.value


@settings(deadline=None)
@given(VALUES.filter(lambda value: not isinstance(value, str)) | st.from_regex(r"\A[a-z ]*\Z"))
def test_valid_json_is_left_alone(value: Any) -> None:
    """Whatever JSON can say comes back as it was, and not as repaired."""
    answer = parse(json.dumps(value))
    assert (answer.value, answer.repaired, answer.notes) == (value, False, ())


@settings(deadline=None)
@given(OBJECTS, st.sampled_from(["@", "```json\n@\n```", "<think>\nhm {\n</think>\n@", "Here it is:\n@\nDone."]))
def test_wrapped_json_comes_back_whole(value: dict[str, Any], wrapping: str) -> None:
    """A fence, thoughts or prose around any object change nothing of it."""
    before, _, after = wrapping.partition("@")
    answer = parse(before + json.dumps(value, indent=1) + after)
    assert answer.value == value
    assert answer.repaired == (wrapping != "@")


@pytest.mark.parametrize("mark", ["<think>", "</think>", "[THINK]", "<THINK> {", "<|channel|>analysis"])
@pytest.mark.parametrize("wrapping", ["@", "```json\n@\n```", "<think>\nhm {\n</think>\n@", "As {asked}:\n@\nDone."])
def test_a_mark_of_thoughts_inside_a_string_belongs_to_the_answer(mark: str, wrapping: str) -> None:
    """Documents mention models too, and their words reappear in values and in names."""
    value = {mark: f"It writes {mark} first."}
    assert parse(wrapping.replace("@", json.dumps(value))).value == value


@settings(deadline=None)
@given(OBJECTS)
def test_an_object_encoded_twice_is_unwrapped(value: dict[str, Any]) -> None:
    """An object in a string in a string is the object, and counts as repaired."""
    text = json.dumps(json.dumps(json.dumps(value)))
    assert parse(text).value == value
    assert parse(text).repaired


@settings(deadline=None)
@given(OBJECTS.filter(bool), st.data())
def test_a_cut_answer_is_never_mended(value: dict[str, Any], data: st.DataObject) -> None:
    """No beginning of an object, fenced or not, is taken for an object."""
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    for repair in ("off", "basic", "full"):
        assert refusal(cut, repair).reason == "invalid_json"
        assert refusal("```json\n" + cut, repair).reason == "invalid_json"


@settings(deadline=None)
@given(st.text())
def test_fence_then_strip_gives_the_text_back(text: str) -> None:
    """Exactly one opening and one closing fence line are taken."""
    assert strip_fence("```json\n" + text + "\n```") == text


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["off", "basic", "full"]))
def test_parse_raises_nothing_but_its_own_error(text: str, repair: str) -> None:
    """Any text is an answer that can be written as UTF-8 JSON, or an AnswerError."""
    try:
        answer = parse(text, repair=repair)
    except AnswerError as error:
        assert (error.reason, error.stage) == ("invalid_json", "parse")
    else:
        json.dumps(answer.value, ensure_ascii=False, allow_nan=False).encode("utf-8")


@settings(deadline=None)
@given(TEXTS | OBJECTS.map(json.dumps))
def test_what_is_judged_good_keeps_the_schema(text: str) -> None:
    """Only a value that keeps the schema is an answer."""
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
def test_what_basic_mends(text: str, value: Any) -> None:
    """Fences, thoughts, prose, trailing commas, control characters and equal twins."""
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
def test_what_basic_refuses(text: str) -> None:
    """What is cut, ambiguous, too deep or only nearly JSON is asked for again."""
    assert refusal(text).reason == "invalid_json"


@pytest.mark.parametrize(
    "piece", ['{"', "[", "{", "{x}", '{"a":1}{"b":2}', "```\n", "<think>", "\\", '"\\', ",}", ",", ", ", '"']
)
@pytest.mark.parametrize("size", [1 << 19, 8 << 20])
def test_the_time_is_in_proportion_to_the_text(piece: str, size: int) -> None:
    """The largest texts are refused at once; anything quadratic would hang here."""
    for text in (piece * (size // len(piece)), "{" + '"\\' * 3 + piece * (size // len(piece) - 8) + "\\"):
        assert refusal(text).reason == "invalid_json"


def test_lone_surrogates_are_scrubbed() -> None:
    """What UTF-8 cannot carry becomes U+FFFD, in keys too, with a note; a pair stays the character it is."""
    answer = parse('{"\\ud800": ["\\udfff", "\\ud83d\\ude00"]}')
    assert answer.value == {"\ufffd": ["\ufffd", "\U0001f600"]}
    assert (answer.repaired, answer.notes) == (False, ("surrogates_scrubbed",))


@pytest.mark.parametrize("backslash", ["\\\\", "\\u005c", "\\u005C"])
def test_lone_surrogates_are_scrubbed_in_json_within_json(backslash: str) -> None:
    """An answer that is a JSON string of JSON is read twice, and only the second reading shows the escape."""
    answer = parse('"{\\"a\\":\\"' + backslash + 'ud800\\"}"', repair="basic")
    assert answer.value == {"a": "\ufffd"}
    assert "surrogates_scrubbed" in answer.notes


@pytest.mark.parametrize("text", ["{'a': 1}", "Here: {a: 1}", '{"a": 1 /* one */}'])
def test_full_mends_more(text: str) -> None:
    """Single quotes, bare keys and comments are mended by the library."""
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
def test_full_refuses_what_would_be_a_guess(text: str) -> None:
    """The cut, the doubled, the infinite and the long stay refused."""
    assert refusal(text, "full").reason == "invalid_json"


def test_full_without_its_library_names_the_extra() -> None:
    """A missing json_repair is a matter of the installation, and the message says what to install."""
    code = "import sys; sys.modules['json_repair'] = None\n"
    code += "from pipeline.answers import parse\nparse('{b: 1}', repair='full')"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigError: answers.repair" in child.stderr
    assert "extraction-pipeline[repair]" in child.stderr


def test_the_repair_library_can_be_asked_for_beforehand() -> None:
    """A config that says `full` can be checked before any document is read."""
    assert repair_library()("{'a': 1}") == {"a": 1}


def test_a_broken_schema_names_the_place() -> None:
    """The message says where, and what was expected, without the value."""
    with pytest.raises(AnswerError) as caught:
        judge('{"a": "secret"}', COMPILED, document_text="")
    assert (caught.value.reason, caught.value.stage) == ("schema_invalid", "validate")
    assert caught.value.message == "$.a: expected an integer, got a string of 6 characters"


@pytest.mark.parametrize("said", ["profits rose", "  profits\u00a0rose\n sharply ", "", " ", None])
def test_a_quote_may_differ_in_white_space(said: str | None) -> None:
    """White space is folded on both sides; an empty quote claims nothing."""
    text = json.dumps({"said": said})
    assert judge(text, COMPILED, document_text="The profits\n\trose sharply.").value == {"said": said}


@pytest.mark.parametrize(
    ("said", "difference"),
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
def test_a_quote_with_a_small_difference_is_not_grounded(said: str, difference: str) -> None:
    """Another case, another mark, a lost space: not a quote; the message has only the place and the difference."""
    with pytest.raises(AnswerError) as caught:
        judge(json.dumps({"said": said}), COMPILED, document_text="The profits rose sharply.")
    assert (caught.value.reason, caught.value.stage) == ("not_grounded", "validate")
    assert caught.value.message == f"$.said: quote not found in the document; it differs only in {difference}"


@pytest.mark.parametrize("said", ["losses rose", "…", "rose … profits", "!?"])
def test_a_quote_that_is_not_there_is_not_grounded(said: str) -> None:
    """Other words, words in another order, no words at all: the message has only the place."""
    with pytest.raises(AnswerError) as caught:
        judge(json.dumps({"said": said}), COMPILED, document_text="The profits rose sharply.")
    assert caught.value.message == "$.said: quote not found in the document"


def test_a_reask_stands_after_the_document() -> None:
    """The user prompt comes first and unchanged, then the answer's first 2,000 characters, then the complaint."""
    error = AnswerError("schema_invalid", "$.a: expected an integer", stage="validate")
    prompt = reask_prompt("the document", "\ud800" + "x" * 5000, error)
    assert prompt.startswith("the document\n\n")
    assert prompt.count("x" * 1999) == 1
    assert "x" * 2000 not in prompt
    assert prompt.endswith(complaint(error))
    prompt.encode("utf-8")


@pytest.mark.parametrize("reason", ["invalid_json", "schema_invalid", "not_grounded"])
def test_a_complaint_says_what_is_wrong(reason: str) -> None:
    """The model reads the message of the error, whatever its reason."""
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
def test_a_loop_is_seen(text: str) -> None:
    """White space without end, or one short pattern up to the end."""
    assert looks_like_loop(text)


@pytest.mark.parametrize("text", ["", " " * 199, "ab" * 199, "ab" * 300 + "!", " ".join(map(str, range(500)))])
def test_a_text_is_no_loop(text: str) -> None:
    """Short texts, texts that go on after the pattern, and plain long ones."""
    assert not looks_like_loop(text)


@pytest.mark.parametrize("text", ["{oops", "{} and more", '"', '"{"', "```json\n{\n```"])
def test_a_string_that_only_begins_like_an_object_stays_a_string(text: str) -> None:
    """What was encoded twice is unwrapped when it is an object, and only then."""
    assert parse(json.dumps(text)).value == text

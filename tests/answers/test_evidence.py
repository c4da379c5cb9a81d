"""The evidence of an answer: positions of its quotes, and the hint to the model about a missing quote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.answers import AnswerError, complaint, judge
from pipeline.answers.nearest_sentence import nearest_sentences
from pipeline.answers.schema import compile_schema
from pipeline.evidence import json_pointer, page_of, page_starts

QUOTE = {"type": ["string", "null"], "x-quote": True}
SCHEMA = compile_schema(
    {
        "type": "object",
        "properties": {
            "evidence": {"type": "array", "items": {"$ref": "#/$defs/quote"}},
            "companies": {
                "type": "array",
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "evidence": QUOTE}},
            },
        },
        "additionalProperties": QUOTE,
        "$defs": {"quote": QUOTE},
    },
    where="test",
)
TEXT = "Halden Ltd rose.\fThe “Borealis” fell; Halden Ltd rose. In the end the first two were unloaded before noon."


def evidence_of(answer: dict[str, Any], text: str = TEXT, **more: Any) -> list[dict[str, Any]]:
    """Return the evidence of an answer as a record has it."""
    return json.loads(json.dumps(judge(json.dumps(answer), SCHEMA, document_text=text, **more).evidence))


def test_each_quote_has_its_position() -> None:
    """This covers arrays, references and maps; blank or null quotes have none.

    Equal quotes take successive mentions.
    """
    answer = {
        "evidence": ["Halden Ltd rose.", "", None, " \n", "Halden Ltd rose."],
        "companies": [{"name": "Nobody", "evidence": '"Borealis"'}],
        "a/b~c": "The first two were unloaded before noon.",
    }
    assert evidence_of(answer) == [
        {"path": "/evidence/0", "start": 0, "end": 16, "match": "exact", "count": 2, "page": 1},
        {"path": "/evidence/4", "start": 38, "end": 54, "match": "exact", "count": 2, "page": 2},
        {"path": "/companies/0/evidence", "start": 21, "end": 31, "match": "folded", "count": 1, "page": 2},
        {"path": "/a~1b~0c", "start": 66, "end": 105, "match": "edges", "count": 1, "page": 2},
    ]


def test_evidence_has_a_page_only_in_paged_documents() -> None:
    """Pages come from the file or from form feeds, and pages without text are counted."""
    answer = {"evidence": ["rose"]}
    assert "page" not in evidence_of(answer, "It rose.")[0]
    assert evidence_of(answer, "It rose.", pages=[0])[0]["page"] == 1
    assert evidence_of(answer, "It rose.", pages=[0, 0, 3, 3, 8])[0]["page"] == 4
    assert page_starts("a\fb\f\fc", ()) == [0, 2, 4, 5]
    assert [page_of(place, [0, 2, 4, 5]) for place in range(6)] == [1, 1, 2, 2, 3, 4]
    assert page_starts("a b", ()) == ()


@pytest.mark.parametrize(("steps", "pointer"), [((), ""), (("a", 0, ""), "/a/0/"), (("~1/", "ü"), "/~01~1/ü")])
def test_evidence_paths_are_json_pointers(steps: tuple[str | int, ...], pointer: str) -> None:
    """They follow RFC 6901."""
    assert json_pointer(steps) == pointer


def test_positions_refer_to_the_whole_text() -> None:
    """This holds for a document that was cut to fit."""
    spans = [(0, 16), (len(TEXT) - 39, len(TEXT))]
    (quote,) = evidence_of({"evidence": ["before noon"]}, spans=spans)
    assert TEXT[quote["start"] : quote["end"]] == "before noon"
    with pytest.raises(AnswerError, match="quote not found"):
        evidence_of({"evidence": ["Borealis"]}, spans=spans)


class TestHint:
    """The nearest sentence of the document is shown to the model only."""

    def test_complaint_shows_the_nearest_sentence(self) -> None:
        """The model can copy it; the message of the error does not have it."""
        with pytest.raises(AnswerError) as caught:
            evidence_of({"evidence": ["In the end the first two ships were unloaded before noon"]})
        assert caught.value.message == "$.evidence[0]: quote not found in the document"
        sentence = "<sentence>In the end the first two were unloaded before noon.</sentence>"
        assert sentence in complaint(caught.value)
        assert "noon" not in str(caught.value)

    @pytest.mark.parametrize(
        ("quote", "sentence"),
        [
            ("four words of fives", ""),
            ("here are four words of six", "Here are four words of five."),
            ("here are four different others", ""),
            ("wholly other things", ""),
            ("five. Next", ""),
            ("next sentence is this", "Next: this is a sentence."),
        ],
    )
    def test_nearest_sentence_shares_four_words_in_five(self, quote: str, sentence: str) -> None:
        """Their order does not matter; two words are too few to decide."""
        hint = nearest_sentences([quote], "Here are four words of five. Next: this is a sentence.")
        assert f"<sentence>{sentence}</sentence>" in hint if sentence else hint == ""

    def test_hint_is_short(self) -> None:
        """However long the sentences and however many the quotes, a re-ask must fit the context."""
        text = "\n\n".join(f"{number} " + "word " * 50 + "end." for number in range(9)) + " long" * 900
        hint = nearest_sentences([f"{number} " + "word " * 50 + "ends" for number in range(9)], text)
        assert 250 < len(hint) < 700
        assert nearest_sentences(["a b c d e"], "a b c d e " * 300_000) == ""

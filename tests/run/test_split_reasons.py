"""A window that fails: which reasons divide it, which end its document at once, and what the error line contains."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from typing import Any

import pytest
from conftest import Place
from fake_llm import FakeLLM, Fault
from fake_llm.planted import PART, counting, part_of, planted, reader
from test_split import narrow, parts, prepared, run

from pipeline.long.windows import LEAST_WINDOW_CHARS

__all__ = ["narrow", "parts"]


def failing_document(marker: str) -> str:
    """Return a document with a marker in its middle."""
    text = planted(seed=71, payments=20, chars=24_000, kinds="prose").text
    middle = text.index("\n", len(text) // 2)
    return f"{text[:middle]} {marker} {text[middle:]}"


def divisions(place: Place, requests: list[str], marker: str) -> int:
    """Return how often the part with the marker was divided, by the sizes in which it was sent without a complaint."""
    text = (place.folder / "inbox" / "long.txt").read_text(encoding="utf-8")
    sizes = sorted({len(part) for part in requests if marker in part and part.strip() in text}, reverse=True)
    return sum(smaller < 0.8 * larger for larger, smaller in pairwise(sizes))


def failed_at(place: Place, marker: str) -> dict[str, Any]:
    """Return the only error line; the window that it names contains the marker."""
    (error,) = place.lines("errors.jsonl")
    window = error["window"]
    text = (place.folder / "inbox" / "long.txt").read_text(encoding="utf-8")
    assert marker in text[window["start"] : window["end"]]
    prefix = f"window {window['n']} of {window['of']} (characters {window['start']:,} to {window['end']:,}): "
    assert error["message"].startswith(prefix)
    assert window["answered"] == len(place.lines("windows.jsonl"))
    return error


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong_type", "schema_invalid"),
        ("invalid_json", "invalid_json"),
        ("repetition", "generation_loop"),
        ("loop_whitespace", "generation_loop"),
    ],
)
def test_window_without_a_valid_answer_is_divided_twice(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    """After that its document fails, with the reason and the history of the last window alone."""
    marker = f"[[fault:{fault}]]"
    place.documents({"long.txt": failing_document(marker)})
    prepared(place, narrow)
    run(place, monkeypatch)
    error = failed_at(place, marker)
    assert error["reason"] == reason
    assert divisions(place, parts, marker) == 2
    assert error["attempts"] == len(parts) == len(place.sent_documents())
    assert len(error["history"]) == (1 if reason == "generation_loop" else 2)


def test_window_with_an_invented_quote_is_divided_twice(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quote of another window does not count: the model did not see it."""
    marker = "THE MARKED PLACE"
    place.documents({"long.txt": failing_document(marker)})

    def invents(prompt: str, schema: Any) -> str:
        answer = json.loads(reader(prompt, schema))
        if PART in prompt and marker in part_of(prompt):
            title = {"id": "P9", "payer": "Sato Ltd", "amount": 1, "quote": "Nobody has ever paid anything at all."}
            answer["payments"] = [title]
        return json.dumps(answer)

    narrow.answer = counting(invents, parts)
    prepared(place, narrow)
    run(place, monkeypatch)
    assert failed_at(place, marker)["reason"] == "not_grounded"
    assert divisions(place, parts, marker) == 2


@pytest.mark.parametrize("split", [{}, {"window_tokens": 800, "overlap_tokens": 200}])
def test_window_with_too_long_an_answer_is_divided_to_the_smallest_size(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch, split: dict[str, int]
) -> None:
    """It is divided repeatedly; a window of the smallest size ends its document, also with a long overlap."""
    marker = "[[fault:truncated]]"
    place.documents({"long.txt": failing_document(marker)})
    prepared(place, narrow, split=split)
    run(place, monkeypatch)
    error = failed_at(place, marker)
    assert error["reason"] == "output_truncated"
    assert divisions(place, parts, marker) >= 2
    assert error["window"]["end"] - error["window"]["start"] < 3 * LEAST_WINDOW_CHARS


def test_refused_window_ends_its_document_undivided(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 4xx is unrelated to the length; the answers of windows in flight arrive and are kept."""
    marker = "[[fault:http_422]]"
    place.documents({"long.txt": failing_document(marker)})
    prepared(place, narrow)
    run(place, monkeypatch)
    error = failed_at(place, marker)
    assert error["reason"] == "rejected"
    assert divisions(place, parts, marker) == 0
    assert error["window"]["answered"] > 0


def test_first_of_several_failed_windows_is_reported(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the document, also when a later one fails earlier."""
    text = failing_document("LATER")
    middle = text.index("\n", len(text) // 3)
    place.documents({"long.txt": f"{text[:middle]} EARLIER {text[middle:]}"})
    later_failed = threading.Event()
    refused: list[str] = []

    def fault(request: Any, n: int) -> Fault | None:
        prompt = json.dumps(request.body)
        if "EARLIER" in prompt:
            assert later_failed.wait(30)
        elif "LATER" in prompt:
            refused.append(prompt)
            if len(refused) == 2:  # a refused request is sent once more
                later_failed.set()
        return Fault("http_422") if "EARLIER" in prompt or "LATER" in prompt else None

    narrow.faults = fault
    prepared(place, narrow, settings={"runner.concurrency": 16})
    run(place, monkeypatch)
    assert failed_at(place, "EARLIER")["reason"] == "rejected"

"""The fake server fails in exactly the requested ways, and for no other document."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator

import jsonschema
import pytest
from chat_requests import CHATS, ROOT, SCHEMA, always, ask, content_of, saying
from fake_llm import FakeLLM, Fault, ReceivedRequest
from fake_llm.faults import NAMES, marked_fault


@pytest.fixture
def server() -> Iterator[FakeLLM]:
    """Yield a server that answers at once."""
    with FakeLLM(("llama3.1",)) as running:
        yield running


def test_fault_markers_apply_in_order() -> None:
    """Counted faults come first, then the one without a number for ever."""
    text = "[[fault:http_500*2]][[fault:nan*1]] news [[fault:nan*1]] [[fault:slow]]"
    assert [fault and fault.name for fault in (marked_fault(text, n) for n in range(1, 6))] == [
        "http_500",
        "http_500",
        "nan",
        "slow",
        "slow",
    ]
    assert marked_fault("[[fault:nan*1]]", 2) is None


@pytest.mark.parametrize("path", CHATS)
def test_counted_marker_affects_only_its_document(server: FakeLLM, path: str) -> None:
    """A document is identified by its marker, even in a longer re-ask."""
    text = "[[doc:d1]] [[fault:http_500*2]] text"
    codes = [ask(server, path, text + more).status_code for more in ("", " again", " and again")]
    assert codes == [500, 500, 200]
    assert ask(server, path, "[[doc:d2]] text").status_code == 200
    assert [(chat.document, chat.n) for chat in server.chats()] == [("d1", 1), ("d1", 2), ("d1", 3), ("d2", 1)]


def test_unknown_marker_is_reported(server: FakeLLM) -> None:
    """A mistyped fault must not look like a good document."""
    answer = ask(server, CHATS[0], "[[fault:htp_500]]")
    assert answer.status_code == 501
    assert "got 'htp_500'" in answer.json()["error"]
    with pytest.raises(ValueError, match="got 'nosuch'"):
        Fault("nosuch")


def test_faults_may_be_a_function(server: FakeLLM) -> None:
    """It receives the request and how often its document was sent."""
    seen_by: list[tuple[ReceivedRequest, int]] = []
    server.faults = lambda request, n: seen_by.append((request, n)) or (Fault("http_429") if n == 1 else None)
    answers = [ask(server, CHATS[1], "text") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [429, 200]
    assert answers[0].headers["retry-after"] == "1"
    assert [n for _, n in seen_by] == [1, 2]
    assert seen_by[0][0].body["messages"][1]["content"] == "text"


STATUSES = {
    "http_400": 400,
    "http_400_budget": 400,
    "http_400_crash": 400,
    "http_400_loading": 400,
    "http_401": 401,
    "http_402": 402,
    "http_403": 403,
    "http_403_empty": 403,
    "http_404_model": 404,
    "http_404_url": 404,
    "http_408": 408,
    "http_409": 409,
    "http_413": 413,
    "http_422": 422,
    "http_423": 423,
    "http_424": 424,
    "http_425": 425,
    "http_429": 429,
    "http_429_bare": 429,
    "http_429_date": 429,
    "http_460": 460,
    "http_499": 499,
    "http_500": 500,
    "http_502_html": 502,
    "http_503": 503,
    "http_503_retry": 503,
    "redirect": 302,
    "html_200": 200,
    "garbage_200": 200,
    "context": 400,
    "draining": 500,
}


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize(("name", "status"), STATUSES.items())
def test_status_fault_sends_its_status(server: FakeLLM, path: str, name: str, status: int) -> None:
    """This holds for each fault in both dialects, and the body is never a completion."""
    answer = ask(server, path, f"[[fault:{name}]]")
    assert answer.status_code == status
    assert b"choices" not in answer.content
    assert b'"done"' not in answer.content


def not_json(text: str) -> None:
    """Assert that a text is not JSON."""
    with pytest.raises((ValueError, RecursionError)):
        json.loads(text)


@pytest.mark.parametrize("path", CHATS)
def test_faults_with_invalid_json(server: FakeLLM, path: str) -> None:
    """A strict parser refuses each of them."""
    for name in (
        "invalid_json",
        "fenced",
        "prose",
        "think_block",
        "trailing_comma",
        "truncated",
        "loop_whitespace",
        "deep",
    ):
        not_json(content_of(ask(server, path, f"[[fault:{name}]]")))


@pytest.mark.parametrize("path", CHATS)
def test_faults_with_wrong_json(server: FakeLLM, path: str) -> None:
    """Each of them parses, but is not a requested answer."""
    bodies = {
        name: content_of(ask(server, path, f"[[fault:{name}]]")) for name in ("wrong_type", "nan", "doubly_encoded")
    }
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(bodies["wrong_type"]), SCHEMA)
    assert "NaN" in bodies["nan"]
    jsonschema.validate(json.loads(json.loads(bodies["doubly_encoded"])), SCHEMA)
    twice = content_of(ask(server, path, "[[fault:duplicate_key]]"))
    assert [key for key, _ in json.loads(twice, object_pairs_hook=list)] == ["vendor", "vendor", "total"]


@pytest.mark.parametrize("path", CHATS)
def test_lone_surrogate_fault_ends_the_longest_string(server: FakeLLM, path: str) -> None:
    """Only this character cannot be written as UTF-8; shape and keys are right."""
    server.answer = saying('{"vendor": "a \\"long\\" name \\u00e9", "total": 1}')
    payload = json.loads(content_of(ask(server, path, "[[fault:surrogate]]")))
    assert payload == {"vendor": 'a "long" name \ud83d', "total": 1}


def test_faults_without_content(server: FakeLLM) -> None:
    """Empty, null, thinking only, no choice, and not done differ on the wire."""
    ollama, vllm = CHATS
    assert content_of(ask(server, ollama, "[[fault:empty_content]]")) == ""
    assert content_of(ask(server, vllm, "[[fault:null_content]]")) is None
    assert ask(server, vllm, "[[fault:no_choices]]").json()["choices"] == []
    assert "message" not in ask(server, ollama, "[[fault:no_choices]]").json()
    assert ask(server, ollama, "[[fault:done_false]]").json()["done"] is False
    thought = ask(server, ollama, "[[fault:thinking_only]]").json()["message"]
    assert (thought["content"], bool(thought["thinking"])) == ("", True)
    message = ask(server, vllm, "[[fault:thinking_only]]").json()["choices"][0]["message"]
    assert (message["content"], bool(message["reasoning"])) == (None, True)
    whole = ask(server, vllm, "[[fault:answer_in_reasoning]]").json()["choices"][0]["message"]
    assert (whole["content"], set(json.loads(whole["reasoning"]))) == (None, {"vendor", "total"})


@pytest.mark.parametrize("path", CHATS)
def test_truncated_answer_has_finish_reason_length(server: FakeLLM, path: str) -> None:
    """It is the only sign of a truncated or looping answer."""
    for name in ("truncated", "loop_whitespace"):
        body = ask(server, path, f"[[fault:{name}]]").json()
        assert "length" in (body.get("done_reason"), body.get("choices", [{}])[0].get("finish_reason"))


def test_aborted_generation_is_reported(server: FakeLLM) -> None:
    """An abort has its finish reason, and an error within a stream comes inside a 200."""
    assert ask(server, CHATS[1], "[[fault:abort]]").json()["choices"][0]["finish_reason"] == "abort"
    assert ask(server, CHATS[0], "[[fault:abort]]").json()["done"] is False
    for path in CHATS:
        assert ask(server, path, "[[fault:stream_error]]").status_code == 500
        streamed = ask(server, path, "[[fault:stream_error]]", stream=True)
        assert streamed.status_code == 200
        assert '{"error":' in streamed.text


def test_slow_fault_delays_the_answer(server: FakeLLM) -> None:
    """The answer is right."""
    server.faults = always(Fault("slow", seconds=0.1))
    begun = time.monotonic()
    assert ask(server, CHATS[0], "text").status_code == 200
    assert time.monotonic() - begun >= 0.1


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("interim_102", [102, 200]),
        ("interim_103", [103, 200]),
        ("interim_many", [102, 102, 102, 103, 103, 200]),
        ("late_after_429", [429, 200]),
        ("late_after_504", [504, 200]),
        ("doubled", [200, 200]),
    ],
)
def test_displaced_replies_include_the_right_answer(
    server: FakeLLM, path: str, streamed: bool, name: str, statuses: list[int]
) -> None:
    """Extra replies come before or after it on the same connection, and every 200 is whole."""
    message = {"role": "user", "content": f"[[fault:{name}]] text"}
    body = json.dumps({"model": "llama3.1", "messages": [message], "stream": streamed}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(head.encode() + body)
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", data)] == statuses
    assert data.count(b'"role"') >= statuses.count(200)


def test_truncated_prompt_has_its_typical_count(server: FakeLLM) -> None:
    """Ollama returns this count after a silent truncation."""
    assert ask(server, CHATS[0], "[[fault:truncated_prompt]]").json()["prompt_eval_count"] == 4098


@pytest.mark.parametrize(
    ("fault", "factor"), [("count_high", 3), ("count_low", 1 / 3), ("count_zero", 0), ("count_missing", None)]
)
def test_wrong_counts_are_beside_a_right_answer(server: FakeLLM, fault: str, factor: float | None) -> None:
    """The number of prompt tokens is wrong or missing; the answer is as usual."""
    text = f"[[fault:{fault}]] text"
    for path in CHATS:
        reply = ask(server, path, text).json()
        usage = reply.get("usage", {}) if "choices" in reply else reply
        count = (usage or {}).get("prompt_tokens" if "choices" in reply else "prompt_eval_count")
        right = ask(server, CHATS[0], text.replace("fault:", "other:")).json()["prompt_eval_count"]
        assert (count is None) == (factor is None)
        assert factor is None or abs(count - factor * right) <= 10


def test_every_fault_has_a_test() -> None:
    """A new name in the table must appear in one of these files."""
    text = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "scripts").glob("test_fake_llm*.py"))
    named = set(re.findall(r"(?:fault:|\")([a-z0-9_]+)[]*\"]", text))
    assert sorted(NAMES - named) == []

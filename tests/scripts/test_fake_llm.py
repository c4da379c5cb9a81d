"""The fake server answers recorded requests as the recorded servers did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from chat_requests import ROOT, always
from fake_llm import FakeLLM, Fault

RECORDINGS = {
    record["name"]: record
    for record in map(json.loads, (ROOT / "tests/data/vllm_transcripts.jsonl").read_text("utf-8").splitlines())
}
# Recorded with a server that was full, killed, draining, stopping repetitions, or using another grammar back end:
# a fault or a setting simulates these, see below.
# Two more depend on the real tokenizer and have tests of their own.
OTHERWISE = ("max_tokens_over_remaining_room_clamped", "err_prompt_exactly_fills_context")
ANSWERED = sorted(
    name
    for name in RECORDINGS
    if not name.startswith(
        (*OTHERWISE, "auth", "schema_xgrammar", "engine_died", "draining", "queue_full", "repetition", "stream")
    )
)


@pytest.fixture
def recorded() -> Iterator[FakeLLM]:
    """Yield a server that is configured like the recorded one."""
    with FakeLLM(("smollm2",), 2048) as running:
        yield running


def replay(server: FakeLLM, name: str) -> requests.Response:
    """Return the fake server's reply to a recorded request."""
    recorded = RECORDINGS[name]["request"]
    raw = recorded.get("raw_body")
    data = raw.encode(recorded.get("raw_body_encoding", "utf-8")) if raw else json.dumps(recorded["json"]).encode()
    headers = {"Content-Type": "application/json", **recorded["headers"]}
    if recorded["json"] is None and not raw:
        data, headers = b"", recorded["headers"]
    return requests.request(recorded["method"], server.url + recorded["path"], data=data, headers=headers, timeout=60)


def shape(value: Any) -> Any:
    """Return the keys of a JSON value, three levels deep, without those that a server setting adds."""
    if isinstance(value, dict):
        inner = ("choices", "message", "usage", "error")
        return {key: shape(part) if key in inner else None for key, part in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__


def same_shape(answer: requests.Response, name: str) -> None:
    """Assert that a reply has the status, content type and keys of a recorded one."""
    expected = RECORDINGS[name]["response"]
    assert answer.status_code == expected["status"]
    if "content-type" in expected["headers"]:
        assert answer.headers["content-type"] == expected["headers"]["content-type"]
    assert shape(answer.json() if answer.content else "") == shape(expected["body"])


@pytest.mark.parametrize("name", ANSWERED)
def test_reply_has_the_recorded_shape(recorded: FakeLLM, name: str) -> None:
    """Status, content type and keys are those of the real server."""
    same_shape(replay(recorded, name), name)


@pytest.mark.parametrize("name", [name for name in ANSWERED if name.startswith(("err", "schema_auto"))])
def test_error_has_the_recorded_wording(recorded: FakeLLM, name: str) -> None:
    """The message begins like the real one, and has the same type and parameter."""
    actual, expected = replay(recorded, name).json(), RECORDINGS[name]["response"]["body"]
    if "error" not in expected:
        assert set(actual) == set(expected)
        return
    actual, expected = actual["error"], expected["error"]
    assert (actual["type"], actual["code"]) == (expected["type"], expected["code"])
    if not expected["message"].startswith("19 validation errors"):
        assert actual["param"] == expected["param"]
        assert actual["message"][:60] == expected["message"][:60]


@pytest.mark.parametrize(("fault", "name"), [("http_503", "queue_full_503"), ("http_500", "engine_died_in_flight_500")])
def test_status_fault_sends_the_recorded_reply(recorded: FakeLLM, fault: str, name: str) -> None:
    """It was recorded while a server was full or dying."""
    recorded.faults = always(Fault(fault))
    same_shape(replay(recorded, name), name)


def test_draining_server_is_healthy_but_refuses_requests(recorded: FakeLLM) -> None:
    """The refusal is the recorded one, and the health page proves little."""
    recorded.draining = True
    assert requests.get(recorded.url + "/health", timeout=60).status_code == 200
    answer = replay(recorded, "draining_new_request_500")
    same_shape(answer, "draining_new_request_500")
    assert answer.json() == RECORDINGS["draining_new_request_500"]["response"]["body"]


def test_key_is_required_as_recorded() -> None:
    """Chats need it in both dialects, health does not, and the request id becomes the reply's id."""
    with FakeLLM(("smollm2",), 2048, api_key="secret") as server:
        same_shape(replay(server, "auth_missing"), "auth_missing")
        answer = replay(server, "auth_ok_no_request_id_header")
        same_shape(answer, "auth_ok_no_request_id_header")
        assert answer.json()["id"] == "chatcmpl-doc-0002"
        assert requests.get(server.url + "/health", timeout=60).status_code == 200
        assert requests.get(server.url + "/api/tags", timeout=60).status_code == 401


def test_stopped_repetition_has_the_recorded_fields(recorded: FakeLLM) -> None:
    """Both fields of the reply show it."""
    recorded.faults = always(Fault("repetition"))
    answer = replay(recorded, "repetition_detection")
    same_shape(answer, "repetition_detection")
    expected = RECORDINGS["repetition_detection"]["response"]["body"]["choices"][0]
    actual = answer.json()["choices"][0]
    assert (actual["finish_reason"], actual["stop_reason"]) == (expected["finish_reason"], expected["stop_reason"])


def test_stream_events_are_as_recorded(recorded: FakeLLM) -> None:
    """First, usage and last event equal those of the real stream; the text is cut at max_tokens."""
    answer = replay(recorded, "stream_usage")
    expected = RECORDINGS["stream_usage"]["response"]
    assert answer.headers["content-type"] == expected["headers"]["content-type"]
    got_events, wanted_events = answer.text.split("\n\n"), expected["body"].split("\n\n")
    assert got_events[-2:] == wanted_events[-2:] == ["data: [DONE]", ""]
    actual, real = (json.loads(events[-3][6:]) for events in (got_events, wanted_events))
    assert (set(actual), actual["choices"], set(actual["usage"]) >= {"prompt_tokens"}) == (set(real), [], True)
    parts = [json.loads(event[6:])["choices"][0] for event in got_events[:-3]]
    assert parts[0]["delta"] == {"role": "assistant", "content": ""}
    assert parts[-1]["finish_reason"] == "length"

"""How the Ollama client handles the silent failures (wire/ollama.md, 5) and every error (6)."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from fake_llm import FakeLLM, Fault
from raw_server import answering, reply

from pipeline.config import OllamaConfig
from pipeline.llm.ollama import OllamaClient
from pipeline.records import ExtractionAttempt

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def error(text: str, **inner: Any) -> bytes:
    """Return the body of an error: a text, which may itself be llama-server's JSON."""
    return json.dumps({"error": json.dumps({"error": {"message": text, **inner}}) if inner else text}).encode()


TOO_LONG = "request (42947 tokens) exceeds the available context size (8192 tokens), try increasing it"
NO_REF = "JSON schema conversion failed:\nUnresolved $ref #/$defs/nope"
CRASHED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, check "
    "ollama server logs for details"
)
UNMARSHAL = "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message"

# status, body → reason, part of the message
ERRORS: list[tuple[int, bytes, str, str]] = [
    (400, error("missing request body"), "rejected", "missing request body"),
    (400, error("invalid character 'x' looking for beginning of value"), "rejected", "invalid character"),
    (400, error("unexpected EOF"), "rejected", "unexpected EOF"),
    (400, error(UNMARSHAL), "rejected", "cannot unmarshal"),
    (400, error('invalid think value: "foo" (must be "high", …)'), "rejected_config", "invalid think value"),
    (400, error('think must be a boolean or string ("high", …)'), "rejected_config", "think must be"),
    (400, error("top_logprobs must be between 0 and 20"), "rejected_config", "top_logprobs"),
    (400, error('time: missing unit in duration "300"'), "rejected_config", "missing unit"),
    (400, error("Unsupported type: 'bool'"), "rejected_config", "Unsupported type"),
    (400, error("model is required"), "model_not_found", "model is required"),
    (404, error("model '' not found"), "model_not_found", "not found"),
    (400, error("invalid model name"), "model_not_found", "invalid model name"),
    (404, error("model 'nosuch' not found"), "model_not_found", "'nosuch'"),
    (404, error('model "nosuch" not found, try pulling it first'), "model_not_found", "try pulling"),
    (400, error('"m" does not support chat'), "rejected_config", "does not support chat"),
    (400, error('"m" does not support thinking'), "rejected_config", "does not support thinking"),
    (400, error("registry.ollama.ai/library/m:latest does not support tools"), "rejected_config", "tools"),
    (500, error('option "num_ctx" must be of type integer'), "rejected_config", "num_ctx"),
    (500, error('option "stop" must be of an array of strings'), "rejected_config", "stop"),
    (
        500,
        error('invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
        "rejected_config",
        "xml",
    ),
    (400, error(NO_REF, code=400, type="invalid_request_error"), "rejected_config", "Unresolved $ref"),
    (
        *(400, error(TOO_LONG, code=400, type="exceed_context_size_error", n_prompt_tokens=42947, n_ctx=8192)),
        *("context_length", "n_prompt_tokens 42947, n_ctx 8192"),
    ),
    (400, error("the input length exceeds the context length"), "context_length", "input length"),
    (
        400,
        error("the prompt is longer than the context length currently available to the model; …"),
        "context_length",
        "",
    ),
    (503, error("server busy, please try again.  maximum pending requests exceeded"), "overloaded", "server busy"),
    (499, error("request canceled"), "server_error", "canceled"),
    (500, error(CRASHED), "server_error", "unexpectedly stopped"),
    (500, error("llama-server process has terminated: signal: killed"), "server_error", "terminated"),
    (500, error("timed out waiting for llama-server to start - progress 0.10"), "server_error", "timed out"),
    (500, error("unable to load full model on GPU"), "server_error", "GPU"),
    (500, error("unexpected server status: llm busy - no slots available"), "server_error", "no slots"),
    (500, error("an error was encountered while running the model: unexpected EOF"), "server_error", "unexpected EOF"),
    (500, error("template: :1:14: executing …"), "server_error", "template"),
    (500, error("prediction aborted, token repeat limit reached"), "generation_loop", "repeat limit"),
    (403, b"", "unauthorized", "refuses the host name"),
    (401, b'{"error":"unauthorized","signin_url":"https://x"}', "unauthorized", "unauthorized"),
    (429, error("too many requests"), "overloaded", "too many"),
    (502, b"<html>Bad Gateway</html>", "server_error", "no JSON"),
    (404, b"404 page not found", "not_found", "no JSON"),
    (405, b"405 method not allowed", "not_found", "no JSON"),
    (302, b"", "not_found", ""),
]


@pytest.mark.parametrize(("status", "body", "reason", "message"), ERRORS, ids=lambda value: str(value)[:40])
def test_error_reply_gives_the_expected_reason(status: int, body: bytes, reason: str, message: str) -> None:
    """The error is the status; status, type and, failing those, the text decide the reason."""
    with answering(reply(body, status)) as server:
        attempt = client_of(server.url).call_llm({"system": "s", "user": "u"}, SCHEMA, "u")
    assert (attempt.error, attempt.reason, attempt.raw_text) == (f"http_{status}", reason, None)
    assert message in attempt.message
    assert attempt.lost is (body == error(CRASHED))


def client_of(url: str, **settings: Any) -> OllamaClient:
    return OllamaClient(OllamaConfig(base_url=url, **{"timeout": 60.0, **settings}))


def attempt_of(body: Any, **settings: Any) -> ExtractionAttempt:
    """Return the attempt for a 200 with this body."""
    with answering(reply(body)) as server:
        return client_of(server.url, **settings).call_llm({"system": "s", "user": "u"}, SCHEMA, "u")


def whole(content: Any = '{"a": 1}', **more: Any) -> dict[str, Any]:
    """Return a complete reply."""
    return {"message": {"role": "assistant", "content": content}, "done": True, "done_reason": "stop"} | more


NOTHING = {"model": "", "created_at": "0001-01-01T00:00:00Z", "message": {"role": "", "content": ""}, "done": False}
THOUGHT = {"role": "assistant", "content": "", "thinking": "Let me see."}
# body → reason, text
SILENT: list[tuple[Any, str | None, str | None]] = [
    (whole(), None, '{"a": 1}'),
    (whole('{"a"', done_reason="length"), "output_truncated", '{"a"'),
    (whole("{" + " \n " * 200, done_reason="length"), "generation_loop", "{" + " \n " * 200),
    (whole("x1" * 400, done_reason="length"), "generation_loop", "x1" * 400),
    (whole(None, done_reason="length", message=THOUGHT), "output_truncated", None),
    (whole(done=False), "bad_response", '{"a": 1}'),
    (whole('{"a": ' + "." * 31, done=False, done_reason=""), "generation_loop", '{"a": ' + "." * 31),
    (whole("[" + " \n  " * 60, done=False), "generation_loop", "[" + " \n  " * 60),
    (whole("It is so, I think. " * 40, done=False), "generation_loop", "It is so, I think. " * 40),
    (NOTHING, "bad_response", None),
    (whole(done="true"), "bad_response", '{"a": 1}'),
    (whole(done_reason="load"), "bad_response", '{"a": 1}'),
    (whole(done_reason=None), None, '{"a": 1}'),
    (whole('{"a": 1', done_reason=None), "bad_response", '{"a": 1'),
    (whole(""), "empty_model_response", None),
    (whole(None), "empty_model_response", None),
    (whole(message=THOUGHT), "empty_model_response", None),
    (whole(7), "bad_response", None),
    (whole(message=None), "bad_response", None),
    ({"response": "x", "done": True}, "bad_response", None),
    (b"<html>Sign in</html>", "bad_response", None),
    (b"[1]", "bad_response", None),
    (b"", "bad_response", None),
]


@pytest.mark.parametrize(("body", "reason", "text"), SILENT, ids=lambda value: str(value)[:50])
def test_200_reply_is_an_answer_only_if_complete(body: Any, reason: str | None, text: str | None) -> None:
    """It must be done, have ended by itself and have text; incomplete text is kept in the attempt."""
    attempt = attempt_of(body)
    assert (attempt.error, attempt.reason, attempt.raw_text) == (reason, reason, text)


def test_answer_with_only_thinking_is_explained() -> None:
    """The message says what the tokens were used for."""
    assert "only thinking" in attempt_of(whole(message=THOUGHT)).message
    assert "all of them thought" in attempt_of(whole(None, done_reason="length", message=THOUGHT)).message


FAULTS = {
    "http_404_model": ("http_404", "model_not_found"),
    "http_404_url": ("http_404", "not_found"),
    "http_403_empty": ("http_403", "unauthorized"),
    "http_503_retry": ("http_503", "overloaded"),
    "http_413": ("http_413", "document_too_large"),
    "redirect": ("http_302", "not_found"),
    "html_200": ("bad_response", "bad_response"),
    "garbage_200": ("bad_response", "bad_response"),
    "context": ("http_400", "context_length"),
    "truncated": ("output_truncated", "output_truncated"),
    "empty_content": ("empty_model_response", "empty_model_response"),
    "null_content": ("empty_model_response", "empty_model_response"),
    "thinking_only": ("empty_model_response", "empty_model_response"),
    "no_choices": ("bad_response", "bad_response"),
    "done_false": ("bad_response", "bad_response"),
    "abort": ("bad_response", "bad_response"),
    "loop_whitespace": ("generation_loop", "generation_loop"),
    "repetition": ("generation_loop", "generation_loop"),
    "stream_error": ("http_500", "server_error"),
    "huge": ("response_too_large", "response_too_large"),
    "hang": ("timeout", "timeout"),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_faults_of_the_fake_server_give_the_same_reasons(name: str) -> None:
    """The fake server reproduces the recorded failures."""
    with FakeLLM(faults=lambda _seen, _n: Fault(name), answer=lambda *_: '{"a": "' + "word " * 9 + '"}') as server:
        attempt = client_of(server.url, timeout=1.0).call_llm({"user": "A text."}, SCHEMA, "A text.")
    assert (attempt.error, attempt.reason) == FAULTS[name]


@pytest.mark.parametrize("name", ["close", "reset", "half_body"])
def test_connection_broken_during_the_work_is_a_loss(name: str) -> None:
    """The server disappeared while it worked, which counts against the document."""
    with FakeLLM(faults=lambda _seen, _n: Fault(name)) as server:
        attempt = client_of(server.url).call_llm({"user": "A text."}, SCHEMA, "A text.")
    assert (attempt.error or "").startswith("connection_error: ")
    assert (attempt.reason, attempt.lost) == ("connection_error", True)


def test_too_long_prompt_is_a_400_with_counts() -> None:
    """`truncate: false` makes a server refuse a prompt that it would otherwise truncate silently."""
    with FakeLLM(context=4096, truncates=True) as server:
        attempt = client_of(server.url, num_ctx=4096).call_llm({"user": "word " * 9000}, SCHEMA, "word " * 9000)
    assert attempt.reason == "context_length"
    assert "n_ctx 4096" in attempt.message


def answers_with_loads(*loads_s: float, times: list[float]) -> list[ExtractionAttempt]:
    """Feed in answers with these model load times, requested at these times."""
    replies = [reply(whole(load_duration=int(load_s * 1e9))) for load_s in loads_s]
    clock = iter([moment for at in times for moment in (at, at + 2)])
    with answering(*replies) as server:
        client = OllamaClient(OllamaConfig(base_url=server.url), clock=lambda: next(clock))
        return [client.call_llm({"user": "u"}, SCHEMA, "u") for _ in loads_s]


def test_repeated_model_loads_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    """They are noted from the third load within ten minutes on, with a single warning."""
    caplog.set_level(logging.WARNING, logger="pipeline.llm.reload_detector")
    loads = (3.0, 0.0, 2.0, 0.01, 4.0, 0.9, 2.0)
    attempts = answers_with_loads(*loads, times=[0, 10, 20, 30, 40, 50, 60])
    assert [attempt.notes for attempt in attempts] == [(), (), (), (), ("model_reloading",), (), ("model_reloading",)]
    assert [record.__dict__["reason"] for record in caplog.records] == ["model_reloading"]


def test_requests_waiting_for_one_load_count_as_one_load() -> None:
    """Neither a cold start under load nor three loads in an hour are repeated loading."""
    together = answers_with_loads(5.0, 4.5, 4.0, 3.5, 3.0, times=[0.0, 0.5, 1.0, 1.5, 2.0])
    rare = answers_with_loads(5.0, 5.0, 5.0, times=[0, 1200, 2400])
    assert [attempt.notes for attempt in (*together, *rare)] == [()] * 8


@pytest.mark.parametrize(("prompt", "answer", "reason"), [(900, 100, None), (900, 101, "context_length")])
def test_answer_that_exceeded_the_context_is_refused(prompt: int, answer: int, reason: str | None) -> None:
    """Ollama then drops the start of the prompt and continues; an answer up to the last token is accepted."""
    counts = {"prompt_eval_count": prompt, "eval_count": answer, "done": True, "done_reason": "stop"}
    with answering(reply({"message": {"content": '{"a": 1}'}, **counts})) as server:
        attempt = OllamaClient(OllamaConfig(base_url=server.url, model="m", num_ctx=1000)).call_llm(
            {"user": "u"}, SCHEMA, "u"
        )
    assert (attempt.reason, attempt.needed_tokens) == (reason, prompt if reason else None)
    assert ("900 tokens" in attempt.message) == (reason is not None)

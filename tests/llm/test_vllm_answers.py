"""The vLLM client and 200 replies that are no answer, and errors that the recordings lack."""

from __future__ import annotations

from typing import Any

import pytest
from raw_server import answering, reply

from pipeline.config import VLLMConfig
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt


def attempt_of(answer: bytes, **settings: Any) -> ExtractionAttempt:
    """Return the attempt for this reply."""
    with answering({"/v1/chat/completions": answer}) as server:
        config = VLLMConfig(base_url=server.url, model="m", **{"timeout": 60.0, "max_tokens": 9, **settings})
        return VLLMClient(config).call_llm({"system": "s", "user": "u"}, None, "u")


def whole(content: Any = '{"a": 1}', finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """Return a complete reply."""
    text = {"role": "assistant", "content": content, **message}
    return {"choices": [{"index": 0, "message": text, "finish_reason": finish}], "usage": {"completion_tokens": 9}}


LOOP = "[" + " \n  " * 60
# body → reason, text, part of the message
ANSWERS: list[tuple[Any, str | None, str | None, str]] = [
    (whole(), None, '{"a": 1}', ""),
    (whole(reasoning="Let me see."), None, '{"a": 1}', ""),
    (whole(finish="length"), "output_truncated", '{"a": 1}', "stopped for length after 9 tokens (max_tokens 9)"),
    (whole(LOOP, "length"), "generation_loop", LOOP, "stopped for length"),
    (whole(None, "length", reasoning="Let me"), "output_truncated", None, "all of them thought"),
    (whole("", "length", reasoning_content="Let me"), "output_truncated", None, "all of them thought"),
    (whole(finish="repetition"), "generation_loop", '{"a": 1}', "the server stopped a repetition"),
    (whole(finish="abort"), "server_error", '{"a": 1}', "finish_reason abort"),
    (whole(finish="error"), "server_error", '{"a": 1}', "finish_reason error"),
    (whole(finish="tool_calls"), None, '{"a": 1}', ""),
    (whole(finish="content_filter"), "bad_response", '{"a": 1}', "'content_filter'"),
    (whole(finish=None), None, '{"a": 1}', ""),
    (whole(finish=7), "bad_response", '{"a": 1}', "finish_reason is 'int'"),
    (whole(None), "empty_model_response", None, "no content"),
    (whole(""), "empty_model_response", None, "no content"),
    (whole(" \n"), "empty_model_response", " \n", "no content"),
    (whole(None, reasoning="Let me see."), "empty_model_response", None, "only reasoning, no content"),
    (whole([{"type": "text", "text": "x"}]), None, "x", ""),
    (whole([{"type": "image_url"}]), "bad_response", None, "a part that is not text"),
    (whole({"text": "x"}), "bad_response", None, "`content` is of type dict"),
    ({"choices": [{"message": None}]}, "bad_response", None, "the first choice has no `message`"),
    ({"choices": None}, "bad_response", None, "no list `choices`"),
    ({"choices": []}, "empty_model_response", None, "`choices` is empty"),
    ({"error": {"message": "it broke", "type": "InternalServerError"}}, "server_error", None, "it broke"),
    ({"message": {"content": "x"}, "done": True}, "bad_response", None, "no list `choices`"),
    (b"<html>Sign in</html>", "bad_response", None, "not a JSON object"),
    (b"", "bad_response", None, "not a JSON object"),
]


@pytest.mark.parametrize(("body", "reason", "text", "message"), ANSWERS, ids=lambda value: str(value)[:60])
def test_200_reply_is_an_answer_only_if_complete(body: Any, reason: str | None, text: str | None, message: str) -> None:
    """It must have ended by itself and have text; otherwise text and cause are kept in the attempt."""
    attempt = attempt_of(reply(body))
    assert (attempt.error, attempt.reason, attempt.raw_text) == (reason, reason, text)
    assert message in attempt.message


def error(message: str, kind: str = "BadRequestError", param: str | None = None, **more: Any) -> dict[str, Any]:
    """Return an error body in vLLM's first shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": 400, **more}}


OLDER = "This model's maximum context length is 2048 tokens. However, you requested 2310 tokens (310 in the messages"
CHARS = "your prompt contains 99999 characters (more than 9999 characters, which is the upper bound for 2048 tokens)"
LLAMA = "request (3031 tokens) exceeds the available context size (1024 tokens), try increasing it"
# status, body → reason, part of the message
ERRORS: list[tuple[int, Any, str, str]] = [
    (400, error(OLDER), "context_length", "you requested 2310 tokens"),
    (400, error(CHARS, param="input_text"), "context_length", "99999 characters"),
    (400, error("it is too long", param="input_tokens"), "context_length", "too long"),
    (413, error("the context window was exceeded by 100 tokens"), "context_length", "by 100 tokens"),
    (422, {"detail": "input exceeds the context length"}, "context_length", "exceeds"),
    (400, error("no such thing", param="response_format"), "rejected_config", "no such thing"),
    (400, error("smollm2 is not a multimodal model"), "rejected_config", "multimodal"),
    (400, error("Input should be 'text', 'json_object' or 'json_schema'"), "rejected_config", "Input should be"),
    (400, error("Unsatisfiable schema: required property 'a' is unsatisfiable"), "rejected_config", "Unsatisfiable"),
    (400, error("JSON schema conversion failed:\nunsupported $ref"), "rejected_config", "conversion failed"),
    (400, error("cannot resolve $ref #/$defs/Nope, $defs not found"), "rejected_config", "$defs/Nope"),
    (400, error("unrecognized type strin"), "rejected_config", "strin"),
    (400, error("temperature must be in [0, 2], got 3.0."), "rejected_config", "got 3.0"),
    (400, error("something else"), "rejected", "something else"),
    (404, error("The model `m` does not exist.", "NotFoundError"), "model_not_found", "does not exist"),
    (404, error("The model `m` does not exist.", "invalid_request_error"), "model_not_found", "does not exist"),
    (404, error("not here", "NotFoundError"), "model_not_found", "not here"),
    (404, {"detail": "Not Found"}, "not_found", "Not Found"),
    (405, {"detail": "Method Not Allowed"}, "not_found", "Method Not Allowed"),
    (401, {"error": "Unauthorized"}, "unauthorized", "Unauthorized"),
    (403, b"", "unauthorized", "no JSON"),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, "overloaded", "Loading"),
    (500, {"error": None}, "server_error", "an error without a message"),
    (502, b"<html>Bad Gateway</html>", "server_error", "no JSON"),
]


@pytest.mark.parametrize(("status", "body", "reason", "message"), ERRORS, ids=lambda value: str(value)[:60])
def test_error_reply_gives_the_expected_reason(status: int, body: Any, reason: str, message: str) -> None:
    """The error is the status; status, type, parameter and, failing those, the text decide the reason."""
    attempt = attempt_of(reply(body, status))
    assert (attempt.error, attempt.reason, attempt.raw_text) == (f"http_{status}", reason, None)
    assert message in attempt.message


def test_counts_in_a_llama_cpp_error_are_used() -> None:
    """They are the prompt's length and the room for it, so a cut needs no second attempt."""
    body = error(LLAMA, "exceed_context_size_error", n_prompt_tokens=3031, n_ctx=1024)
    attempt = attempt_of(reply(body, 400), type="openai")
    assert (attempt.reason, attempt.needed_tokens, attempt.context_length) == ("context_length", 3031, 1024)
    assert attempt_of(reply(error("see type", "exceed_context_size_error"), 400)).reason == "context_length"


@pytest.mark.parametrize(("status", "lost"), [(500, True), (503, False)])
def test_engine_error_needs_status_500(status: int, lost: bool) -> None:
    """A gateway that repeats the message with another status is not a lost server."""
    assert attempt_of(reply(error("EngineCore encountered an issue."), status)).lost is lost

"""The vLLM dialect of the fake server, modelled on recordings of version 0.32.0.

It parses requests and renders answers; the server handles time, slots and faults.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

from fake_llm.chat import Chat, Completion, Refusal, Settings, Timing, count_tokens, decoded, json_bytes, pieces
from fake_llm.transport import Reply, Request
from fake_llm.vllm_request import Headers, an_object, error_reply, model, overflow, read_chat, texts, unknown_model

VERSION = "0.32.0"
FINGERPRINT = f"vllm-{VERSION}-bb6525e1"
CHAT = "/v1/chat/completions"
SPECIAL_TOKENS = frozenset({"<end_of_utterance>", "<fake_token_around_image>"})
"""Special tokens of SmolVLM's tokenizer without a common shape: one id each."""
TAIL = dict.fromkeys(
    ("prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics")
)


class VLLM:
    """Parser and renderer of the vLLM wire format; `gauges` returns the numbers of running and waiting requests."""

    def __init__(self, settings: Settings, gauges: Callable[[], tuple[int, int]]) -> None:
        self._settings = settings
        self._gauges = gauges
        self._numbers = itertools.count(1)

    def serves(self, path: str) -> bool:
        """Return whether a path belongs to this dialect; every unknown one does."""
        return bool(path)

    def page(self, request: Request) -> Reply:
        """Return the answer to anything that is not a chat."""
        pages = {
            "/health": lambda: Reply(200, content_type=""),
            "/v1/models": self._models,
            "/version": lambda: Reply(200, json_bytes({"version": VERSION})),
            "/load": lambda: Reply(200, json_bytes({"server_load": 0})),
            "/metrics": self._metrics,
        }
        if request.path in pages and request.method == "GET":
            return pages[request.path]()
        if request.path == "/tokenize" and not self._settings.tokenizer:
            return self.url_not_found()
        if request.path == "/tokenize" and request.method == "POST":
            return self._tokenize(request.body)
        if request.path in (*pages, CHAT, "/tokenize"):
            return Reply(405, json_bytes({"detail": "Method Not Allowed"}))
        return self.url_not_found()

    def parse(self, body: object, *, path: str, request_id: str) -> Chat:
        """Parse a chat request; raise Refusal."""
        del path
        return read_chat(body, self._settings, request_id=request_id or f"{next(self._numbers):016x}")

    def render(self, chat: Chat, completion: Completion, *, timing: Timing) -> Reply:
        """Render the answer."""
        del timing
        usage = usage_of(completion)
        if chat.stream:
            return self._events(chat, completion, usage=usage)
        if completion.breaks_off:
            return self.error(500, "Internal server error")
        body = {
            **self._start(chat, "chat.completion"),
            "choices": [] if completion.no_choices else [choice_of(completion)],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": usage,
            **TAIL,
        }
        return Reply(200, json_bytes(body))

    def error(self, status: int, message: str, *, headers: Headers = ()) -> Reply:
        """Return an error in the shape of this dialect."""
        return error_reply(status, message, headers=headers)

    def model_not_found(self, model: str) -> Reply:
        """Return the 404 of an unknown model."""
        return unknown_model(model, self._settings)

    def url_not_found(self) -> Reply:
        """Return the 404 of an unknown path."""
        return Reply(404, json_bytes({"detail": "Not Found"}))

    def context_exceeded(self, tokens: int, *, context: int) -> Reply:
        """Return the 400 of a prompt that does not fit."""
        del tokens
        return overflow(context)

    def _start(self, chat: Chat, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{chat.request_id}", "object": kind, "created": int(time.time()), "model": chat.model}

    def _events(self, chat: Chat, completion: Completion, *, usage: Mapping[str, Any] | None) -> Reply:
        start = self._start(chat, "chat.completion.chunk")

        def event(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
            return {**start, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

        events: list[Any] = [event({"role": "assistant", "content": ""})]
        if completion.reasoning:
            events.append(event({"reasoning": completion.reasoning}))
        events += [event({"content": part}) for part in pieces(completion.content or "")]
        if completion.breaks_off:
            failed = {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}
            events.append({"error": failed})
        else:
            events.append(event({"content": ""}, completion.finish))
        events = [{**start, "choices": []}] if completion.no_choices else events
        if chat.include_usage:
            events.append({**start, "choices": [], "usage": usage, "system_fingerprint": FINGERPRINT})
        body = b"".join(b"data: " + json_bytes(part) + b"\n\n" for part in events) + b"data: [DONE]\n\n"
        return Reply(200, body, "text/event-stream; charset=utf-8", streamed=True)

    def _models(self) -> Reply:
        about = {"object": "model", "created": self._settings.started, "owned_by": "vllm", "parent": None}
        length = {"max_model_len": self._settings.context, "permission": []}
        data = [{"id": name, **about, "root": name, **length} for name in self._settings.models]
        return Reply(200, json_bytes({"object": "list", "data": data}))

    def _metrics(self) -> Reply:
        running, waiting = self._gauges()
        labels = f'{{engine="0",model_name="{self._settings.models[0]}"}}'
        gauges = {"num_requests_running": running, "num_requests_waiting": waiting, "kv_cache_usage_perc": 0.0}
        lines = [f"# TYPE vllm:{name} gauge\nvllm:{name}{labels} {float(value)}\n" for name, value in gauges.items()]
        return Reply(200, "".join(lines).encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _tokenize(self, body: bytes) -> Reply:
        try:
            fields = an_object(decoded(body))
            model(fields, self._settings)
            text = texts(fields["messages"])[0] if "messages" in fields else str(fields.get("prompt", ""))
        except Refusal as refusal:
            return refusal.reply
        count = max(1, round(count_tokens(text) * self._settings.tokenizer))
        if "messages" not in fields:
            count = 1 if text in SPECIAL_TOKENS else max(2, count)
        reply = {
            "count": count,
            "max_model_len": self._settings.context,
            "tokens": list(range(count)),
            "token_strs": None,
        }
        return Reply(200, json_bytes(reply))


def usage_of(completion: Completion) -> dict[str, Any] | None:
    """Return the token counts of a completion; None when they are not reported."""
    prompt_tokens = completion.prompt_tokens
    if prompt_tokens is None:
        return None
    answer_tokens = completion.tokens
    details = dict.fromkeys(("prompt_tokens_details", "completion_tokens_details"))
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + answer_tokens,
        "completion_tokens": answer_tokens,
        **details,
    }


def choice_of(completion: Completion) -> dict[str, Any]:
    """Return the one choice of an answer."""
    thought_only = completion.reasoning and not completion.content
    message = {"role": "assistant", "content": None if thought_only else completion.content}
    message |= dict.fromkeys(("refusal", "annotations", "audio", "function_call"))
    message["reasoning"] = completion.reasoning
    ended = {"logprobs": None, "finish_reason": completion.finish, "stop_reason": completion.stop_reason}
    return {"index": 0, "message": message, **ended, "token_ids": None, "routed_experts": None}

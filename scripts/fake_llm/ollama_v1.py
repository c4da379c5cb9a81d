"""Ollama's OpenAI protocol, /v1, as recorded from version 0.33.0-rc2, which truncates long prompts without an error.

It parses requests and renders answers; the server handles time, slots and faults.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

from fake_llm.chat import JSON_MODE, Chat, Completion, Refusal, Settings, Timing, count_tokens, json_bytes, texts_of
from fake_llm.faults import half_window
from fake_llm.ollama import tagged
from fake_llm.transport import Reply, Request

CHAT = "/v1/chat/completions"
Headers = tuple[tuple[str, str], ...]


class OllamaV1:
    """Parser and renderer of the OpenAI protocol as Ollama implements it; requests cannot change the context."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = tuple(tagged(name) for name in settings.models)
        self._numbers = itertools.count(1)

    def serves(self, path: str) -> bool:
        """Return whether a path belongs to this dialect; every unknown one does."""
        return bool(path)

    def page(self, request: Request) -> Reply:
        """Return the answer to anything that is not a chat."""
        if request.path == "/v1/models" and request.method == "GET":
            about = {"object": "model", "created": self._settings.started, "owned_by": "library"}
            return Reply(200, json_bytes({"object": "list", "data": [{"id": name, **about} for name in self._names]}))
        if request.path in ("/v1/models", CHAT):
            return Reply(405, b"405 method not allowed", "text/plain")
        return self.url_not_found()

    def parse(self, body: object, *, path: str, request_id: str) -> Chat:
        """Parse a chat request; raise Refusal."""
        del path
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            raise Refusal(self.error(400, "invalid request body"))
        model = str(body.get("model") or "")
        if tagged(model) not in self._names:
            raise Refusal(self.model_not_found(model))
        prompt, document = texts_of(body["messages"])
        shape: dict[str, Any] = body.get("response_format") or {}
        schema = JSON_MODE if shape.get("type") == "json_object" else (shape.get("json_schema") or {}).get("schema")
        chat = Chat(
            model=model,
            prompt=prompt,
            document_text=document,
            prompt_tokens=count_tokens(prompt),
            context=self._settings.context,
            max_tokens=body.get("max_tokens"),
            schema=schema,
            thinks=self._settings.thinking,
            request_id=request_id or str(next(self._numbers)),
        )
        if chat.prompt_tokens < chat.context:
            return chat
        kept_tokens = half_window(chat.context)
        tail = chat.prompt[-4 * (kept_tokens - 4) :]
        return replace(chat, prompt=chat.prompt[:16] + tail, document_text=tail, prompt_tokens=kept_tokens)

    def render(self, chat: Chat, completion: Completion, *, timing: Timing) -> Reply:
        """Render the answer."""
        del timing
        if completion.breaks_off:
            return self.error(500, "an error was encountered while running the model: unexpected EOF")
        prompt_tokens = completion.prompt_tokens or 0
        answer_tokens = completion.tokens
        message = {"role": "assistant", "content": completion.content}
        message |= {"reasoning": completion.reasoning} if completion.reasoning else {}
        return Reply(
            200,
            json_bytes(
                {
                    "id": f"chatcmpl-{chat.request_id}",
                    "object": "chat.completion",
                    "created": int(time.time()),
                    "model": chat.model,
                    "system_fingerprint": "fp_ollama",
                    "choices": [{"index": 0, "message": message, "finish_reason": completion.finish}],
                    "usage": {
                        "prompt_tokens": prompt_tokens,
                        "completion_tokens": answer_tokens,
                        "total_tokens": prompt_tokens + answer_tokens,
                    },
                }
            ),
        )

    def error(self, status: int, message: str, *, headers: Headers = ()) -> Reply:
        """Return an error in the shape of this dialect."""
        kinds = {400: "invalid_request_error", 404: "not_found_error"}
        details = {"message": message, "type": kinds.get(status, "api_error"), "param": None, "code": None}
        return Reply(status, json_bytes({"error": details}), headers=headers)

    def model_not_found(self, model: str) -> Reply:
        """Return the 404 of an unknown model."""
        return self.error(404, f"model '{model}' not found")

    def url_not_found(self) -> Reply:
        """Return the 404 of an unknown path."""
        return Reply(404, b"404 page not found", "text/plain")

    def context_exceeded(self, tokens: int, *, context: int) -> Reply:
        """Return the 400 of a prompt that does not fit."""
        return self.error(400, f"request ({tokens} tokens) exceeds the available context size ({context} tokens)")

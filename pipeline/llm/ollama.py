"""The client of Ollama: POST /api/chat, the native protocol (its OpenAI one ignores num_ctx).

Facts of Ollama 0.32.9. It believes nothing but `done: true` with done_reason `stop` and a prompt that was not cut.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.answers import looks_like_loop
from pipeline.config import OllamaConfig
from pipeline.llm.http import CallFailedError, Endpoint, Reply
from pipeline.llm.protocol import (
    Bodies,
    ServerError,
    access_of,
    count_notes,
    cut_reason,
    decode_object,
    failed_answer,
    failed_call,
    failed_status,
    failed_stream,
    messages,
    served_by,
    whole_number,
)
from pipeline.llm.reload_detector import ReloadWatch
from pipeline.llm.sse import join_lines
from pipeline.llm.truncation import TruncationJudge
from pipeline.records import ExtractionAttempt

MAX_DURATION_NS = 10**18
"""About 30 years."""

NANOSECOND = 1e-9


class OllamaClient:
    """Asks one Ollama server (the first of `base_url`); one instance serves many threads.

    `think` is what to send as such: None sends nothing (models without the capability refuse the field).
    """

    def __init__(
        self,
        config: OllamaConfig,
        *,
        provider: str | None = None,
        endpoint: Endpoint | None = None,
        think: bool | str | None = None,
        pool_size: int = 256,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.config, self.think, self._clock, self._now = config, think, clock, now
        self.endpoint = endpoint or Endpoint(config.base_urls[0], access_of(config, pool_size=pool_size))
        self.model = served_by(provider or config.type, config.model, config.base_urls[0])
        self.context_length = config.num_ctx
        self._truncation = TruncationJudge(config.num_ctx)
        self._reloads = ReloadWatch()
        self.bodies = Bodies(self.payload)

    def payload(self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None) -> dict[str, Any]:
        """The request's body. `truncate: false` makes a prompt that is too long an error instead of half a prompt."""
        options = {
            "num_ctx": self.config.num_ctx,
            "num_predict": self.config.max_tokens,
            "temperature": self.config.temperature,
        }
        body: dict[str, Any] = {
            "model": self.config.model,
            "stream": self.config.stream,
            "truncate": False,
            "keep_alive": self.config.keep_alive,
            "options": options,
        }
        body |= {"format": json_schema} if json_schema is not None else {}
        body |= {"think": self.think} if self.think is not None else {}
        return body | {"messages": messages(prompts)}

    def call_llm(
        self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None, document_text: str
    ) -> ExtractionAttempt:
        """What came of one request (LLMClient)."""
        started = self._clock()
        most = self.config.max_tokens
        attempt = ExtractionAttempt(self.model, context_length=self.context_length, max_tokens=most)
        try:
            body = self.bodies.body(prompts, json_schema)
            reply = self.endpoint.post("/api/chat", body, timeout_s=self.config.timeout)
        except CallFailedError as failure:
            attempt = failed_call(attempt, failure)
        else:
            size_bytes = max(_size_bytes(document_text), sum(map(_size_bytes, prompts.values())))
            attempt = self._reloads.seen(self._judge(attempt, reply, size_bytes=size_bytes), asked_at=started)
        return replace(attempt, latency_s=self._clock() - started)

    def adopt(
        self,
        *,
        model: str,
        think: bool | str | None,
        digest: str | None,
        context_length: int | None = None,
        server: str | None = None,  # noqa: ARG002 - what is sent does not depend on the version
    ) -> None:
        """Takes over what a preflight found out; called before the first document only."""
        if context_length is not None and context_length != self.context_length:
            self.context_length, self._truncation = context_length, TruncationJudge(context_length)
        self.config = replace(self.config, model=model)
        self.think, self.bodies = think, Bodies(self.payload)
        self.model = replace(self.model, name=model, digest=digest)

    def small(self, *, max_tokens: int, timeout_s: float) -> OllamaClient:
        """The same server over the same connections, asked for a few tokens only."""
        config = replace(self.config, max_tokens=max_tokens, timeout=timeout_s)
        client = OllamaClient(config, provider=self.model.provider, endpoint=self.endpoint, think=self.think)
        client.context_length = self.context_length
        return client

    def close(self) -> None:
        """Closes the idle connections."""
        self.endpoint.close()

    def _judge(self, attempt: ExtractionAttempt, reply: Reply, *, size_bytes: int) -> ExtractionAttempt:
        if reply.status != 200:
            return failed_status(attempt, reply, error_of(reply), now=self._now)
        body = join_lines(reply.body) if self.config.stream else decode_object(reply.body)
        if body is None:
            told = "the stream is not lines of JSON" if self.config.stream else "the reply is not a JSON object"
            return failed_answer(attempt, "bad_response", told)
        if "error" in body:
            return failed_stream(attempt, _unwrap(body["error"]))
        message = body.get("message")
        if not isinstance(message, dict) or not isinstance(message.get("content") or "", str):
            return failed_answer(attempt, "bad_response", "the reply has no `message` with a text")
        attempt = replace(_with_usage(attempt, body), raw_text=message.get("content") or None)
        if body.get("done") is True and self._truncation.is_cut(size_bytes, attempt.prompt_tokens):
            told = f"{size_bytes} bytes of prompt were answered as {attempt.prompt_tokens} tokens"
            return failed_answer(
                attempt, "prompt_truncated", f"{told}: the server cut it (num_ctx {self.config.num_ctx})"
            )
        if body.get("done") is True and (overrun := self._overrun(attempt)):
            return replace(failed_answer(attempt, "context_length", overrun), needed_tokens=attempt.prompt_tokens)
        return _judge_end(attempt, body, thought=bool(message.get("thinking")))

    def _overrun(self, attempt: ExtractionAttempt) -> str | None:
        """What is wrong with an answer that ran past the context: its prompt was being forgotten as it was written."""
        prompt, answer, limit = attempt.prompt_tokens or 0, attempt.completion_tokens or 0, self.context_length
        if prompt + answer <= limit:
            return None
        return f"the prompt has {prompt} tokens, the answer {answer}: together more than the context of {limit}"


def _judge_end(attempt: ExtractionAttempt, body: Mapping[str, Any], *, thought: bool) -> ExtractionAttempt:
    """An answer counts when it is done, ended by itself and says something."""
    if body.get("done") is not True:
        if _repeats(attempt.raw_text) or looks_like_loop(attempt.raw_text or ""):
            return failed_answer(attempt, "generation_loop", "the server broke off a repetition (done: false)")
        return failed_answer(attempt, "bad_response", "the answer broke off: done is not true")
    reason = body.get("done_reason")
    if reason == "length":
        told = f"stopped for length after {attempt.completion_tokens} tokens (num_predict {attempt.max_tokens})"
        told += ", all of them thought" if thought and attempt.raw_text is None else ""
        return failed_answer(attempt, cut_reason(attempt.raw_text), told)
    if reason != "stop":
        shown = reason if isinstance(reason, str) else type(reason).__name__
        return failed_answer(attempt, "bad_response", f"done_reason is {shown[:40]!r}, need 'stop'")
    if attempt.raw_text is None or not attempt.raw_text.strip():
        return failed_answer(attempt, "empty_model_response", "only thinking, no content" if thought else "no content")
    return attempt


def _repeats(text: str | None) -> bool:
    """True when a text ends in 20 equal pieces of up to 8 characters: what makes Ollama break off."""
    tail = (text or "")[-160:]
    return any(len(tail) >= 20 * n and tail[-20 * n :] == tail[-n:] * 20 for n in range(1, 9))


def _with_usage(attempt: ExtractionAttempt, body: Mapping[str, Any]) -> ExtractionAttempt:
    """Durations come in nanoseconds; what total leaves over load, prompt and answer is the wait in the queue."""
    total, load, prompt, answer = (
        whole_number(body.get(f"{part}duration"), most=MAX_DURATION_NS)
        for part in ("total_", "load_", "prompt_eval_", "eval_")
    )
    queue_ns = None if total is None else max(0, total - (load or 0) - (prompt or 0) - (answer or 0))
    return replace(
        attempt,
        prompt_tokens=whole_number(body.get("prompt_eval_count")),
        completion_tokens=whole_number(body.get("eval_count")),
        notes=(*attempt.notes, *count_notes(body.get("prompt_eval_count"), body.get("eval_count"))),
        queue_s=None if queue_ns is None else queue_ns * NANOSECOND,
        load_s=None if load is None else load * NANOSECOND,
    )


def error_of(reply: Reply) -> ServerError:
    """An error body of Ollama: `{"error": text}`, where the text may itself be llama-server's JSON error."""
    body = decode_object(reply.body)
    if reply.status == 403 and not reply.body.strip():
        return ServerError("an empty answer: Ollama refuses the host name in `base_url` (it listens on loopback only)")
    if body is None or "error" not in body:
        return ServerError("no JSON in the error's body" if body is None else "an error without a message")
    return _unwrap(body["error"])


def _unwrap(error: object) -> ServerError:
    text = error if isinstance(error, str) else json.dumps(error)
    inner = decode_object(text.encode("utf-8", "replace")) if text.lstrip().startswith("{") else None
    found = (inner or {}).get("error", inner)
    if not isinstance(found, dict):
        return ServerError(text)
    kind = found.get("type")
    counts = ", ".join(f"{key} {found[key]}" for key in ("n_prompt_tokens", "n_ctx") if key in found)
    said = f"{found.get('message') or text} ({counts})" if counts else str(found.get("message") or text)
    return ServerError(
        said,
        kind if isinstance(kind, str) else None,
        needed_tokens=whole_number(found.get("n_prompt_tokens")),
        context_length=whole_number(found.get("n_ctx")),
    )


def _size_bytes(text: str) -> int:
    """The length in UTF-8, which tokens follow in every script; characters they do not."""
    return len(text.encode("utf-8", "replace"))

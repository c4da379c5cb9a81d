"""The client of Ollama: POST /api/chat, the native protocol (its OpenAI one ignores num_ctx).

Tested with Ollama 0.32.9. Only `done: true` with done_reason `stop` and a prompt that was not truncated counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.config import OllamaConfig
from pipeline.config.keys import provider_key
from pipeline.llm.endings import OLLAMA, ended_early, judge_end
from pipeline.llm.error_bodies import error_in, read_error
from pipeline.llm.overhead import Overhead
from pipeline.llm.prompt_length.ollama_truncation import TruncationJudge
from pipeline.llm.prompt_length.repetition import size_of
from pipeline.llm.prompt_length.verifier import PromptVerifier
from pipeline.llm.protocol import (
    Bodies,
    ServerError,
    access_of,
    count_notes,
    decode_object,
    failed_answer,
    failed_call,
    failed_status,
    failed_stream,
    is_answer,
    messages,
    served_by,
    whole_number,
)
from pipeline.llm.reload_detector import ReloadWatch
from pipeline.llm.transport.http import CallFailedError, Endpoint, Reply
from pipeline.llm.transport.sse import join_lines
from pipeline.records import ExtractionAttempt, changed

MAX_DURATION_NS = 10**18
"""About 30 years."""

NANOSECOND = 1e-9

AUTO_NUM_CTX = 8192
"""The context of `num_ctx: auto` when no model with a suitable context is loaded."""


class OllamaClient:
    """A client of one Ollama server, the first of `base_url`; safe in threads. It connects with the first request.

    `think`: the value of the field; None leaves it out (models without the capability refuse it).
    `num_ctx`: the context that is sent. `wanted_context`: the same, limited to the trained context.
    `own_context`: the context of the model that was loaded for this client.
    """

    def __init__(
        self,
        config: OllamaConfig,
        *,
        provider: str | None = None,
        endpoint: Endpoint | None = None,
        think: bool | str | None = None,
        pool_size: int = 256,
        from_reasoning: bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.clock = clock
        self._now = now
        self.think = think if config.think == "auto" else config.think
        self.endpoint = endpoint or Endpoint(config.base_urls[0], access_of(config, pool_size=pool_size))
        self.model = served_by(provider or config.type, config.model, config.base_urls[0])
        self.num_ctx = AUTO_NUM_CTX if config.num_ctx == "auto" else config.num_ctx
        self.context_length = self.num_ctx
        self.wanted_context = self.num_ctx
        self.own_context = self.num_ctx
        self.from_reasoning = from_reasoning
        self._truncation = TruncationJudge(self.num_ctx)
        self._reloads = ReloadWatch()
        self.verifier = PromptVerifier(self.model.provider)
        self.overhead = Overhead()
        self.bodies = Bodies(self.payload)

    def payload(self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the request's body. With `truncate: false` Ollama refuses a prompt that is too long."""
        options = {
            "num_ctx": self.num_ctx,
            "num_predict": self.config.max_tokens,
            "temperature": self.config.temperature,
            **self.config.options,
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
        body |= self.config.extra_body
        return body | {"messages": messages(prompts)}

    def call_llm(
        self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None, document_text: str
    ) -> ExtractionAttempt:
        """Send one request and return its outcome (LLMClient)."""
        started_at = self.clock()
        max_tokens = self.config.max_tokens
        attempt = ExtractionAttempt(self.model, context_length=self.context_length, max_tokens=max_tokens)
        try:
            body = self.bodies.body(prompts, json_schema)
            reply = self.endpoint.post("/api/chat", body, timeout_s=self.config.timeout)
        except CallFailedError as failure:
            attempt = failed_call(attempt, failure)
        else:
            size_bytes = max(size_of(document_text), size_of(*prompts.values()))
            attempt = self._judge(attempt, reply, size_bytes=size_bytes, json_schema=json_schema)
            attempt = self._reloads.noted(attempt, sent_at=started_at)
        return changed(attempt, latency_s=self.clock() - started_at)

    def adopt(
        self,
        *,
        model: str,
        think: bool | str | None,
        digest: str | None,
        context_length: int | None = None,
        server: str | None = None,  # noqa: ARG002 - what is sent does not depend on the version
    ) -> None:
        """Apply the facts of a preflight; called before the first document only."""
        if context_length is not None and self.config.num_ctx == "auto":
            self.ask_for_context(context_length)
        elif context_length is not None and context_length != self.context_length:
            self.context_length = context_length
            self._truncation = TruncationJudge(context_length)
        self.config = replace(self.config, model=model)
        self.think = think if self.config.think == "auto" else self.config.think
        self.bodies = Bodies(self.payload)
        self.model = replace(self.model, name=model, digest=digest)

    @property
    def contexts(self) -> frozenset[int]:
        """The contexts with which a loaded model answers this client without being reloaded."""
        return frozenset({self.num_ctx, self.wanted_context, self.own_context, self.context_length})

    def ask_for_context(self, num_ctx: int) -> None:
        """Send this context from now on; called by a preflight, for `num_ctx: auto`."""
        if num_ctx != self.num_ctx:
            self.num_ctx = self.context_length = self.wanted_context = self.own_context = num_ctx
            self._truncation = TruncationJudge(num_ctx)
            self.bodies = Bodies(self.payload)

    def short_client(self, *, max_tokens: int, timeout_s: float) -> OllamaClient:
        """Return a client of the same server and connections whose answers are a few tokens long."""
        config = replace(self.config, max_tokens=max_tokens, timeout=timeout_s)
        client = OllamaClient(config, provider=self.model.provider, endpoint=self.endpoint, think=self.think)
        client.from_reasoning = self.from_reasoning
        client.num_ctx = self.num_ctx
        client.context_length = self.context_length
        return client

    def for_verification(self, max_tokens: int) -> OllamaClient:
        """Return a client that sends the same requests with this `max_tokens`, without streaming."""
        client = self.short_client(max_tokens=max_tokens, timeout_s=self.config.timeout)
        client.config = replace(client.config, stream=False)
        return client

    def close(self) -> None:
        """Close the idle connections."""
        self.endpoint.close()

    def _judge(
        self, attempt: ExtractionAttempt, reply: Reply, *, size_bytes: int, json_schema: Mapping[str, Any] | None
    ) -> ExtractionAttempt:
        if not is_answer(reply):
            return failed_status(attempt, reply, error_of(reply), now=self._now)
        body = join_lines(reply.body) if self.config.stream else decode_object(reply.body)
        if body is None:
            complaint = "the stream is not lines of JSON" if self.config.stream else "the reply is not a JSON object"
            return failed_answer(attempt, "bad_response", complaint)
        if "error" in body:
            return failed_stream(attempt, error_in(body))
        message = body.get("message")
        if not isinstance(message, dict) or not isinstance(message.get("content") or "", str):
            return failed_answer(attempt, "bad_response", "the reply has no `message` with a text")
        attempt = changed(_with_usage(attempt, body), raw_text=message.get("content") or None)
        is_short = self._truncation.is_cut(size_bytes, attempt.prompt_tokens)
        if body.get("done") is True and is_short and not self.verifier.is_decisive:
            setting = provider_key(self.model.provider, "num_ctx")
            complaint = f"the server read {attempt.prompt_tokens} tokens of a prompt of {size_bytes} bytes"
            complaint += f": it cut the rest (`{setting}` is {self.num_ctx})"
            return failed_answer(attempt, "prompt_truncated", complaint)
        if body.get("done") is True and (overrun := self._overrun(attempt)):
            return changed(failed_answer(attempt, "context_length", overrun), needed_tokens=attempt.prompt_tokens)
        if body.get("done") is not True:
            return ended_early(attempt, repeats=_repeats(attempt.raw_text))
        thoughts = message.get("thinking")
        return judge_end(
            attempt,
            body.get("done_reason"),
            dialect=OLLAMA,
            thoughts=thoughts if isinstance(thoughts, str) else "",
            json_schema=json_schema,
            from_reasoning=self.from_reasoning,
        )

    def _overrun(self, attempt: ExtractionAttempt) -> str | None:
        """Return a complaint if prompt and answer exceed the context together: the model lost the prompt's start."""
        prompt = attempt.prompt_tokens or 0
        answer = attempt.completion_tokens or 0
        limit = self.context_length
        if prompt + answer <= limit:
            return None
        return f"the prompt has {prompt} tokens, the answer {answer}: together more than the context of {limit}"


def _repeats(text: str | None) -> bool:
    """Return whether a text ends in 20 equal pieces of up to 8 characters, at which Ollama stops."""
    tail = (text or "")[-160:]
    return any(len(tail) >= 20 * n and tail[-20 * n :] == tail[-n:] * 20 for n in range(1, 9))


def _with_usage(attempt: ExtractionAttempt, body: Mapping[str, Any]) -> ExtractionAttempt:
    """Add counts and durations (in nanoseconds). The time not spent on load, prompt or answer is the queue's wait."""
    total, load, prompt, answer = (
        whole_number(body.get(f"{part}duration"), maximum=MAX_DURATION_NS)
        for part in ("total_", "load_", "prompt_eval_", "eval_")
    )
    queue_ns = None if total is None else max(0, total - (load or 0) - (prompt or 0) - (answer or 0))
    return changed(
        attempt,
        prompt_tokens=whole_number(body.get("prompt_eval_count")),
        completion_tokens=whole_number(body.get("eval_count")),
        notes=(*attempt.notes, *count_notes(body.get("prompt_eval_count"), body.get("eval_count"))),
        queue_s=None if queue_ns is None else queue_ns * NANOSECOND,
        load_s=None if load is None else load * NANOSECOND,
    )


def error_of(reply: Reply) -> ServerError:
    """Return the error of a reply of Ollama, whose refusal of a host name has no body."""
    if reply.status == 403 and not reply.body.strip():
        return ServerError("an empty answer: Ollama refuses the host name in `base_url` (it listens on loopback only)")
    return read_error(reply)

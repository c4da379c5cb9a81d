"""The client of vLLM and of other servers of the OpenAI protocol: POST /v1/chat/completions.

Tested with vLLM 0.32.0 and llama.cpp's server. Only a complete answer with finish_reason `stop` counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.config import VLLMConfig
from pipeline.llm.chat_completion import judge_completion
from pipeline.llm.error_bodies import error_in, read_error
from pipeline.llm.gateways import answered_by
from pipeline.llm.overhead import Overhead
from pipeline.llm.preflight.tokenizer import TokenIds, token_ids
from pipeline.llm.prompt_length.verifier import PromptVerifier
from pipeline.llm.protocol import (
    MESSAGE_CHARS,
    Bodies,
    access_of,
    decode_object,
    encode,
    failed_answer,
    failed_call,
    failed_status,
    failed_stream,
    is_answer,
    messages,
    served_by,
    version_numbers,
    whole_number,
)
from pipeline.llm.server_metrics import GaugeReader
from pipeline.llm.transport.http import Access, CallFailedError, Endpoint, Reply
from pipeline.llm.transport.request_ids import names_another
from pipeline.llm.transport.sse import join_chunks
from pipeline.records import ExtractionAttempt, changed

logger = logging.getLogger(__name__)

SCHEMA_NAME = "extraction"
REPETITION_SINCE = (0, 32)
REPETITION_DETECTION: Mapping[str, int] = {"max_pattern_size": 8, "min_count": 20}
"""End a loop after 20 equal patterns of up to 8 tokens (vLLM from 0.32); honest JSON contains up to six."""
LENGTHS = ("max_tokens", "max_completion_tokens")
TOKENIZE_TIMEOUT_S = 10.0
SPECIAL_TIMEOUT_S = 2.0
EVENTS = (b"data:", b"event:", b":")
"""Beginnings of a stream of server-sent events; some servers stream without being asked to."""


class VLLMClient:
    """A client of one vLLM server, the first of `base_url`; safe in threads. It connects with the first request.

    `wanted_model`: the configured model; empty means the only model that the server has.
    """

    def __init__(
        self,
        config: VLLMConfig,
        *,
        provider: str | None = None,
        endpoint: Endpoint | None = None,
        pool_size: int = 256,
        from_reasoning: bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._clock = clock
        self._now = now
        self.endpoint = endpoint or Endpoint(config.base_urls[0], access_of(config, pool_size=pool_size))
        self.model = served_by(provider or config.type, config.model, config.base_urls[0])
        self.wanted_model = config.model
        self.context_length: int | None = None
        self.from_reasoning = from_reasoning
        self.detects_repetition = False
        self.verifier = PromptVerifier(self.model.provider)
        self.overhead = Overhead()
        self.bodies = Bodies(self.payload)

    def payload(self, prompts: Mapping[str, str], json_schema: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the request's body: fields of the OpenAI protocol, then those of `extra_body`; null drops one."""
        body: dict[str, Any] = {"model": self.config.model} if self.config.model else {}
        body |= {
            "max_tokens": self.config.max_tokens,
            "temperature": self.config.temperature,
            "stream": self.config.stream,
        }
        if self.config.stream:
            body["stream_options"] = {"include_usage": True}
        if json_schema is not None:
            shape = {"name": SCHEMA_NAME, "schema": json_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        if self.detects_repetition:
            body["repetition_detection"] = REPETITION_DETECTION
        body["messages"] = messages(prompts)
        body |= self.config.extra_body
        return {name: value for name, value in body.items() if value is not None}

    def call_llm(
        self,
        prompts: Mapping[str, str],
        json_schema: Mapping[str, Any] | None,
        document_text: str,  # noqa: ARG002 - vLLM refuses long prompts, so no count is judged by it
    ) -> ExtractionAttempt:
        """Send one request and return its outcome (LLMClient)."""
        started_at = self._clock()
        bodies = self.bodies
        max_tokens = _most_tokens(bodies.settings)
        attempt = ExtractionAttempt(self.model, context_length=self.context_length, max_tokens=max_tokens)
        try:
            body = bodies.body(prompts, json_schema)
            reply = self.endpoint.post("/v1/chat/completions", body, timeout_s=self.config.timeout)
        except CallFailedError as failure:
            attempt = failed_call(attempt, failure)
        else:
            attempt = self._judge(attempt, reply, streams=bodies.settings.get("stream") is True, schema=json_schema)
        if attempt.reason == "context_length" and self.config.type == "vllm":
            left_s = self.config.timeout - (self._clock() - started_at)
            payload = self.payload(prompts, json_schema)
            attempt = self._with_count(attempt, payload, timeout_s=min(TOKENIZE_TIMEOUT_S, left_s))
        return changed(attempt, latency_s=self._clock() - started_at)

    def adopt(
        self,
        *,
        model: str,
        think: bool | str | None,  # noqa: ARG002 - vLLM has no such field
        digest: str | None,
        context_length: int | None = None,
        server: str | None = None,
    ) -> None:
        """Apply the facts of a preflight; called before the first document only."""
        self.config = replace(self.config, model=model)
        self.model = replace(self.model, name=model, digest=digest)
        self.context_length = context_length or self.context_length
        if server is not None:
            self.detects_repetition = self.config.type == "vllm" and version_numbers(server) >= REPETITION_SINCE
        self.bodies = Bodies(self.payload)

    def short_client(self, *, max_tokens: int, timeout_s: float) -> VLLMClient:
        """Return a client of the same server and connections whose answers are a few tokens long."""
        extra = dict(self.config.extra_body)
        extra |= {name: max_tokens for name in LENGTHS if extra.get(name) is not None}
        config = replace(self.config, max_tokens=max_tokens, timeout=timeout_s, extra_body=extra)
        client = VLLMClient(config, provider=self.model.provider, endpoint=self.endpoint)
        client.from_reasoning = self.from_reasoning
        client.context_length = self.context_length
        client.detects_repetition = self.detects_repetition
        return client

    def for_verification(self, max_tokens: int) -> VLLMClient:
        """Return a client that sends the same requests with this `max_tokens`, without streaming."""
        client = self.short_client(max_tokens=max_tokens, timeout_s=self.config.timeout)
        streams = ("stream", "stream_options")
        extra = {name: value for name, value in client.config.extra_body.items() if name not in streams}
        client.config = replace(client.config, extra_body=extra, stream=False)
        client.bodies = Bodies(client.payload)
        return client

    def gauge_reader(self) -> GaugeReader | None:
        """Return the reader of the queue's gauges; None for other servers. A page on another host gets no key."""
        if self.config.type != "vllm":
            return None
        if self.config.metrics_url:
            return GaugeReader(
                Endpoint(self.config.metrics_url, Access(ca_file=self.config.ca_file, proxy=self.config.proxy)), ""
            )
        return GaugeReader(self.endpoint, "/metrics")

    def close(self) -> None:
        """Close the idle connections."""
        self.endpoint.close()

    def _judge(
        self, attempt: ExtractionAttempt, reply: Reply, *, streams: bool, schema: Mapping[str, Any] | None
    ) -> ExtractionAttempt:
        if not is_answer(reply):
            return failed_status(attempt, reply, read_error(reply), now=self._now)
        start = reply.body[:200].lstrip()
        streamed = not start.startswith(b"{") and (streams or start.startswith(EVENTS))
        body = join_chunks(reply.body) if streamed else decode_object(reply.body)
        if body is None:
            message = "the stream is incomplete or invalid" if streamed else "the reply is not a JSON object"
            return failed_answer(attempt, "bad_response", message)
        if names_another(body.get("id"), reply.request_id):
            self.endpoint.distrust()
            return failed_answer(attempt, "bad_response", "the reply's id is that of another request")
        if "error" in body and "choices" not in body:
            return failed_stream(attempt, error_in(body))
        attempt = changed(attempt, server=answered_by(body, reply.headers))
        return judge_completion(attempt, body, json_schema=schema, from_reasoning=self.from_reasoning)

    def count_tokens(self, prompts: Mapping[str, str]) -> int | None:
        """Return the tokens of these prompts, by the server's tokenizer; None when it does not report them."""
        return self._tokenized(messages(prompts), timeout_s=TOKENIZE_TIMEOUT_S)[0] or None

    def count_and_context(self, prompts: Mapping[str, str]) -> tuple[int | None, int | None]:
        """Return the tokens of these prompts and the server's context; None for a value that it does not report."""
        return self._tokenized(messages(prompts), timeout_s=TOKENIZE_TIMEOUT_S)

    def count_text(self, text: str) -> int | None:
        """Return the tokens of a text without any template; None when the server does not report them."""
        ids = self._ids(text, parse_special=False)
        return None if ids is None else len(ids.tokens)

    def is_special_token(self, text: str) -> bool | None:
        """Return whether the server's tokenizer takes a text for one special token; None when it does not report it."""
        ids = self._ids(text, parse_special=True)
        if ids is None or ids.has_count or len(ids.tokens) != 1:  # vLLM 0.32, SGLang: one id
            return None if ids is None else len(ids.tokens) == 1
        ordinary_ids = self._ids(text, parse_special=False)  # llama.cpp: ordinary text may be one id, too
        return None if ordinary_ids is None else ordinary_ids.tokens != ids.tokens

    def _ids(self, text: str, *, parse_special: bool) -> TokenIds | None:
        """Return the ids of a text by /tokenize, in the dialects of vLLM and of llama.cpp; it is overhead."""
        model = {"model": self.config.model} if self.config.model else {}
        request = {**model, "prompt": text, "add_special_tokens": False}
        request |= {"content": text, "add_special": False, "parse_special": parse_special}
        self.overhead.add(None)
        try:
            reply = self.endpoint.post("/tokenize", encode(request), timeout_s=SPECIAL_TIMEOUT_S)
        except CallFailedError:
            return None
        return token_ids(decode_object(reply.body)) if reply.status == 200 else None

    def _tokenized(self, messages: Any, *, timeout_s: float) -> tuple[int | None, int | None]:
        """Return the tokens of a chat with its template, and the server's context; None for an unreported value."""
        if timeout_s <= 0:
            return None, None
        model = {"model": self.config.model} if self.config.model else {}
        request = {**model, "messages": messages, "add_generation_prompt": True}
        self.overhead.add(None)
        try:
            reply = self.endpoint.post("/tokenize", encode(request), timeout_s=timeout_s)
        except CallFailedError:
            return None, None
        body = (decode_object(reply.body) if reply.status == 200 else None) or {}
        return whole_number(body.get("count")), whole_number(body.get("max_model_len"))

    def _with_count(
        self, attempt: ExtractionAttempt, payload: Mapping[str, Any], *, timeout_s: float
    ) -> ExtractionAttempt:
        """Return the attempt with the prompt's true length in its message: the error stops counting at the limit."""
        count, limit = self._tokenized(payload.get("messages"), timeout_s=timeout_s)
        if not count:
            return attempt
        count_text = f"the prompt has {count} tokens" + (f", the context {limit}" if limit else "")
        message = f"{count_text}; {attempt.message}"[:MESSAGE_CHARS]
        return changed(attempt, message=message, needed_tokens=count, context_length=limit or attempt.context_length)


def _most_tokens(payload: Mapping[str, Any]) -> int | None:
    """Return the limit of the answer in tokens; `max_completion_tokens` takes precedence (vLLM 0.32.0)."""
    return whole_number(payload.get("max_completion_tokens")) or whole_number(payload.get("max_tokens"))


def check_vllm_health(base_url: str, timeout: float = 10.0, *, api_key: str = "") -> bool:
    """Return whether GET /v1/models answers 200 within `timeout` seconds; never raise for the server or the network.

    `base_url`: with or without /v1. The result is logged: at INFO if it is True, with the cause at WARNING if not.
    """
    config = VLLMConfig(base_url=base_url, api_key=api_key)
    place = served_by("vllm", "", config.base_urls[0]).endpoint
    endpoint = Endpoint(config.base_urls[0], Access(read_key=lambda: api_key))
    try:
        reply = endpoint.get("/v1/models", timeout_s=timeout)
    except CallFailedError as failure:
        _log_sick(place, failure.error)
        return False
    finally:
        endpoint.close()
    if reply.status != 200:
        _log_sick(place, f"http_{reply.status}")
        return False
    logger.info("vLLM health check passed: %s", place, extra={"endpoint": place})
    return True


def _log_sick(endpoint: str | None, error: str) -> None:
    """Log endpoint and cause in the message itself, as plain logging shows no fields."""
    logger.warning("vLLM health check failed: %s: %s", endpoint, error, extra={"endpoint": endpoint, "error": error})

"""Looks at a server before it is trusted with documents: is it there, is the model, does it take what we send?

It asks and reports; it decides nothing and keeps nothing. The agent's own schema goes first, a canary second, because
vLLM picks its grammar back end by the first structured request of its life (vLLM 0.32.0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.errors import PROVES_LIFE, kind_of, reason_of_status
from pipeline.llm.enforcement import unenforced
from pipeline.llm.http import CallFailedError, Endpoint, Reply
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.protocol import decode_object, encode, whole_number
from pipeline.llm.vllm import VLLMClient
from pipeline.records import ExtractionAttempt

QUICK_TIMEOUT_S = 10.0
TINY_TIMEOUT_S = 60.0
TINY_TOKENS = 8
CANARY_TOKENS = 48
TINY_PROMPTS = {"system": "", "user": "Say ok."}
CANARY_PROMPTS = {"system": "", "user": "Tell me in one short sentence of plain prose what a harbour is."}
CANARY_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"canary": {"type": "string", "enum": ["kJ7-sulphur"]}},
    "required": ["canary"],
    "additionalProperties": False,
}

Status = Literal["ok", "unreachable", "misconfigured"]


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a server says of itself and what was seen. Facts that are unknown are None; lengths are tokens.

    `reason` is of errors.REASONS when `status` is not ok. `prompt_tokens`: the prompt with an empty document.
    `unenforced`: places and keywords of the agent's schema that this kind of server is known not to enforce.
    """

    status: Status
    reason: str | None = None
    message: str = ""
    model: str | None = None
    models: tuple[str, ...] = ()
    server: str | None = None
    digest: str | None = None
    context_length: int | None = None
    prompt_tokens: int | None = None
    think: bool | str | None = None
    constrained: bool | None = None
    warnings: tuple[str, ...] = ()
    unenforced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """What documents will be asked: the prompts with an empty document, and the schema as servers get it."""

    prompts: Mapping[str, str]
    json_schema: Mapping[str, Any] | None = None


class _FoundError(Exception):
    """Ends an examination with what was found."""

    def __init__(self, found: Preflight) -> None:
        super().__init__(found.message)
        self.found = found


def examine(client: VLLMClient | OllamaClient, *, sample: Sample, full: bool, canary: bool) -> Preflight:
    """What the server behind `client` is fit for. Not `full`: only whether a tiny completion succeeds.

    A full look costs three to six small requests; the `canary` one more.
    """
    mode = client.config.preflight
    try:
        if not full or mode == "off":
            return _tiny(client, loads=full)
        return _full(client, sample=sample, canary=canary)
    except _FoundError as end:
        if mode != "warn" or end.found.status != "misconfigured":
            return end.found
        complaint = end.found.message
    try:
        return replace(_tiny(client, loads=True), warnings=(complaint,))
    except _FoundError as end:
        return end.found


def _tiny(client: VLLMClient | OllamaClient, *, loads: bool) -> Preflight:
    """Ok when a tiny completion succeeds; `loads`: the model may have to be loaded for it."""
    patience_s = client.config.load_timeout if loads and isinstance(client, OllamaClient) else None
    _complete(client, Sample(TINY_PROMPTS), max_tokens=TINY_TOKENS, timeout_s=patience_s)
    return Preflight("ok")


def _full(client: VLLMClient | OllamaClient, *, sample: Sample, canary: bool) -> Preflight:
    facts = _ollama_facts(client) if isinstance(client, OllamaClient) else _vllm_facts(client)
    if isinstance(client, OllamaClient):
        facts = _effective_context(client, facts)
    take_over(client, facts)
    seen = _complete(client, sample, max_tokens=TINY_TOKENS)
    if seen.reason in ("context_length", "prompt_truncated"):
        raise _misconfigured("rejected_config", f"the prompt without a document does not fit: {seen.message}")
    facts = replace(facts, prompt_tokens=seen.prompt_tokens)
    _check_fit(facts, max_tokens=client.config.max_tokens)
    if sample.json_schema is None:
        return facts
    facts = replace(facts, unenforced=tuple(unenforced(sample.json_schema, client.config.type)))
    return _with_canary(client, facts) if canary else facts


def take_over(client: VLLMClient | OllamaClient, facts: Preflight) -> None:
    """Tells a client what was found out about its server."""
    client.adopt(
        model=facts.model or client.config.model,
        think=facts.think,
        digest=facts.digest,
        context_length=facts.context_length,
        server=facts.server,
    )


def _vllm_facts(client: VLLMClient) -> Preflight:
    """Model, context and version of a vLLM or another OpenAI-like server (llama.cpp tells its context in `meta`)."""
    body = _get(client.endpoint, "/v1/models")
    served = _rows(body.get("data"))
    names = tuple(str(row.get("id")) for row in served)
    wanted = client.config.model
    if not wanted and len(names) != 1:
        raise _misconfigured("model_not_found", f"`model` is not set and the server has {_listed(names)}", models=names)
    if wanted and wanted not in names:
        raise _misconfigured(
            "model_not_found", f"model {wanted!r} is not there; there is {_listed(names)}", models=names
        )
    row = served[names.index(wanted or names[0])]
    meta = row.get("meta")
    context = whole_number(row.get("max_model_len")) or (
        whole_number(meta.get("n_ctx")) if isinstance(meta, dict) else None
    )
    version = _version(client.endpoint, "/version") if client.config.type == "vllm" else None
    return Preflight("ok", model=wanted or names[0], models=names, context_length=context, server=version)


def _ollama_facts(client: OllamaClient) -> Preflight:
    """Model, digest, version and capabilities of an Ollama; the model is loaded when this returns."""
    rows = {str(row.get("name")): row for row in _rows(_get(client.endpoint, "/api/tags").get("models"))}
    wanted = client.config.model
    name = next((name for name in _names_of(wanted) if name in rows), None)
    if name is None:
        raise _misconfigured(
            "model_not_found", f"model {wanted!r} is not there; there is {_listed(tuple(rows))}", models=tuple(rows)
        )
    shown = _post(client.endpoint, "/api/show", {"model": wanted}, timeout_s=QUICK_TIMEOUT_S)
    _load(client)
    return Preflight(
        "ok",
        model=wanted,
        models=tuple(rows),
        digest=str(rows[name].get("digest") or "") or None,
        server=_version(client.endpoint, "/api/version"),
        think=_think(shown),
        context_length=client.config.num_ctx,
    )


def _names_of(model: str) -> tuple[str, ...]:
    """The names under which a model may be listed: `latest` is its tag when it has no other."""
    return model, f"{model}:latest", model.removesuffix(":latest")


def _think(shown: Mapping[str, Any]) -> bool | str | None:
    """What to send as `think`: thinking off where the model can; gpt-oss knows levels only; else nothing at all."""
    details, capabilities = shown.get("details"), shown.get("capabilities")
    if not isinstance(capabilities, list) or "thinking" not in capabilities:
        return None
    return "low" if isinstance(details, dict) and details.get("family") in ("gptoss", "gpt-oss") else False


def _load(client: OllamaClient) -> None:
    """Loads a cold model with an empty message: it would abort the load if this client left before it is done."""
    options = {"num_ctx": client.config.num_ctx}
    body = {"model": client.config.model, "messages": [], "stream": False, "options": options}
    body["keep_alive"] = client.config.keep_alive
    _post(client.endpoint, "/api/chat", body, timeout_s=client.config.load_timeout)


def _effective_context(client: OllamaClient, facts: Preflight) -> Preflight:
    """The context the loaded model really has (/api/ps): Ollama clamps num_ctx to what the model was trained for."""
    rows, names = _rows(_get(client.endpoint, "/api/ps").get("models")), _names_of(client.config.model)
    lengths = [whole_number(row.get("context_length")) for row in rows if row.get("name") in names]
    if not lengths or not lengths[0] or lengths[0] >= client.config.num_ctx:
        return facts
    warning = f"num_ctx is {client.config.num_ctx}, but the loaded model has a context of {lengths[0]} tokens"
    return replace(facts, context_length=lengths[0], warnings=(*facts.warnings, warning))


def _complete(
    client: VLLMClient | OllamaClient, sample: Sample, *, max_tokens: int, timeout_s: float | None = None
) -> ExtractionAttempt:
    """A small completion; the examination ends when the server does not give one. A cut answer is a life sign too."""
    small = client.small(max_tokens=max_tokens, timeout_s=timeout_s or min(TINY_TIMEOUT_S, client.config.timeout))
    attempt = small.call_llm(sample.prompts, sample.json_schema, "")
    kind = kind_of(attempt.reason) if attempt.reason else "answer"
    if kind in ("answer", "document") or attempt.reason in PROVES_LIFE:
        return attempt
    status: Status = "misconfigured" if kind == "config" else "unreachable"
    raise _FoundError(
        Preflight(status, attempt.reason, f"a tiny completion failed: {attempt.message or attempt.error}")
    )


def _check_fit(facts: Preflight, *, max_tokens: int) -> None:
    if facts.context_length and facts.prompt_tokens and facts.prompt_tokens + max_tokens > facts.context_length:
        told = f"the prompt without a document takes {facts.prompt_tokens} tokens and max_tokens is {max_tokens}"
        raise _misconfigured("rejected_config", f"{told}: that does not fit the context of {facts.context_length}")


def _with_canary(client: VLLMClient | OllamaClient, facts: Preflight) -> Preflight:
    """Whether the server holds the model to a schema: only then does prose come back as this very object."""
    seen = client.small(max_tokens=CANARY_TOKENS, timeout_s=min(TINY_TIMEOUT_S, client.config.timeout)).call_llm(
        CANARY_PROMPTS, CANARY_SCHEMA, ""
    )
    try:
        enforced = json.loads(seen.raw_text or "") == {"canary": "kJ7-sulphur"}
    except (ValueError, RecursionError):
        enforced = False
    if enforced:
        return replace(facts, constrained=True)
    warning = "the server does not hold the model to the schema (constrained decoding is off): validation alone decides"
    return replace(facts, constrained=False, warnings=(*facts.warnings, warning))


def _version(endpoint: Endpoint, path: str) -> str | None:
    try:
        body = decode_object(endpoint.get(path, timeout_s=QUICK_TIMEOUT_S).body)
    except CallFailedError:
        return None
    return str(body["version"])[:40] if body and "version" in body else None


def _get(endpoint: Endpoint, path: str) -> dict[str, Any]:
    try:
        return _object(path, endpoint.get(path, timeout_s=QUICK_TIMEOUT_S))
    except CallFailedError as failure:
        raise _unreachable(failure) from failure


def _post(endpoint: Endpoint, path: str, body: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    try:
        return _object(path, endpoint.post(path, encode(body), timeout_s=timeout_s))
    except CallFailedError as failure:
        raise _unreachable(failure) from failure


def _object(path: str, reply: Reply) -> dict[str, Any]:
    if reply.status != 200:
        reason = reason_of_status(reply.status)
        told = f"{path} answers HTTP {reply.status}"
        if kind_of(reason) == "backend":
            raise _FoundError(Preflight("unreachable", reason, told))
        raise _misconfigured("not_found" if reason == "rejected" else reason, told)
    body = decode_object(reply.body)
    if body is None:
        raise _misconfigured(
            "not_found", f"{path} answers something else than a JSON object: is this the right server?"
        )
    return body


def _unreachable(failure: CallFailedError) -> _FoundError:
    return _FoundError(Preflight("unreachable", failure.reason, failure.error))


def _misconfigured(reason: str, message: str, *, models: tuple[str, ...] = ()) -> _FoundError:
    return _FoundError(Preflight("misconfigured", reason, message, models=models))


def _rows(listed: object) -> list[dict[str, Any]]:
    """The mappings of a list; nothing of anything else."""
    return [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:20])) or "no model at all"

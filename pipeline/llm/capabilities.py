"""Request the facts about a server: model, context length, version, and capabilities of the model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.config import OllamaConfig, VLLMConfig, mask_url
from pipeline.config.keys import provider_key
from pipeline.errors import kind_of, reason_of_status
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.protocol import decode_object, encode, whole_number
from pipeline.llm.sharing import names_of
from pipeline.llm.transport.http import CallFailedError, Endpoint, Reply
from pipeline.llm.vllm import VLLMClient

QUICK_TIMEOUT_S = 10.0
DEFAULT_ADDRESSES: Mapping[str, str] = {
    VLLMConfig().base_urls[0]: "VLLM_BASE_URL (or `vllm.base_url`)",
    OllamaConfig().base_urls[0]: "OLLAMA_BASE_URL (or `ollama.base_url`)",
}
"""Default address → the settings that replace it."""

Status = Literal["ok", "unreachable", "misconfigured"]


@dataclass(frozen=True, slots=True)
class Preflight:
    """Result of a preflight: the server's facts and the findings. Unknown facts are None; lengths are in tokens.

    `reason`: one of errors.REASONS if `status` is not ok. `prompt_tokens`: the prompt with an empty document.
    `unpaid`: the account has no budget left, so a first start does not wait.
    `enforcement`: "enforced", "not enforced" or "not verified (reason)"; empty if not tested.
    `refuses`: the server is known to refuse prompts that are too long. `dead_end`: no fallback may
    hide this misconfiguration.
    `load_s`: seconds that loading the model took.
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
    enforcement: str = ""
    warnings: tuple[str, ...] = ()
    unenforced: tuple[str, ...] = ()
    unpaid: bool = False
    refuses: bool = False
    dead_end: bool = False
    load_s: float | None = None


class FoundError(Exception):
    """The end of an examination, with its result."""

    def __init__(self, preflight: Preflight) -> None:
        super().__init__(preflight.message)
        self.preflight = preflight


def facts_of(client: VLLMClient | OllamaClient) -> Preflight:
    """Return model, context length, version and capabilities; an Ollama has loaded its model when this returns.

    Raise FoundError when the server cannot be reached, or is not of the configured type.
    """
    if isinstance(client, OllamaClient):
        return _effective_context(client, _ollama_facts(client))
    return _vllm_facts(client)


def _vllm_facts(client: VLLMClient) -> Preflight:
    """Return the facts of a vLLM or another OpenAI-like server (llama.cpp reports its context length in `meta`)."""
    body = _get(client.endpoint, "/v1/models")
    served = _rows(body.get("data"))
    names = tuple(str(row.get("id")) for row in served)
    requested = client.wanted_model
    is_ollama = any(row.get("owned_by") == "library" for row in served)
    warnings = of_ollama(client, Preflight("ok", models=names)).warnings if is_ollama else ()
    if not requested and len(names) != 1:
        raise misconfigured("model_not_found", f"`model` is not set and the server has {_listed(names)}", models=names)
    listed = next((name for name in names_of(requested) if name in names), "") if is_ollama else requested
    if requested and listed not in names:
        missing = f"model {requested!r} is not available; the server has {_listed(names)}{_nearest(requested, names)}"
        raise misconfigured("model_not_found", missing, models=names)
    row = served[names.index(listed or names[0])]
    meta = row.get("meta")
    context = whole_number(row.get("max_model_len")) or (
        whole_number(meta.get("n_ctx")) if isinstance(meta, dict) else None
    )
    version = _version(client.endpoint, "/version") if client.config.type == "vllm" else None
    engine = row.get("owned_by")
    max_model_len = whole_number(row.get("max_model_len"))
    facts = Preflight(
        "ok", model=requested or names[0], models=names, context_length=context, server=version, warnings=warnings
    )
    is_anonymous = context is None and version is None and engine not in ENGINES
    if not is_ollama and is_anonymous and _has_ollama_pages(client.endpoint):
        return of_ollama(client, facts)
    refuses = engine == "vllm" and bool(max_model_len) and "truncate_prompt_tokens" not in client.config.extra_body
    return replace(facts, refuses=refuses)


ENGINES = frozenset({"vllm", "sglang", "llamacpp"})
"""Engines by the `owned_by` of their models; any other server may be an Ollama, and is asked for its version."""


def of_ollama(client: VLLMClient, facts: Preflight) -> Preflight:
    """Return the facts with a warning; FoundError unless the context length is set: /v1 truncates prompts."""
    message = "this is an Ollama, and its /v1 cuts long prompts without an error: "
    message += f"use `type: ollama` instead of `type: {client.config.type}`"
    if client.config.context_length is None:
        message += " (or set the provider's `context_length` to the context that the model is loaded with)"
        raise FoundError(Preflight("misconfigured", "rejected_config", message, models=facts.models, dead_end=True))
    return facts if message in facts.warnings else replace(facts, warnings=(*facts.warnings, message))


def _ollama_facts(client: OllamaClient) -> Preflight:
    """Return the facts of an Ollama; the model is loaded when this returns."""
    rows = {str(row.get("name")): row for row in _rows(_ollama_tags(client.endpoint).get("models"))}
    requested = client.config.model
    name = next((name for name in names_of(requested) if name in rows), None)
    if name is None:
        names = tuple(rows)
        message = f"model {requested!r} is not available; the server has {_listed(names)}{_nearest(requested, names)}"
        raise misconfigured("model_not_found", message, models=names)
    details = _post(client.endpoint, "/api/show", {"model": requested}, timeout_s=QUICK_TIMEOUT_S)
    if trained := _trained_context(details):
        client.wanted_context = min(client.num_ctx, trained)
    began = client.clock()
    _load(client)
    return Preflight(
        "ok",
        model=requested,
        models=tuple(rows),
        digest=str(rows[name].get("digest") or "") or None,
        server=_version(client.endpoint, "/api/version"),
        think=_think(details) if client.config.think == "auto" else client.config.think,
        context_length=client.num_ctx,
        load_s=client.clock() - began,
    )


def _trained_context(details: Mapping[str, Any]) -> int | None:
    """Return the context length that the model was trained for (/api/show); Ollama never loads a longer one."""
    info = details.get("model_info")
    fields = info if isinstance(info, dict) else {}
    return whole_number(fields.get(f"{fields.get('general.architecture')}.context_length"))


def _think(response: Mapping[str, Any]) -> bool | str | None:
    """Return the value of `think`: off if the model can think; gpt-oss has levels only; None for other models."""
    details = response.get("details")
    capabilities = response.get("capabilities")
    if not isinstance(capabilities, list) or "thinking" not in capabilities:
        return None
    return "low" if isinstance(details, dict) and details.get("family") in ("gptoss", "gpt-oss") else False


def _load(client: OllamaClient) -> None:
    """Load a cold model with an empty message, and wait: Ollama aborts the load when its client disconnects."""
    options = {"num_ctx": client.num_ctx}
    body = {"model": client.config.model, "messages": [], "stream": False, "options": options}
    body["keep_alive"] = client.config.keep_alive
    _post(client.endpoint, "/api/chat", body, timeout_s=client.config.load_timeout)


def _effective_context(client: OllamaClient, facts: Preflight) -> Preflight:
    """Return the facts with the loaded model's context length (/api/ps): Ollama clamps num_ctx to the trained one."""
    rows = _rows(_get(client.endpoint, "/api/ps").get("models"))
    names = names_of(client.config.model)
    lengths = [whole_number(row.get("context_length")) for row in rows if row.get("name") in names]
    if not lengths or not lengths[0]:
        return facts
    client.own_context = lengths[0]
    if lengths[0] >= client.num_ctx:
        return facts
    setting = provider_key(client.model.provider, "num_ctx")
    warning = f"`{setting}` is {client.num_ctx}, but the loaded model has a context of {lengths[0]} tokens"
    return replace(facts, context_length=lengths[0], warnings=(*facts.warnings, warning))


def _has_ollama_pages(endpoint: Endpoint) -> bool:
    """Return whether the server has an Ollama's /api/version."""
    try:
        reply = endpoint.get("/api/version", timeout_s=QUICK_TIMEOUT_S)
    except CallFailedError:
        return False
    body = decode_object(reply.body) if reply.status == 200 else None
    return body is not None and list(body) == ["version"]


def _version(endpoint: Endpoint, path: str) -> str | None:
    try:
        body = decode_object(endpoint.get(path, timeout_s=QUICK_TIMEOUT_S).body)
    except CallFailedError:
        return None
    return str(body["version"])[:40] if body and "version" in body else None


def _get(endpoint: Endpoint, path: str) -> dict[str, Any]:
    try:
        return _object(endpoint, path, endpoint.get(path, timeout_s=QUICK_TIMEOUT_S))
    except CallFailedError as failure:
        raise _unreachable(failure, endpoint) from failure


def _post(endpoint: Endpoint, path: str, body: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    try:
        return _object(endpoint, path, endpoint.post(path, encode(body), timeout_s=timeout_s))
    except CallFailedError as failure:
        raise _unreachable(failure, endpoint) from failure


def _object(endpoint: Endpoint, path: str, reply: Reply) -> dict[str, Any]:
    if reply.status != 200:
        reason = reason_of_status(reply.status)
        message = f"{path} answers HTTP {reply.status}"
        if kind_of(reason) == "backend":
            raise FoundError(Preflight("unreachable", reason, message, unpaid=reply.status == 402))
        message += _hint(endpoint, reply)
        raise misconfigured("not_found" if reason == "rejected" else reason, message)
    body = decode_object(reply.body)
    if body is None:
        raise misconfigured("not_found", f"{path} does not return a JSON object: is this the right server?")
    return body


def _hint(endpoint: Endpoint, reply: Reply) -> str:
    """Return advice on the status: whether a key was sent, and where a redirect leads."""
    location = reply.headers.get("Location")
    if 300 <= reply.status < 400 and location:
        return (
            f", a redirect to {mask_url(location)[:200]}, which is not followed: name the server itself in `base_url`"
        )
    if reply.status != 401:
        return ""
    if endpoint.sends_key:
        return ": the server refuses the key"
    return ": no key was sent (set `api_key`, or name its file in `api_key_file`)"


def _unreachable(failure: CallFailedError, endpoint: Endpoint, *, start: str = "start one") -> FoundError:
    hint = ""
    if failure.refused:
        setting = DEFAULT_ADDRESSES.get(endpoint.base_url)
        elsewhere = f", or set {setting} to the address of yours" if setting else ""
        hint = f"; no server listens at this {'default ' if setting else ''}address: {start}{elsewhere}"
    return FoundError(Preflight("unreachable", failure.reason, f"{failure.error}{hint}"))


def _ollama_tags(endpoint: Endpoint) -> dict[str, Any]:
    """Return the models of an Ollama; FoundError explains how to start one when nothing listens at its port."""
    try:
        return _get(endpoint, "/api/tags")
    except FoundError as end:
        if not isinstance(end.__cause__, CallFailedError):
            raise
        raise _unreachable(end.__cause__, endpoint, start="start Ollama (`ollama serve`)") from end.__cause__


def misconfigured(reason: str, message: str, *, models: tuple[str, ...] = ()) -> FoundError:
    return FoundError(Preflight("misconfigured", reason, message, models=models))


def _rows(value: object) -> list[dict[str, Any]]:
    """Return the mappings of a list; an empty list for any other value."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:20])) or "no model at all"


def _nearest(model: str, names: tuple[str, ...]) -> str:
    """Return "did you mean" with the same name under another tag or owner, else with the most similar name."""
    stems = {_stem(name): name for name in reversed(names)}
    similar = difflib.get_close_matches(model, names, n=1, cutoff=0.6)
    similar = similar or [stems[stem] for stem in difflib.get_close_matches(_stem(model), stems, n=1, cutoff=0.6)]
    same_stem = stems.get(_stem(model))
    return f"; did you mean {(same_stem or similar[0])!r}?" if same_stem or similar else ""


def _stem(model: str) -> str:
    """Return the name of a model without its owner and tag, in lower case."""
    return model.rpartition("/")[2].partition(":")[0].casefold()

"""Fingerprints: equal for records of the same question from any server; also by the former formula.

    question ──canonical JSON──▶ sha256 = fingerprint

The question contains the settings that decide the answer: agent, variant, prompts, schema, the model's name and the
sampling parameters. It does not contain settings of transport or dialect (provider, address, context size, streaming),
so the same model on another server has the same question. Unused keys are omitted, so that a new key of a later
version does not change the fingerprints of archives without it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pipeline.answers.merge_keywords import MERGE_KEYWORDS, merge_keywords
from pipeline.answers.subschemas import decides_no_record, without_keywords
from pipeline.config import AppConfig, OllamaConfig, ProviderConfig, ResolvedAgentConfig, VLLMConfig

_TRANSPORT = frozenset({
    *("model", "messages", "prompt", "stream", "stream_options", "keep_alive", "num_ctx", "truncate", "think"),
    *("user", "request_id", "priority", "cache_salt", "format", "response_format"),
    # how Ollama runs a model on its machine
    *("num_gpu", "main_gpu", "num_thread", "num_batch", "num_keep", "numa", "low_vram", "use_mmap", "use_mlock"),
})  # fmt: skip
"""Keys of a request body or of Ollama's options that affect the transport of an answer, not its content."""

_FORMER_KEYS = ("agent", "variant", "system_prompt", "user_prompt", "schema", "model", "max_tokens", "temperature")


def question(resolved: ResolvedAgentConfig, provider_config: ProviderConfig) -> dict[str, Any]:
    """Return the question (docs/agents.md); `provider_config` is the first provider's."""
    own = resolved.settings_for(resolved.provider)
    fields = {
        "agent": resolved.agent,
        "variant": resolved.variant,
        "system_prompt": resolved.system_prompt,
        "user_prompt": resolved.user_prompt,
        "schema": _without_neutral_keywords(resolved.schema),
        "model": model_name(resolved, provider_config),
        "max_tokens": own.get("max_tokens", provider_config.max_tokens),
        "temperature": own.get("temperature", provider_config.temperature),
    }
    examples = [[example.document, example.output] for example in resolved.examples]
    optional = {"examples": examples, "parameters": _parameters(*_extras(provider_config), resolved.request)}
    return {**fields, **{key: value for key, value in optional.items() if value}}


SPLIT_VERSION = 1
"""Changes when windows are cut or merged differently, so that their documents are merged again."""


def split_question(resolved: ResolvedAgentConfig, provider_config: ProviderConfig) -> dict[str, Any]:
    """Return the question of a document that is merged from windows, including how it is cut and merged."""
    assert resolved.split is not None
    merge = merge_keywords(resolved.schema)
    split = {"v": SPLIT_VERSION, **asdict(resolved.split), "merge": merge}
    return {**question(resolved, provider_config), "split": split}


def window_question(
    resolved: ResolvedAgentConfig, provider_config: ProviderConfig, window_schema: Mapping[str, Any]
) -> str:
    """Return the digest of the question of every window; how the answers are merged is not part of it."""
    assert resolved.split is not None
    fields = {**question(resolved, provider_config), "schema": _without_neutral_keywords(window_schema)}
    return digest_of({**fields, "split": {"v": SPLIT_VERSION, **asdict(resolved.split)}})


def fingerprint(resolved: ResolvedAgentConfig, provider_config: ProviderConfig) -> str:
    """Return the sha256 of the question as canonical JSON, in hexadecimal."""
    return digest_of(question(resolved, provider_config))


def digest_of(question: Mapping[str, Any]) -> str:
    """Return the sha256 of a question, in hexadecimal."""
    text = json.dumps(question, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def model_name(resolved: ResolvedAgentConfig, provider_config: ProviderConfig) -> str:
    """Return the model's name in the fingerprint: `model_id` of the agent or provider, else the declared name."""
    declared = resolved.settings_for(resolved.provider).get("model", provider_config.model)
    return str(resolved.model_id or provider_config.model_id or declared)


def _without_neutral_keywords(schema: Any) -> Any:
    return without_keywords(schema, decides_no_record)


def _extras(provider_config: ProviderConfig) -> tuple[Mapping[str, Any], ...]:
    """Return the further request fields of a provider's settings; a later source overrides an earlier one."""
    if isinstance(provider_config, OllamaConfig):
        return provider_config.extra_body, provider_config.options
    return (provider_config.extra_body,)


def _parameters(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling parameters of all layers, a later one over an earlier, flat as OpenAI's dialect has them."""
    merged: dict[str, Any] = {}
    for layer in layers:
        options = layer.get("options")
        flat = {**layer, **options} if isinstance(options, Mapping) else layer
        merged |= {key: value for key, value in flat.items() if key not in _TRANSPORT and key != "options"}
    return merged


def former_fingerprints(resolved: ResolvedAgentConfig, app: AppConfig, *, contexts: Iterable[int]) -> frozenset[str]:
    """Return the fingerprints of this question in earlier versions, for each possible provider and context size.

    They included the first provider's `num_ctx` and `extra_body`. `contexts`: further sizes, from the output's records.
    Return no fingerprint for a question that earlier versions did not support.
    """
    first = app.provider_config(resolved.provider)
    if resolved.request or (isinstance(first, OllamaConfig) and _parameters(*_extras(first))):
        return frozenset()
    configs: tuple[ProviderConfig, ...] = (app.ollama, app.vllm, *app.providers.values())
    now = question(resolved, first)
    schema = without_keywords(resolved.schema, MERGE_KEYWORDS.__contains__)  # they are newer than this formula
    base = {**{key: now[key] for key in _FORMER_KEYS}, "schema": schema}
    name = now["model"]
    declared = resolved.settings_for(resolved.provider).get("model", first.model)
    models = {declared, *(config.model for config in configs if name in (config.model_id, config.model))}
    sizes = {None, *contexts, *(getattr(config, "num_ctx", None) for config in configs)}
    bodies = _distinct([{}, *(config.extra_body for config in configs if isinstance(config, VLLMConfig))])
    return frozenset(
        digest_of({**base, "model": model, "num_ctx": size, "extra_body": body})
        for model, size, body in itertools.product(models, sizes, bodies)
    )


def _distinct(bodies: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({json.dumps(body, sort_keys=True): body for body in bodies}.values())


def translated(runs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the present fingerprint of each former one whose question is in a run's summary."""
    former = (question for question in questions_of(runs) if "num_ctx" in question)
    return {digest_of(question): digest_of(in_present_form(question)) for question in former}


def questions_of(runs: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the questions that the summaries of runs keep, in the form of the version that wrote them."""
    for run in runs:
        config = run.get("config")
        questions = config.get("question") if isinstance(config, Mapping) else None
        for question in questions.values() if isinstance(questions, Mapping) else ():
            if isinstance(question, dict):
                yield question


def in_present_form(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return a question that was kept in the former form in the present one."""
    if "num_ctx" not in question:
        return dict(question)
    now = {key: value for key, value in question.items() if key not in ("num_ctx", "extra_body")}
    body = question.get("extra_body")
    parameters = _parameters(body if isinstance(body, Mapping) else {})
    return {
        **now,
        "schema": _without_neutral_keywords(question.get("schema")),
        **({"parameters": parameters} if parameters else {}),
    }

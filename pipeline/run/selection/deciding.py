"""The settings that decide a failure: a short digest for each reason, stored in the error line to detect a change.

A document that failed for its own reasons is not tried again until something changes: its bytes, its request (sha256
and fingerprint), or the settings and extras here. Settings of the fingerprint may be here, too; values that differ from
run to run (keys, certificates) must not be. The digest of a document that was too long is followed by the server's
context, "3f2a90c1d4e5@4096": the document is tried again when a server has a larger context.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from pipeline import __version__
from pipeline.config import AppConfig, ResolvedAgentConfig
from pipeline.documents.extras import LIBRARIES, is_missing
from pipeline.errors import REASONS, kind_of
from pipeline.records import LatestRecord

DIGEST_CHARS = 12
"""48 bits: the digests of two settings of one user practically never collide, and a line stays short."""

_ABOUT_INPUT_ONLY = {"uri", "include", "exclude", "min_documents", "storage"}
"""Input settings that choose documents, and do not decide how one is read."""
_SECRET = {"api_key", "api_key_file", "headers", "ca_file", "client_cert", "client_key"}
_TRANSPORT = _SECRET | {
    "base_url", "metrics_url", "proxy", "preflight", "resolve_replicas", "max_connection_age_s", "keep_alive",
    "stream",
    "timeout", "load_timeout", "max_retries", "retry_base_delay", "retry_max_delay", "retry_backoff_multiplier",
}  # fmt: skip
"""Provider settings that decide whether an answer comes, and not which one."""
_CONTEXT = ("type", "num_ctx", "context_length", "max_tokens")
_READING = {
    "document_unreadable", "document_too_large", "document_empty", "unsupported_format", "document_too_expensive",
    "duplicate_id",
}  # fmt: skip
LENGTH = {"context_length", "prompt_truncated", "document_too_large"}


def deciding_digests(app: AppConfig, resolved: ResolvedAgentConfig) -> Mapping[str, str]:
    """Return the digest of the settings for each reason, for the documents of one variant."""
    return {reason: _digest(_decided_by(reason, app, resolved)) for reason in REASONS}


def with_context(digest: str | None, context: int | None) -> str | None:
    """Return the digest of a document that was too long for a server, with that server's context in tokens."""
    return f"{digest}@{context or 0}" if digest else digest


def settings_digest(decided_by: str | None) -> str | None:
    """Return the digest of the settings alone."""
    return decided_by.partition("@")[0] if decided_by else decided_by


def current_digest(digest: str | None, latest: LatestRecord, *, context: Callable[[], int | None]) -> str | None:
    """Return the digest that decides a failure now: the stored one, unless a setting has changed or more tokens fit.

    `context` returns the context of the servers in use in tokens, None if unknown. It may wait for these servers, so it
    is called only for a document that was too long for a server.
    """
    stored_digest = latest.decided_by or ""
    settings, separator, tokens = stored_digest.partition("@")
    if not separator or settings != digest:
        return digest
    tokens_now = context()
    return stored_digest if tokens_now is None or tokens_now <= int(tokens) else with_context(digest, tokens_now)


def _decided_by(reason: str, app: AppConfig, resolved: ResolvedAgentConfig) -> dict[str, Any]:
    """Return the settings and extras that a reason depends on."""
    kind = kind_of(reason)
    providers = partial(_providers, app, resolved)
    if kind == "internal":
        return {"version": __version__}
    if kind in ("backend", "config"):
        return {"providers": providers(excluded=_SECRET)}
    if kind == "answer":
        answers = {**_settings_of(app.answers), "max_reasks": resolved.max_reasks}
        return {"providers": providers(excluded=_TRANSPORT), "answers": answers}
    decided: dict[str, Any] = {}
    if reason in _READING:
        extras = {name: not is_missing(name) for name in LIBRARIES}
        decided |= {
            "version": __version__,
            "input": _settings_of(app.input, excluded=_ABOUT_INPUT_ONLY),
            "extras": extras,
        }
    if reason in LENGTH:
        settings = [{key: provider.get(key) for key in _CONTEXT} for provider in providers(excluded=_TRANSPORT)]
        decided |= {"context": settings, "overflow": resolved.overflow}
    return decided or {"providers": providers(excluded=_TRANSPORT), "overflow": resolved.overflow}


def _providers(app: AppConfig, resolved: ResolvedAgentConfig, *, excluded: Collection[str]) -> list[dict[str, Any]]:
    """Return the settings of each provider in use, in order, with the agent's overrides."""
    names = (resolved.provider, *resolved.fallback)
    return [
        {**_settings_of(app.provider_config(name), excluded=excluded), **resolved.settings_for(name)} for name in names
    ]


def _settings_of(config: Any, *, excluded: Collection[str] = ()) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config) if field.name not in excluded}


def _digest(decided: Mapping[str, Any]) -> str:
    text = json.dumps(decided, sort_keys=True, separators=(",", ":"), default=_as_json)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:DIGEST_CHARS]


def _as_json(value: Any) -> Any:
    """Return a mapping of any type as a dict, and any other value as its text."""
    return dict(value) if isinstance(value, Mapping) else str(value)

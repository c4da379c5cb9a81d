"""Recognise the server that answered: an Ollama behind the OpenAI protocol, or a gateway that counts prompts itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GATEWAYS = {"x-litellm-": "LiteLLM", "x-portkey-": "Portkey", "cf-aig-": "Cloudflare AI Gateway"}
"""Gateways that may count a prompt themselves, by the beginning of their headers' names."""

_PREFIXES = tuple(GATEWAYS)


def answered_by(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Return `ollama`, or the name of a gateway, if the answer shows it."""
    for name in headers:
        if name.lower().startswith(_PREFIXES):
            return next(gateway for prefix, gateway in GATEWAYS.items() if name.lower().startswith(prefix))
    return "ollama" if body.get("system_fingerprint") == "fp_ollama" else None

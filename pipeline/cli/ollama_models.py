"""Finds the Ollama of this machine for `init`: its address, and a model that it has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import OllamaConfig, mask_url
from pipeline.config.loading import load_config
from pipeline.errors import ConfigError
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.transport.http import CallFailedError

LOOK_S = 3.0
_NO_CHAT = ("embed", "bge-", "minilm", "rerank")
"""Parts of the names of models that only embed or rank texts."""


@dataclass(frozen=True, slots=True)
class FoundServer:
    """An Ollama as it was found. `model`: one that it has, None when it did not answer or has none."""

    base_url: str
    default_url: str
    model: str | None
    remark: str


def found_server(environ: Mapping[str, str]) -> FoundServer:
    """Return the server at OLLAMA_BASE_URL, OLLAMA_HOST or the usual address; it never fails for what a server does."""
    config = _config(environ)
    url = config.base_urls[0]
    usual = OllamaConfig().base_urls[0]
    names = _names(config)
    setting = "`ollama.model` in config/default.yaml"
    if names is None:
        remark = f"No Ollama answers at {mask_url(url)}. Start it with `ollama serve`; {setting} names the model."
        return FoundServer(url, usual, None, remark)
    chosen = _chosen(names, wanted=config.model)
    if chosen is None:
        return FoundServer(url, usual, None, f"The Ollama at {mask_url(url)} has no model. Run `ollama pull llama3.1`.")
    return FoundServer(
        url, usual, chosen, f"The Ollama at {mask_url(url)} has the model {chosen}; {setting} changes it."
    )


def _config(environ: Mapping[str, str]) -> OllamaConfig:
    """Return the settings of the environment; the defaults where it cannot be used."""
    try:
        return load_config(None, environ=environ).ollama
    except ConfigError:
        return OllamaConfig()


def _names(config: OllamaConfig) -> list[str] | None:
    """Return the models in the order in which the server lists them, the newest first; None without an answer."""
    client = OllamaClient(config)
    try:
        reply = client.endpoint.get("/api/tags", timeout_s=LOOK_S)
        rows = json.loads(reply.body)["models"] if reply.status == 200 else None
        return None if rows is None else [str(row["name"]) for row in rows]
    except (CallFailedError, ConfigError, ValueError, KeyError, TypeError):
        return None
    finally:
        client.close()


def _chosen(names: list[str], *, wanted: str) -> str | None:
    """Return the wanted model in any tag, else the first that can chat."""
    same = [name for name in names if name.partition(":")[0] == wanted.partition(":")[0]]
    chats = [name for name in names if not any(part in name.lower() for part in _NO_CHAT)]
    return next(iter([*same, *chats, *names]), None)

"""Finds the model servers that run on this machine at their usual ports, for `init` and `check`.

It asks each for its models only, and must not wait for more than a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.config import mask_url
from pipeline.config.loading import load_config
from pipeline.errors import ConfigError
from pipeline.llm.transport.http import Access, CallFailedError, Endpoint
from pipeline.llm.vllm import VLLMClient

LOOK_S = 1.0
_SHOWN = 8
_NO_CHAT = ("embed", "bge-", "minilm", "rerank")
"""Parts of the names of models that only embed or rank texts."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server usually listens, and the type of provider that asks it."""

    name: str
    type: Literal["ollama", "vllm", "openai"]
    url: str


USUAL = (
    Place("Ollama", "ollama", "http://127.0.0.1:11434"),
    Place("vLLM", "vllm", "http://127.0.0.1:8000"),
    Place("LM Studio", "openai", "http://127.0.0.1:1234"),
)


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that answered, with its models that can chat, in its own order."""

    place: Place
    models: tuple[str, ...]

    @property
    def section(self) -> str:
        """The section of the config file that names it."""
        return "ollama" if self.place.type == "ollama" else "vllm"

    def text(self) -> str:
        """Return what was found, as a sentence without its end."""
        shown = ", ".join(self.models[:_SHOWN]) + (", …" if len(self.models) > _SHOWN else "")
        noun = "the model" if len(self.models) == 1 else "the models"
        return f"{self.place.name} answers at {self.place.url} with {f'{noun} {shown}' if shown else 'no model'}"


def found_servers(places: Iterable[Place] = USUAL) -> Iterator[LocalServer]:
    """Yield the servers that answer with a list of models."""
    for place in places:
        models = _models(place)
        if models is not None:
            yield LocalServer(place, _chatting(models))


def _chatting(models: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in models if not any(part in name.lower() for part in _NO_CHAT))


@dataclass(frozen=True, slots=True)
class EnvironmentServer:
    """The server that the environment names. `models`: those that can chat, None when it lists none."""

    url: str
    models: tuple[str, ...] | None


def environment_server(environ: Mapping[str, str]) -> EnvironmentServer | None:
    """Return the server at VLLM_BASE_URL; None without one address that a file may hold."""
    try:
        config = load_config(None, environ=environ).vllm
    except ConfigError:
        return None
    url = environ.get("VLLM_BASE_URL", "")
    if config.base_urls != (url.rstrip("/"),) or mask_url(url) != url:
        return None
    names = _listed(VLLMClient(config).endpoint, "/v1/models", rows="data", name="id")
    return EnvironmentServer(url, None if names is None else _chatting(names))


def _models(place: Place) -> list[str] | None:
    """Return the names of a server's models; None without an answer of the expected shape."""
    endpoint = Endpoint(place.url, Access())
    if place.type == "ollama":
        return _listed(endpoint, "/api/tags", rows="models", name="name")
    return _listed(endpoint, "/v1/models", rows="data", name="id")


def _listed(endpoint: Endpoint, path: str, *, rows: str, name: str) -> list[str] | None:
    """Return the names in a list of models, and close the endpoint; None without an answer of the expected shape."""
    try:
        reply = endpoint.get(path, timeout_s=LOOK_S)
        return [str(row[name]) for row in json.loads(reply.body)[rows]] if reply.status == 200 else None
    except (CallFailedError, ConfigError, ValueError, KeyError, TypeError):
        return None
    finally:
        endpoint.close()

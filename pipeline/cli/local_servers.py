"""The model servers of this machine at their usual ports, and the one that the environment names.

For `init` and `check`. It requests the list of models only, and must not wait for more than a second at a server.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.config import OllamaConfig, mask_url
from pipeline.config.loading import load_config
from pipeline.errors import ConfigError
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.transport.http import Access, CallFailedError, Endpoint
from pipeline.llm.vllm import VLLMClient

Kind = Literal["ollama", "vllm", "openai"]

LOOK_S = 1.0
_MOST_SHOWN = 8
_NO_CHAT = ("embed", "bge-", "minilm", "rerank")
"""Name parts of models that only embed or rank texts."""
_LISTINGS: Mapping[Kind, tuple[str, str, str]] = {
    "ollama": ("/api/tags", "models", "name"),
    "vllm": ("/v1/models", "data", "id"),
    "openai": ("/v1/models", "data", "id"),
}
"""Kind of server → the path of its models, the key of their list, and the key of a name."""


@dataclass(frozen=True, slots=True)
class Place:
    """The usual address of a server, and its provider type."""

    name: str
    type: Kind
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
        """The section of the config file for this server."""
        return "ollama" if self.place.type == "ollama" else "vllm"

    def text(self) -> str:
        """Return the findings as a sentence without its full stop."""
        names = ", ".join(self.models[:_MOST_SHOWN]) + (", …" if len(self.models) > _MOST_SHOWN else "")
        noun = "the model" if len(self.models) == 1 else "the models"
        return f"{self.place.name} answers at {self.place.url} with {f'{noun} {names}' if names else 'no model'}"


def chosen_model(models: Sequence[str], name: str) -> str | None:
    """Return the model with this name, or with this name and any tag; "": the first model. None without one."""
    matches = [candidate for candidate in models if name in (candidate, candidate.partition(":")[0])]
    return next(iter(matches if name else models), None)


def found_servers(places: Iterable[Place] = USUAL) -> Iterator[LocalServer]:
    """Yield the servers that answer with a list of models."""
    for place in places:
        models = _models(place)
        if models is not None:
            yield LocalServer(place, chat_models(models))


def chat_models(models: Iterable[str]) -> tuple[str, ...]:
    """Return the models that are not known to only embed or rank texts."""
    return tuple(name for name in models if not any(part in name.lower() for part in _NO_CHAT))


@dataclass(frozen=True, slots=True)
class NamedServer:
    """The server that the environment names for a kind of provider.

    `address`: None for one with a password, which no file must hold. `models`: those that can chat, None when the
    server lists none.
    """

    shown_url: str
    address: str | None
    models: tuple[str, ...] | None


def named_server(kind: Kind, environ: Mapping[str, str]) -> NamedServer | None:
    """Return the server of `vllm` or `ollama` in the environment; None when that names several, or cannot be used."""
    try:
        app = load_config(None, environ=environ)
    except ConfigError:
        return None
    config = app.ollama if kind == "ollama" else app.vllm
    if len(config.base_urls) != 1:
        return None
    url = config.base_urls[0]
    masked = mask_url(url)
    client = OllamaClient(config) if isinstance(config, OllamaConfig) else VLLMClient(config)
    names = _listed(client.endpoint, *_LISTINGS[kind])
    return NamedServer(masked, url if masked == url else None, None if names is None else chat_models(names))


def _models(place: Place) -> list[str] | None:
    """Return the names of a server's models; None without an answer of the expected shape."""
    return _listed(Endpoint(place.url, Access()), *_LISTINGS[place.type])


def _listed(endpoint: Endpoint, path: str, rows: str, name: str) -> list[str] | None:
    """Return the names in a list of models, and close the endpoint; None without an answer of the expected shape."""
    try:
        reply = endpoint.get(path, timeout_s=LOOK_S)
        return [str(row[name]) for row in json.loads(reply.body)[rows]] if reply.status == 200 else None
    except (CallFailedError, ConfigError, ValueError, KeyError, TypeError):
        return None
    finally:
        endpoint.close()

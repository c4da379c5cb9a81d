"""The model server that a new project uses: from the environment, else one of this machine, and one of its models.

It must not write a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from pipeline.cli.local_servers import USUAL, Kind, LocalServer, Place, chosen_model, found_servers, named_server
from pipeline.config import OllamaConfig
from pipeline.config.constraints import nearest_hint
from pipeline.errors import ConfigError

CONFIG = "config/default.yaml"
_NO_SERVER = (
    "No model server was found on this machine (Ollama at port 11434, vLLM at 8000, LM Studio at 1234). Start one, "
    f"or write the address of yours into {CONFIG}."
)
_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "vllm": ("VLLM_BASE_URL",),
    "ollama": ("OLLAMA_BASE_URL", "OLLAMA_HOST"),
}
"""Section of the config → the variables that name its server."""


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """A provider, its block of the config file, and the paragraphs about it."""

    provider: str
    block: str
    remarks: tuple[str, ...]


def choose_server(
    environ: Mapping[str, str], *, provider: str | None, model: str, places: Sequence[Place] = USUAL
) -> ServerChoice:
    """Return the server that the environment names, else one that answers at its usual port.

    `provider`, `model`: the choice of the user, None and "" for any. ConfigError when no server found has this model.
    """
    sections = [section for section, names in _VARIABLES.items() if any(environ.get(name) for name in names)]
    requested = provider or next(iter([*_default_sections(environ.get("PIPELINE_PROVIDER", "")), *sections]), None)
    if requested in sections:
        return _vllm(environ, model) if requested == "vllm" else _ollama(environ, model)
    servers = list(found_servers(place for place in places if requested in (None, _section(place.type))))
    if servers:
        return of_servers(servers, model=model)
    section = "ollama" if requested == "ollama" else "vllm"
    remark = _NO_SERVER if requested is None else _no_answer(section)
    return ServerChoice(section, _block(section, model=model), (remark,))


def _default_sections(section: str) -> list[str]:
    return [section] if section in _VARIABLES else []


def of_servers(servers: Sequence[LocalServer], *, model: str = "") -> ServerChoice:
    """Return the first of these servers that has the model, or (for "") any model."""
    names = [name for candidate in servers for name in candidate.models]
    server = next((candidate for candidate in servers if chosen_model(candidate.models, model)), None)
    if server is None and model:
        need = f"need one of {', '.join(names)}" if names else "and the servers of this machine have no model"
        raise ConfigError(f"init: --model: got {model!r}, {need}{nearest_hint(model, names)}")
    server = server or servers[0]
    chosen_name = chosen_model(server.models, model) or ""
    section = _section(server.place.type)
    address = None if section == "ollama" else server.place.url
    block = _block(section, address=address, model=chosen_name, kind=server.place.type)
    remark = f"{CONFIG} uses {server.place.name}"
    remark += f" with the model {chosen_name}." if chosen_name else ", which has no model yet."
    if len(names) > 1:
        remark += " For another one, change it there."
    return ServerChoice(section, block, (*(f"{candidate.text()}." for candidate in servers), remark))


def _section(kind: Kind) -> str:
    """Return the section of the config file for a kind of server."""
    return "ollama" if kind == "ollama" else "vllm"


def _no_answer(section: str) -> str:
    if section == "ollama":
        url = OllamaConfig().base_urls[0]
        return f"No Ollama answers at {url}. Start it with `ollama serve`; `ollama.model` in {CONFIG} names the model."
    return f"No server of vLLM (port 8000) or LM Studio (port 1234) answers. Write the address of yours into {CONFIG}."


def _vllm(environ: Mapping[str, str], model: str) -> ServerChoice:
    """Return the server at VLLM_BASE_URL with one of its models.

    The address is written down: a cron job does not have the variables of the shell in which it was tried.
    """
    server = named_server("vllm", environ)
    if server is None or server.address is None:
        return ServerChoice("vllm", _block("vllm", model=model), ())
    if server.models is None:
        remark = (
            f"No server lists its models at {server.shown_url}. {CONFIG} names this address; start the server there."
        )
        return ServerChoice("vllm", _block("vllm", address=server.address, model=model), (remark,))
    model_name = model or chosen_model(server.models, "") or ""
    model_text = f"and the model {model_name}" if model_name else "and no model, as the server lists none"
    remark = f"{CONFIG} names {server.shown_url} (VLLM_BASE_URL) {model_text}."
    return ServerChoice("vllm", _block("vllm", address=server.address, model=model_name), (remark,))


def _ollama(environ: Mapping[str, str], model: str) -> ServerChoice:
    """Return the Ollama that the environment names, with a model that it has."""
    server = named_server("ollama", environ)
    if server is None:
        return ServerChoice("ollama", _block("ollama", model=model), ())
    preferred = OllamaConfig().model
    model_name = model or chosen_model(server.models or (), preferred) or chosen_model(server.models or (), "") or ""
    setting = f"`ollama.model` in {CONFIG}"
    if server.models is None:
        remark = f"No Ollama answers at {server.shown_url}. Start it with `ollama serve`; {setting} names the model."
    elif not model_name:
        remark = f"The Ollama at {server.shown_url} has no model. Run `ollama pull {preferred}`."
    else:
        remark = f"The Ollama at {server.shown_url} has the model {model_name}; {setting} changes it."
    return ServerChoice("ollama", _block("ollama", address=server.address, model=model_name), (remark,))


def _block(section: str, *, model: str, address: str | None = None, kind: Kind = "vllm") -> str:
    """Return the block of a provider in the config file; without a model or an address, with the default one."""
    text = (files("pipeline.cli") / "starter" / f"{section}.yaml").read_text(encoding="utf-8")
    if address and section == "ollama":
        text = text.replace("#  base_url: http://127.0.0.1:11434", f"  base_url: {json.dumps(address)}", 1)
    elif address:
        text = text.replace("http://127.0.0.1:8000", json.dumps(address), 1)
    if kind == "openai":
        text = text.replace("vllm:\n", "vllm:\n  type: openai                 # a server of the OpenAI protocol\n", 1)
    if not model:
        return text
    model_line = f"model: {json.dumps(model)}"
    return re.sub(r"model: \S+ *#", lambda _: f"{model_line:<28} #", text, count=1)

"""Every setting of the program as frozen data with its default; ranges and descriptions are in table.py.

It must not read a file or the environment: loading.py does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.config.checks import check_fields as check_fields
from pipeline.config.checks import rule_of as rule_of
from pipeline.config.constraints import Rule, nearest_hint, others, shown_value
from pipeline.config.csv_options import check_csv
from pipeline.config.limits import changed_limits
from pipeline.config.request import check_ollama_fields
from pipeline.errors import ConfigError

Overflow = Literal["fail", "head", "head_tail", "split"]
Preflight = Literal["strict", "warn", "off"]
Think = Literal["auto", "low", "medium", "high"]
ValueSource = Literal["default", "file", "env", "flag"]
"""The source of a value; `default`: a variable of another program, such as OLLAMA_HOST, that no setting overrides."""


def _check_provider(config: OllamaConfig | VLLMConfig, section: str) -> None:
    check_fields(config, section)
    if config.retry_max_delay < config.retry_base_delay:
        least = f"at least retry_base_delay ({config.retry_base_delay:g})"
        raise ConfigError(f"retry_max_delay: got {config.retry_max_delay:g}, need {least}")
    if config.client_key and not config.client_cert:
        raise ConfigError("client_key: got a key without a certificate, need client_cert as well")


@dataclass(frozen=True, slots=True)
class _ServerConfig:
    """Connection and request settings that every kind of server has."""

    base_url: str | tuple[str, ...] = field(default="", repr=False)
    model: str = ""
    timeout: float = 300.0
    max_retries: int = 3
    retry_base_delay: float = 1.0
    retry_max_delay: float = 30.0
    retry_backoff_multiplier: float = 2.0
    max_tokens: int = 1024
    temperature: float = 0.0
    api_key: str = field(default="", repr=False)
    type: str = ""
    context_length: int | None = None
    stream: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict, hash=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = field(default=None, repr=False)
    max_connection_age_s: float = 120.0
    preflight: Preflight = "strict"
    api_key_file: str | None = None
    resolve_replicas: bool = False
    model_id: str | None = None

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The replicas' addresses, without a trailing `/` or `/v1`, each once."""
        urls = (self.base_url,) if isinstance(self.base_url, str) else self.base_url
        return tuple(dict.fromkeys(url.rstrip("/").removesuffix("/v1").rstrip("/") for url in urls))


@dataclass(frozen=True, slots=True)
class OllamaConfig(_ServerConfig):
    """Connection and request settings of an Ollama server."""

    base_url: str | tuple[str, ...] = field(default="http://127.0.0.1:11434", repr=False)
    model: str = "llama3.1"
    type: Literal["ollama"] = "ollama"
    num_ctx: Literal["auto"] | int = 8192
    keep_alive: int | str = "10m"
    load_timeout: float = 900.0
    think: bool | Think = "auto"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_provider(self, "ollama")
        check_ollama_fields(self.options, self.extra_body)


@dataclass(frozen=True, slots=True)
class VLLMConfig(_ServerConfig):
    """Connection and request settings of a vLLM server, or another OpenAI-compatible one (`type: openai`)."""

    base_url: str | tuple[str, ...] = field(default="http://127.0.0.1:8000", repr=False)
    type: Literal["vllm", "openai"] = "vllm"
    metrics_url: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_provider(self, "vllm")


ProviderConfig = OllamaConfig | VLLMConfig


@dataclass(frozen=True, slots=True)
class InputSource:
    """One source of documents; `name` becomes a prefix of their ids."""

    uri: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class InputConfig:
    """The sources of documents, and how they are read."""

    uri: tuple[InputSource, ...] = (InputSource("data/inbox"),)
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    text_field: str = "text"
    id_field: str | None = None
    unsupported: Literal["ignore", "fail"] = "ignore"
    min_documents: int = 1
    max_document_bytes: int = 10_485_760
    csv: Mapping[str, Any] = field(default_factory=dict, hash=False)
    records_field: str | None = None
    encoding: str | Mapping[str, str] = field(default="auto", hash=False)
    limits: Mapping[str, float] = field(default_factory=dict, hash=False)
    storage: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        check_fields(self, "input")
        object.__setattr__(self, "limits", changed_limits(self.limits))
        check_csv(self.csv)
        names = [source.name for source in self.uri if source.name is not None]
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
                raise ConfigError(f"uri: got the name {name!r}, need letters, digits, `-`, `_` and `.` only")
            if names.count(name) > 1:
                raise ConfigError(f"uri: got the name {name!r} more than once, need a name of its own for each")
        if not self.uri or not all(source.uri.strip() and "\0" not in source.uri for source in self.uri):
            raise ConfigError("uri: got an empty one, need a path, a glob or an object-store address")


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """The destination of records, and how they are written."""

    uri: str = "out"
    raw_chars: int = 2000
    part_seconds: float = 60.0
    part_bytes: int = 67_108_864
    storage: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        check_fields(self, "output")


@dataclass(frozen=True, slots=True)
class AnswersConfig:
    """Place of the answer in a response, and the repairs of its text before validation."""

    repair: Literal["off", "basic", "full"] = "basic"
    from_reasoning: bool = True

    def __post_init__(self) -> None:
        check_fields(self, "answers")


@dataclass(frozen=True, slots=True)
class CostConfig:
    """Cost of the servers, for the estimate of --dry-run."""

    per_hour: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, "cost")


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """The gold that answers are graded against, the comparisons of fields, and the gates."""

    gold: str | None = None
    set: Literal["dev", "holdout"] = "dev"
    holdout: float = 0.0
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    min_documents: int = 30
    fail_under: Mapping[str, float] = field(default_factory=dict, hash=False)
    baseline: str | None = None
    max_drop: float | None = None
    input: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, "eval")


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """Concurrency, waiting times and stop conditions of a run."""

    concurrency: Literal["auto"] | int = "auto"
    max_concurrency: int = 256
    processes: Literal["auto"] | int = 1
    duplicates: Literal["share", "ask"] = "share"
    max_in_flight_bytes: int = 268_435_456
    refresh: Literal["off", "provider", "all"] = "provider"
    refresh_every: int = 100
    max_reasks: int = 1
    retry_runs: int = 3
    max_redo: float | None = None
    max_drift: float | None = None
    max_error_rate: float = 0.05
    fail_fast: int = 20
    abort_error_rate: float = 0.5
    startup_wait_s: float = 60.0
    max_outage_s: float = 3600.0
    config_grace_s: float = 120.0
    lock_wait_s: float = 120.0
    grace_s: float = 25.0

    def __post_init__(self) -> None:
        check_fields(self, "runner")


@dataclass(frozen=True, slots=True)
class AppConfig:
    """The whole configuration; for each dotted key that was set, `origins` is the kind of source, `places` its name."""

    provider: str = ""
    fallback: tuple[str, ...] | None = None
    agent: str = "extractor"
    variant: str | None = None
    agents_dir: str | None = None
    input: InputConfig = field(default_factory=InputConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    ollama: OllamaConfig = field(default_factory=OllamaConfig)
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    providers: Mapping[str, ProviderConfig] = field(default_factory=dict, hash=False)
    answers: AnswersConfig = field(default_factory=AnswersConfig)
    runner: RunnerConfig = field(default_factory=RunnerConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    origins: Mapping[str, ValueSource] = field(default_factory=dict, compare=False, repr=False)
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def provider_config(self, name: str, *, key: str = "provider") -> ProviderConfig:
        """Return the settings of a provider ("" means ollama); ConfigError naming `key` for an unknown one."""
        configs: dict[str, ProviderConfig] = {"ollama": self.ollama, "vllm": self.vllm, **self.providers}
        if (name or "ollama") not in configs:
            need = f"one of {', '.join(configs)}{nearest_hint(name, configs)}"
            raise ConfigError(f"{key}: got {shown_value(name, Rule())}, need {need}")
        return configs[name or "ollama"]

    def fallback_names(self, first: str | None = None) -> tuple[str, ...]:
        """Return the fallback providers in order without duplicates and without the first (default: `provider`)."""
        usual = ("ollama",) if self._names_ollama() else ()
        names = usual if self.fallback is None else self.fallback
        return others(names, first=self.provider if first is None else first)

    def _names_ollama(self) -> bool:
        return any(key.startswith("ollama.") and origin in ("file", "env") for key, origin in self.origins.items())

    def pinned(self, key: str) -> bool:
        """Return True when a flag or the environment set this dotted key, which overrides an agent file."""
        return self.origins.get(key) in ("env", "flag")

"""What can go wrong, drawn once: the exception tree, the exit codes and the table of reasons.

    PipelineError                the run cannot go on; carries its exit code
    ├── ConfigError          2   usage, configuration, agent, credentials: trying again changes nothing
    │   └── SettingError     2   one setting, by its key
    ├── TryLaterError        3   the run stopped and can go on: provider gone, locked, listing broke off
    │   └── OutputError      3   a record could not be written
    └── InternalError       70   a fault of ours
    DocumentError                one document fails, with a reason of the table below; the run goes on

Nothing here imports anything of the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EXIT_OK, EXIT_FAILURES, EXIT_CONFIG, EXIT_LATER, EXIT_INTERNAL = 0, 1, 2, 3, 70
EXIT_SIGINT, EXIT_SIGTERM = 130, 143

Stage = Literal["load", "prompt", "call", "parse", "validate", "internal"]
ReasonClass = Literal["backend", "config", "document", "answer", "internal"]


class PipelineError(Exception):
    """The run cannot go on; `exit_code` is what the process ends with."""

    exit_code = EXIT_INTERNAL


class ConfigError(PipelineError):
    """Something a person must change: trying again changes nothing."""

    exit_code = EXIT_CONFIG


class SettingError(ConfigError):
    """A setting that turns out to be of no use; `key` is its dotted key, or its name within a section."""

    def __init__(self, key: str, told: str) -> None:
        super().__init__(f"{key}: {told}")
        self.key, self.told = key, told


class TryLaterError(PipelineError):
    """The run stopped before its end; the same command goes on from here."""

    exit_code = EXIT_LATER


class OutputError(TryLaterError):
    """A record could not be written, so nothing more may be asked."""


class InternalError(PipelineError):
    """A promise of the program was broken by the program itself."""


class DocumentError(Exception):
    """One document cannot be done: `reason` is of REASONS, `stage` says where it happened.

    `again`: the next run tries it again though it has not changed, as nothing is known of it.
    """

    def __init__(self, reason: str, message: str, *, stage: Stage = "load", again: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.stage = stage
        self.again = again


@dataclass(frozen=True, slots=True)
class Reason:
    """What a reason belongs to, and what a person can do about it."""

    kind: ReasonClass
    advice: str


REASONS: Mapping[str, Reason] = {
    # the server or the way to it: retried, then the next provider, then the run waits
    "timeout": Reason("backend", "raise the provider's `timeout`, lower `max_tokens`, or lower `runner.concurrency`"),
    "connection_error": Reason("backend", "see the server's log: it went away while it worked on these documents"),
    "overloaded": Reason("backend", "lower `runner.concurrency`, or add replicas to `base_url`"),
    "server_error": Reason("backend", "see the server's log; then run again with --only-failed server_error"),
    "bad_response": Reason("backend", "check that `base_url` leads to the server itself and not to a proxy's page"),
    "empty_model_response": Reason(
        "backend",
        "the model said nothing: try another prompt, or turn thinking off (docs/thinking-models.md)",
    ),
    "response_too_large": Reason("backend", "lower `max_tokens`: the answer was larger than the limit"),
    # our settings: the next provider, or the run stops
    "unauthorized": Reason("config", "check the provider's API key"),
    "model_not_found": Reason("config", "check the provider's `model`: `pipeline check` lists those that are there"),
    "not_found": Reason("config", "check the provider's `base_url`: nothing answers at that path"),
    "rejected_config": Reason("config", "the server refuses the parameters or the schema: see the message"),
    # the document: fails at once
    "context_length": Reason("document", "raise the context (`num_ctx`, --max-model-len), or set `overflow: head`"),
    "prompt_truncated": Reason("document", "the server cut the prompt: raise `num_ctx`, or set `overflow: head`"),
    "rejected": Reason("document", "the server refuses these documents: see the message"),
    "document_unreadable": Reason("document", "the file is damaged, not what its name says, or may not be read"),
    "document_too_large": Reason("document", "raise `input.max_document_bytes`, or split the document"),
    "document_empty": Reason("document", "the file holds no text: remove it, or exclude it by `input.exclude`"),
    "document_too_expensive": Reason(
        "document", "raise `input.limits`, or exclude the file: decoding it costs too much"
    ),
    "unsupported_format": Reason("document", "convert the file, or set `input.unsupported: ignore`"),
    "duplicate_id": Reason("document", "give the inputs names, or make the `id_field` unique"),
    # the answer: asked again with the complaint
    "invalid_json": Reason("answer", "the model does not write JSON: try another model or a smaller schema"),
    "schema_invalid": Reason(
        "answer", "the model breaks the schema: see the messages; simplify it, or change the prompt"
    ),
    "not_grounded": Reason("answer", "the model quotes what the text does not say: ask for verbatim quotes"),
    "output_truncated": Reason(
        "answer", "raise `max_tokens`, ask for less, or limit thinking (docs/thinking-models.md)"
    ),
    "generation_loop": Reason("answer", "the model repeats itself: try a higher temperature or another model"),
    "internal_error": Reason("internal", "a fault of the pipeline: the log has the traceback; please report it"),
}

REASKED = frozenset({"invalid_json", "schema_invalid", "not_grounded"})
"""Reasons for which the model is asked once more, with the complaint."""

PROVES_LIFE = frozenset({"bad_response", "empty_model_response", "response_too_large"})
"""Backend reasons that nevertheless show a living server."""


def kind_of(reason: str) -> ReasonClass:
    """The class of a reason; an unknown one is an internal fault."""
    return REASONS[reason].kind if reason in REASONS else "internal"


TRANSIENT_STATUSES = frozenset({402, 408, 409, 423, 424, 425, 460, 499})
"""4xx by which a server or gateway reports a state of its own that passes (contract, section 6)."""

PROMPT_TOO_LONG = frozenset({"context_length", "prompt_truncated"})
"""Reasons that the same document has at every attempt, whatever state the server is in."""


def reason_of_status(status: int) -> str:
    """The reason for an HTTP status other than 200 when the body says nothing better (contract, section 6)."""
    if status in (401, 403):
        return "unauthorized"
    if status in (429, 503):
        return "overloaded"
    if status in TRANSIENT_STATUSES or 500 <= status <= 599:
        return "server_error"
    if 300 <= status <= 399 or status in (404, 405, 407, 415, 421):
        return "not_found"
    if status == 413:
        return "document_too_large"
    if 400 <= status <= 499:
        return "rejected"
    return "bad_response"


def is_retryable(reason: str | None) -> bool:
    """True when the same request may succeed later: the backend reasons, and no others."""
    return reason is not None and kind_of(reason) == "backend"

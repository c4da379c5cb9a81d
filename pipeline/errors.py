"""The exception tree, the exit codes and the table of reasons.

    PipelineError                the run ends, with this exit code
    ├── ConfigError          2   usage, configuration, agent, credentials: a person has to fix it
    │   └── SettingError     2   one setting, by its key
    ├── TryLaterError        3   the run can be resumed: provider unavailable, output locked, listing interrupted
    │   └── OutputError      3   a record could not be written
    └── InternalError       70   a bug
    DocumentError                one document fails, with a reason from the table below; the run continues

It must not import any other module of the project.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

EXIT_OK = 0
EXIT_FAILURES = 1
EXIT_CONFIG = 2
EXIT_LATER = 3
EXIT_INTERNAL = 70
EXIT_SIGINT = 130
EXIT_SIGTERM = 143

Stage = Literal["load", "prompt", "call", "parse", "validate", "internal"]
ReasonClass = Literal["backend", "config", "document", "answer", "internal"]


class PipelineError(Exception):
    """The run cannot continue; `exit_code` is the exit status of the process."""

    exit_code = EXIT_INTERNAL


class ConfigError(PipelineError):
    """An error that the user has to fix: a retry cannot succeed."""

    exit_code = EXIT_CONFIG


class SettingError(ConfigError):
    """An invalid value of one setting; `key` is its dotted key, or its name within a section."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


class TryLaterError(PipelineError):
    """The run stopped before its end; the same command resumes it."""

    exit_code = EXIT_LATER


class OutputError(TryLaterError):
    """A record could not be written, so no further request may be sent."""


MACHINE_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The errors of a machine with too few descriptors or buffers, or too little memory; often only for a moment."""


_LOADER_TEXTS = (*(os.strerror(number) for number in MACHINE_ERRNOS), "failed to map segment")
"""Texts of the loader of shared libraries about a shortage: an ImportError has no errno."""


def is_machine_trouble(error: BaseException | None) -> bool:
    """Return True when an error, or one of its causes, is a shortage of this machine."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in MACHINE_ERRNOS):
            return True
        if isinstance(error, ImportError) and any(text in str(error) for text in _LOADER_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


class InternalError(PipelineError):
    """A bug: an invariant of the program does not hold."""


class DocumentError(Exception):
    """One document fails: `reason` is a key of REASONS, `stage` the step that failed.

    `is_transient`: the next run retries it though it has not changed, as the failure is not a property of the document.
    """

    def __init__(self, reason: str, message: str, *, stage: Stage = "load", is_transient: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.stage = stage
        self.is_transient = is_transient


AGENT_FILE = "the agent's file"
"""The placeholder for the agent file in an advice; `Reason.advice_for` replaces it."""


@dataclass(frozen=True, slots=True)
class Reason:
    """The class of a reason, and advice for the user.

    `by_cause`: the advice for one cause where a reason has several: an `error`, a note, or "" for the others.
    """

    kind: ReasonClass
    advice: str
    by_cause: Mapping[str, str] = field(default_factory=dict)

    def advice_for(self, agent_file: str | None, causes: Collection[str] = ()) -> str:
        """Return the advice with the name of the agent file, where that is known.

        `causes`: those of the failures in question; of several, or when none is known, the advice speaks of all.
        """
        advice = self.by_cause.get(next(iter(causes)), self.advice) if len(causes) == 1 else self.advice
        return advice.replace(AGENT_FILE, agent_file) if agent_file else advice


REASONS: Mapping[str, Reason] = {
    # the server or the network: retried, then sent to the next provider, then the run waits
    "timeout": Reason("backend", "raise the provider's `timeout`, lower `max_tokens`, or lower `runner.concurrency`"),
    "connection_error": Reason("backend", "see the server's log: it disconnected while it worked on these documents"),
    "overloaded": Reason("backend", "lower `runner.concurrency`, or add replicas to `base_url`"),
    "server_error": Reason("backend", "see the server's log; then run again with --only-failed server_error"),
    "bad_response": Reason("backend", "check that `base_url` leads to the server itself and not to a proxy's page"),
    "empty_model_response": Reason(
        "backend",
        "the model returned no text: try another prompt, or turn thinking off (docs/thinking-models.md)",
    ),
    "response_too_large": Reason("backend", "lower `max_tokens`: the answer was larger than the limit"),
    # the settings: the next provider, or the run stops
    "unauthorized": Reason("config", "check the provider's API key"),
    "model_not_found": Reason("config", "check the provider's `model`: `pipeline check` lists the available ones"),
    "not_found": Reason("config", "check the provider's `base_url`: nothing answers at that path"),
    "rejected_config": Reason("config", "the server refuses the parameters or the schema: see the message"),
    # the document: fails at once
    "context_length": Reason(
        "document",
        "raise the context (`ollama.num_ctx`, or the server's --max-model-len), which repeats no finished "
        f"document, or set `overflow: split` (or `head`) in {AGENT_FILE}",
    ),
    "prompt_truncated": Reason(
        "document",
        "the server cut the prompt: raise `ollama.num_ctx`, which repeats no finished document, or set "
        f"`overflow: split` (or `head`) in {AGENT_FILE}",
    ),
    "rejected": Reason("document", "the server refuses these documents: see the message"),
    "document_unreadable": Reason(
        "document", "see the message: a setting of `input` is wrong, or the file is damaged or may not be read"
    ),
    "document_too_large": Reason(
        "document",
        "split the document, or raise the limit: `input.max_document_bytes`, `split.window_tokens` in the agent, or "
        "for HTTP 413 the request size that the server or its proxy takes",
        {
            "": "split the document, or change the setting that the message names, such as `input.max_document_bytes`",
            "http_413": "the server, or a proxy in front of it, refuses requests of this size: raise its limit, or "
            "split the document",
        },
    ),
    "document_empty": Reason("document", "the file holds no text: remove it, or exclude it by `input.exclude`"),
    "document_too_expensive": Reason(
        "document", "raise `input.limits`, or exclude the file: decoding it costs too much"
    ),
    "unsupported_format": Reason(
        "document", "install the extra that the message names, convert the file, or exclude it by `input.exclude`"
    ),
    "duplicate_id": Reason("document", "give the inputs names, or make the `id_field` unique"),
    "merge_failed": Reason(
        "document",
        "the parts of these documents cannot be merged: see the message, then set `x-merge`, `x-key`, `maxItems` or "
        "`x-over`",
    ),
    # the answer: requested again with the error message
    "invalid_json": Reason("answer", "the model does not write JSON: try another model or a smaller schema"),
    "schema_invalid": Reason(
        "answer", "the model breaks the schema: see the messages; simplify it, or change the prompt"
    ),
    "not_grounded": Reason(
        "answer", "the model's quotes do not occur in the document: ask for verbatim quotes in the prompt"
    ),
    "output_truncated": Reason(
        "answer",
        "raise `max_tokens`, ask for less, or limit thinking (docs/thinking-models.md); where the server clamped the "
        f"answer, raise its context instead, or set `overflow: split` in {AGENT_FILE}",
        {
            "": "raise `max_tokens`, ask for less, or limit thinking (docs/thinking-models.md)",
            "max_tokens_clamped": "the prompt left less room than `max_tokens`: raise the context (`ollama.num_ctx`, "
            f"or the server's --max-model-len), or set `overflow: split` in {AGENT_FILE}",
        },
    ),
    "generation_loop": Reason("answer", "the model repeats itself: try a higher temperature or another model"),
    "internal_error": Reason("internal", "internal error of the pipeline: the log has the traceback; please report it"),
}


def has_causes(reason: str) -> bool:
    """Return True for a reason that has several causes, each with its own advice."""
    return reason in REASONS and bool(REASONS[reason].by_cause)


def cause_of(reason: str, *, error: str | None, notes: Collection[str]) -> str:
    """Return the cause of a failure whose reason has several: its error or a note; "" for any other cause."""
    by_cause = REASONS[reason].by_cause if reason in REASONS else {}
    return next((cause for cause in by_cause if cause and (cause == error or cause in notes)), "")


REASKED = frozenset({"invalid_json", "schema_invalid", "not_grounded"})
"""Reasons for which the request is repeated with the error message."""

PROVES_LIFE = frozenset({"bad_response", "empty_model_response", "response_too_large"})
"""Backend reasons that nevertheless prove that the server is alive."""


def kind_of(reason: str) -> ReasonClass:
    """Return the class of a reason; an unknown one is internal."""
    return REASONS[reason].kind if reason in REASONS else "internal"


TRANSIENT_STATUSES = frozenset({402, 408, 409, 423, 424, 425, 460, 499})
"""The 4xx statuses with which servers and gateways report a temporary state."""

PROMPT_TOO_LONG = frozenset({"context_length", "prompt_truncated"})
"""Reasons that do not depend on the state of the server: each attempt at the document fails alike."""


def reason_of_status(status: int) -> str:
    """Return the reason for an HTTP status other than 200 without details in the body."""
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
    """Return True when the same request may succeed later: for the backend reasons, and no others."""
    return reason is not None and kind_of(reason) == "backend"

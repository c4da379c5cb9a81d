"""The summary of one run as a frozen value: the content of runs/RUN_ID.json.

It must compute only values that follow from its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.report import plain
from pipeline.report.numbers import RunNumbers
from pipeline.report.remaining import NONE_REMAIN, RemainingFailures

REPORT_VERSION = 1
Json = Mapping[str, Any]
"""A JSON object whose content other modules define: a configuration, grades, kept profiles."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Documents: found = done + failed + skipped + ignored + left."""

    found: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    ignored: int = 0
    left: int = 0

    @property
    def tried(self) -> int:
        """Documents with a result or a failure in this run."""
        return self.done + self.failed

    def items(self) -> list[tuple[str, int]]:
        """Return (name, documents) in the order of display."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


@dataclass(frozen=True, slots=True)
class Overhead:
    """Requests that belong to no document (preflights, liveness and verification requests), and their prompt tokens."""

    requests: int = 0
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PromptLength:
    """Result of the verification that a server reads prompts whole.

    `proofs`: the number of verifications. `context_length`: the detected limit, in tokens. `unverified`: why the counts
    of the server cannot be used.
    """

    server: str = ""
    proofs: int = 0
    context_length: int | None = None
    unverified: str | None = None


@dataclass(frozen=True, slots=True)
class Concurrency:
    """The requests in flight that were allowed at the end of the run, and why."""

    limit: int = 1
    reason: str = "set"


@dataclass(frozen=True, slots=True)
class StateCounts:
    """Documents of a variant by state."""

    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class OutputCounts:
    """Documents of the whole output, over all runs.

    `stale`: failed documents with an older result. `accepted`: failed documents that a person has accepted. `reasons`:
    failed documents by reason. `questions`: done documents by variant and fingerprint; None: not counted.
    """

    done: int = 0
    failed: int = 0
    stale: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    variants: Mapping[str, StateCounts] = field(default_factory=dict)
    accepted: int | None = field(default=None, metadata=plain.LEFT_OUT)
    questions: Mapping[str, Mapping[str, int]] | None = field(default=None, metadata=plain.LEFT_OUT)

    @classmethod
    def from_json(cls, value: Json) -> OutputCounts:
        """Return the counts of an index, or of a file."""
        return plain.from_json(cls, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run, or the newest runs of all shards as one.

    `shard`: I/N, or `chunk I` of the plan, which had that many `chunks`. `message`: why it stopped. `command`: the
    user's command, without secrets and --only-failed; `resume`: the command that resumes the run where it differs
    (`--redo all`, a pod of Kubernetes).
    `ignored`: files by extension. `files`: place by name. `config`: resolved, masked. `listed_whole`: False when the
    listing did not come to its end. `all_current`: True when each document of the input with
    a result of an earlier prompt, schema or model was extracted again. `agent_file`: the file to change the agent in.
    `former_fingerprints`: of an earlier formula, each with the present one of the same question. `ask_again`: ids
    that the next run sends again. `profile`: kept profiles of the values by variant. `eval`: grades of the answers.
    `merge_warnings`: the fields without a merge rule, in a run with documents read in windows.
    """

    v: int = REPORT_VERSION
    run: int = 0
    run_id: str = ""
    shard: str | None = None
    agent: str = ""
    exit_code: int = 0
    verdict: str = ""
    message: str = ""
    started_at: str = ""
    finished_at: str = ""
    command: str = "pipeline run"
    counts: Counts = field(default_factory=Counts)
    ignored: Mapping[str, int] = field(default_factory=dict)
    remaining: RemainingFailures = NONE_REMAIN
    files: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    stats: RunNumbers = field(default_factory=RunNumbers)
    config: Json = field(default_factory=dict)
    listed_whole: bool = True
    all_current: bool | None = field(default=None, metadata=plain.LEFT_OUT)
    chunks: int | None = field(default=None, metadata=plain.LEFT_OUT)
    agent_file: str | None = field(default=None, metadata=plain.LEFT_OUT)
    overhead: Overhead | None = field(default=None, metadata=plain.LEFT_OUT)
    prompt_length: tuple[PromptLength, ...] | None = field(default=None, metadata=plain.LEFT_OUT)
    resume: str | None = field(default=None, metadata=plain.LEFT_OUT)
    former_fingerprints: Mapping[str, str] | None = field(default=None, metadata=plain.LEFT_OUT)
    output: OutputCounts | None = field(default=None, metadata=plain.LEFT_OUT)
    concurrency: Concurrency | None = field(default=None, metadata=plain.LEFT_OUT)
    ask_again: tuple[str, ...] | None = field(default=None, metadata=plain.LEFT_OUT)
    profile: Mapping[str, Json] | None = field(default=None, metadata=plain.LEFT_OUT)
    eval: Json | None = field(default=None, metadata=plain.LEFT_OUT)
    merge_warnings: tuple[str, ...] | None = field(default=None, metadata=plain.LEFT_OUT)

    @property
    def place(self) -> str:
        """The folder or the address of the output, from the place of its page; "" when that is not known."""
        return self.files.get("report.html", "").rpartition("/")[0]

    def to_json(self) -> dict[str, Any]:
        """Return the content of runs/RUN_ID.json."""
        return plain.fields_to_json(self)

    @classmethod
    def from_json(cls, value: Json) -> RunSummary:
        """Return the run of a file; fields that an earlier version did not write have their defaults."""
        return plain.from_json(cls, value)

"""The failed documents of an output, grouped by reason, and all records of one document.

It must not hold more in memory than it returns.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from pipeline.errors import REASONS, ConfigError, kind_of
from pipeline.output import ReadableOutput, read_runs
from pipeline.output.record_keys import KINDS

FAILURES_VERSION = 1
SIMILAR_IDS = 5
_KEPT = ("id", "uri", "stage", "message", "runs", "run", "finished_at")


def failures(backend: ReadableOutput, *, examples: int) -> dict[str, Any]:
    """Return the documents that remain failed, by reason, the most frequent first.

    `commands`: class → the command that retries all its failures, for classes of several reasons. Raises ConfigError
    when the output holds no record and no run.
    """
    with closing(backend.read()) as index:
        counts = index.counts()
        by_reason: dict[str, dict[str, Any]] = {}
        for line, head in backend.records("errors"):
            if head.reason is None or not index.is_current_failure(head.id, head.run) or index.seen(head.id):
                continue
            group = by_reason.setdefault(head.reason, {"count": 0, "accepted": 0, "examples": []})
            group["count"] += 1
            group["accepted"] += index.is_accepted(head.id)
            if len(group["examples"]) < examples:
                record = json.loads(line)
                group["examples"].append({key: record.get(key) for key in _KEPT})
    if not counts["done"] and not by_reason and not read_runs(backend):
        raise ConfigError(f"errors: got {backend.where!r}, which holds no record, need the output of a run")
    command, agent_file = last_command(backend), _agent_file(backend)
    ordered = sorted(by_reason, key=lambda reason: (-by_reason[reason]["count"], reason))
    groups = [_group(reason, by_reason[reason], command, agent_file) for reason in ordered]
    return {
        "v": FAILURES_VERSION,
        "output": backend.where,
        "done": counts["done"],
        "failed": sum(group["count"] for group in groups),
        "accepted": sum(group["accepted"] for group in groups),
        "groups": groups,
        "commands": _by_class(groups, command),
    }


def _group(reason: str, group: Mapping[str, Any], command: str, agent_file: str | None) -> dict[str, Any]:
    advice = REASONS[reason].advice_for(agent_file) if reason in REASONS else "see the log"
    again = f"{command} --only-failed {shlex.quote(reason)}"
    return {"reason": reason, "class": kind_of(reason), **group, "advice": advice, "command": again}


def _by_class(groups: list[dict[str, Any]], command: str) -> dict[str, str]:
    kinds = dict.fromkeys(group["class"] for group in groups)
    reasons = {kind: [group["reason"] for group in groups if group["class"] == kind] for kind in kinds}
    return {kind: f"{command} --only-failed {','.join(names)}" for kind, names in reasons.items() if len(names) > 1}


def last_command(backend: ReadableOutput) -> str:
    """Return the command of the last run of this output; a plain `pipeline run` when it is not known."""
    runs = read_runs(backend)
    command = runs[-1].get("command") if runs else None
    return command if isinstance(command, str) else shlex.join(["pipeline", "run", "--output", backend.where])


def _agent_file(backend: ReadableOutput) -> str | None:
    """Return the agent file of the last run, for a message; None when it is not known."""
    runs = read_runs(backend)
    return runs[-1].get("agent_file") if runs else None


def story(backend: ReadableOutput, document_id: str) -> dict[str, Any]:
    """Return all records of one document, newest first, its state, and the command that retries it.

    Raises ConfigError, with similar ids, when the output has no record of it.
    """
    similar: list[str] = []
    lines = sorted(_lines_of(backend, document_id, similar), key=lambda line: line["run"])
    with closing(backend.read()) as index:
        known = index.known(document_id)
    if not lines or known is None:
        near = f"; there is {', '.join(map(repr, sorted(similar)))}" if similar else ""
        raise ConfigError(f"--show: got {document_id!r}, of which {backend.where} has no record{near}")
    newest = lines[-1]
    # While a run is in progress, the error file may still hold a failure that a later result has resolved.
    current = newest if known.failed else [line for line in lines if "output" in line][-1]
    reason = current.get("reason")
    return {
        "v": FAILURES_VERSION,
        "id": document_id,
        "state": "failed" if known.failed else "done",
        "accepted": known.accepted,
        "records": [current, *(line for line in reversed(lines) if line is not current)],
        "advice": REASONS[reason].advice_for(_agent_file(backend))
        if reason is not None and reason in REASONS
        else None,
        "command": f"{last_command(backend)} --only-failed {reason}" if reason else None,
    }


def _lines_of(backend: ReadableOutput, document_id: str, similar: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the document's records, results first; collect ids that contain the wanted one in `similar`."""
    for kind in KINDS:
        for line, head in backend.records(kind):
            if head.id == document_id:
                yield json.loads(line)
            elif document_id in head.id and len(similar) < SIMILAR_IDS and head.id not in similar:
                similar.append(head.id)

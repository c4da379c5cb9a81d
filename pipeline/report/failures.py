"""The failed documents of an output, grouped by reason, and all records of one document.

It must not hold more in memory than it returns.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from pipeline.config.constraints import nearest_hint
from pipeline.errors import REASONS, ConfigError, cause_of, has_causes, kind_of
from pipeline.output import ReadableOutput, read_runs
from pipeline.output.newest_prompt import newest_prompt
from pipeline.output.record_keys import KINDS

FAILURES_VERSION = 1
SIMILAR_IDS = 5
COMPARED_IDS = 5000
_KEPT = ("id", "uri", "stage", "message", "runs", "run", "finished_at")


def failures(backend: ReadableOutput, *, examples: int) -> dict[str, Any]:
    """Return the documents that remain failed, by reason, the most frequent first.

    `commands`: class → the command that retries all its failures, for classes of several reasons. Raise ConfigError
    when the output holds no record and no run.
    """
    with closing(backend.read()) as index:
        counts = index.counts()
        by_reason: dict[str, dict[str, Any]] = {}
        for line, head in backend.records("errors"):
            if head.reason is None or not index.is_current_failure(head.id, head.run) or index.mark_met(head.id):
                continue
            group = by_reason.setdefault(head.reason, {"count": 0, "accepted": 0, "examples": [], "causes": set()})
            group["count"] += 1
            group["accepted"] += index.is_accepted(head.id)
            is_example = len(group["examples"]) < examples
            record = json.loads(line) if is_example or has_causes(head.reason) else {}
            group["causes"].add(_cause(record, head.reason))
            if is_example:
                group["examples"].append({key: record.get(key) for key in _KEPT})
    if not counts["done"] and not by_reason and not read_runs(backend):
        raise ConfigError(f"errors: got {backend.where!r}, which holds no records, need the output of a run")
    command = last_command(backend)
    agent_file = _agent_file(backend)
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


def _cause(record: Mapping[str, Any], reason: str) -> str:
    return cause_of(reason, error=record.get("error"), notes=record.get("notes") or ())


def _group(reason: str, group: dict[str, Any], command: str, agent_file: str | None) -> dict[str, Any]:
    causes = group.pop("causes")
    advice = REASONS[reason].advice_for(agent_file, causes) if reason in REASONS else "see the log"
    retry_command = f"{command} --only-failed {shlex.quote(reason)}"
    return {"reason": reason, "class": kind_of(reason), **group, "advice": advice, "command": retry_command}


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


def story(backend: ReadableOutput, ids: Sequence[str], *, flag: str = "--show") -> dict[str, Any]:
    """Return all records of one document, newest first, its state, and the command that retries it.

    `prompts`: `current` or `earlier` for each record. `ids`: the possible ids of the named document; the first one
    with a record is used. Raise ConfigError, with similar ids, when no id has a record; `flag`: the flag with the name.
    """
    similar: dict[str, None] = {}
    all_lines = list(_lines_of(backend, ids, similar))
    document_id = next((id_ for id_ in ids if any(line["id"] == id_ for line in all_lines)), ids[0])
    lines = sorted((line for line in all_lines if line["id"] == document_id), key=lambda line: line["run"])
    with closing(backend.read()) as index:
        entry = index.latest(document_id)
        newest = newest_prompt(backend, index)
    if not lines or entry is None:
        near = _hint_of_similar(ids, similar)
        raise ConfigError(f"{flag}: got {document_id!r}: {backend.where} has no record of it{near}")
    last = lines[-1]
    # While a run is in progress, the error file may still hold a failure that a later result has resolved.
    current_line = last if entry.failed else [line for line in lines if "output" in line][-1]
    reason = current_line.get("reason")
    records = [current_line, *(line for line in reversed(lines) if line is not current_line)]
    return {
        "v": FAILURES_VERSION,
        "id": document_id,
        "state": "failed" if entry.failed else "done",
        "accepted": entry.accepted,
        "records": records,
        "prompts": [newest.of(record["variant"], record["fingerprint"]) for record in records],
        "advice": REASONS[reason].advice_for(_agent_file(backend), {_cause(current_line, reason)})
        if reason is not None and reason in REASONS
        else None,
        "command": f"{last_command(backend)} --only-failed {reason}" if reason else None,
    }


def _hint_of_similar(ids: Sequence[str], candidates: Iterable[str]) -> str:
    """Return the ending of a message about unknown ids: some ids that contain one of them, else the nearest id."""
    candidates = list(candidates)
    similar_ids = [candidate for candidate in candidates if any(name in candidate for name in ids)][:SIMILAR_IDS]
    if similar_ids:
        return f"; there is {', '.join(map(repr, sorted(similar_ids)))}"
    return nearest_hint(ids[0], candidates)


def _lines_of(backend: ReadableOutput, ids: Sequence[str], other_ids: dict[str, None]) -> Iterator[dict[str, Any]]:
    """Yield the document's records, results first; collect other ids, those that contain a wanted one always."""
    for kind in KINDS:
        for line, head in backend.records(kind):
            if head.id in ids:
                yield json.loads(line)
            elif len(other_ids) < COMPARED_IDS or (
                len(other_ids) < COMPARED_IDS + SIMILAR_IDS and any(name in head.id for name in ids)
            ):
                other_ids[head.id] = None

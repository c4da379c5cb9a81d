"""A run and an output in numbers: the run's summary, the report over all shards, and the files they go to.

It must not call a model or read a document: everything here follows from what the runs have counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.config.redaction import SECRETS
from pipeline.errors import REASONS
from pipeline.report.html import page
from pipeline.report.questions import mixed_variants, question_rows
from pipeline.report.remaining import NONE_REMAIN, RemainingFailures, merged
from pipeline.report.stats import Numbers, RunStats, merge

REPORT_VERSION = 1
COMPARED_DOCUMENTS = 10
"""Fewer documents than this in either run say nothing about a field."""

COUNTS = ("found", "done", "failed", "skipped", "ignored", "left")
_WORST_FIRST = (70, 2, 1, 3, 143, 130, 0)
_HEADLINES: Mapping[int, str] = {
    1: "TOO MANY FAILURES",
    2: "SOMETHING MUST BE CHANGED FIRST",
    3: "STOPPED BEFORE THE END",
    70: "A FAULT IN THE PIPELINE",
    130: "INTERRUPTED",
    143: "INTERRUPTED",
}


def reconciles(counts: Mapping[str, int]) -> bool:
    """True when found = done + failed + skipped + ignored + left."""
    return counts["found"] == sum(counts[name] for name in COUNTS[1:])


def headline(counts: Mapping[str, int], exit_code: int, *, remaining: int = 0) -> str:
    """The verdict on a run in a few capital words; `remaining`: failures that remain from earlier runs, too."""
    if exit_code:
        return _HEADLINES.get(exit_code, "STOPPED")
    if counts["left"]:
        return "STOPPED AS ASKED"
    return "FINISHED WITH FAILURES" if counts["failed"] or remaining else "FINISHED"


def run_summary(
    stats: RunStats,
    *,
    counts: Mapping[str, int],
    exit_code: int,
    started_at: str,
    finished_at: str,
    run_id: str,
    run: int,
    shard: str | None,
    agent: str,
    config: Mapping[str, Any],
    verdict: str | None = None,
    message: str = "",
    command: str = "pipeline run",
    files: Mapping[str, str] | None = None,
    parts: Sequence[str] = (),
    ignored: Mapping[str, int] | None = None,
    remaining: RemainingFailures = NONE_REMAIN,
) -> dict[str, Any]:
    """The content of runs/RUN_ID.json.

    `verdict` None: that of `headline`. `command`: what the user typed, without secrets and --only-failed. `files`:
    label → where it is. `config`: resolved, masked. `ignored`: by extension. `remaining`: documents that remain failed.
    """
    return {
        "v": REPORT_VERSION,
        "run": run,
        "run_id": run_id,
        "shard": shard,
        "agent": agent,
        "exit_code": exit_code,
        "verdict": verdict or headline(counts, exit_code, remaining=remaining.failed),
        "message": message,
        "started_at": started_at,
        "finished_at": finished_at,
        "command": command,
        "counts": {name: counts[name] for name in COUNTS},
        "ignored": dict(ignored or {}),
        "remaining": remaining.to_json(),
        "files": dict(files or {}),
        "parts": list(parts),
        "stats": stats.snapshot(),
        "config": dict(config),
    }


def build_report(runs: Sequence[dict[str, Any]], output_counts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of report.json, of the newest run; over all shards when that run was one shard of several.

    `runs` are the contents of runs/*.json in any order, at least one (ValueError).
    """
    if not runs:
        raise ValueError("runs: got none, need the summary of at least one run")
    ordered = sorted(runs, key=_age)
    of = _shard_of(ordered[-1])[1]
    history = [_runs_of_shard(ordered, (index, of)) for index in range(of)]
    current = [each[-1] for each in history if each]
    previous = [earlier for each in history if (earlier := _last_that_asked(each[:-1])) is not None]
    missing = [index for index, each in enumerate(history) if not each]
    run = current[0] if of == 1 else _merged(current, missing)
    return {
        "v": REPORT_VERSION,
        "verdict": run["verdict"],
        "exit_code": run["exit_code"],
        "run": run,
        "shards": [_shard_row(each) for each in current] if of > 1 else [],
        "missing_shards": missing,
        "output": dict(output_counts),
        "questions": question_rows(run, output_counts),
        "mixed_questions": mixed_variants(current),
        "compared": _compared(run, previous),
        "advice": {name: REASONS[name].advice for name in _reasons(run) if name in REASONS},
    }


def _reasons(run: Mapping[str, Any]) -> dict[str, None]:
    """The reasons of this run's failures and of those that remain, each once."""
    return dict.fromkeys([*run["stats"]["reasons"], *run.get("remaining", {}).get("reasons", {})])


def report_files(report: Mapping[str, Any]) -> dict[str, bytes]:
    """The report's files by name, for whatever store the output is in."""
    text = json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    return {
        "report.json": SECRETS.redact(text).encode("utf-8", errors="backslashreplace"),
        "report.html": SECRETS.redact(page(report)).encode("utf-8", errors="backslashreplace"),
    }


def write_report(replace: Callable[[str, bytes], None], report: Mapping[str, Any]) -> None:
    """Writes report.json and report.html, by what replaces a file of this name."""
    for name, data in report_files(report).items():
        replace(name, data)


def write_newest(
    replace: Callable[[str, bytes], None],
    *,
    runs: Callable[[], Sequence[dict[str, Any]]],
    counts: Callable[[], Mapping[str, Any]],
) -> dict[str, Any]:
    """The report that was written, of all `runs` there are: again when another one ended meanwhile.

    Two shards that end at the same moment each see the other's run before their last look, or are seen by it; one look
    before writing would let the slower one put a report without the faster one over the whole one.
    """
    found = runs()
    while True:
        report = build_report(found, counts())
        write_report(replace, report)
        if not report["shards"]:  # nobody runs beside a run without shards
            return report
        seen, found = len(found), runs()
        if len(found) <= seen:
            return report


def _age(run: Mapping[str, Any]) -> tuple[int, str]:
    return run["run"], run["finished_at"]


def _shard_of(run: Mapping[str, Any]) -> tuple[int, int]:
    """(index, of) of a shard written as I/N or IIIII-of-NNNNN; (0, 1) for a run without shards."""
    numbers = re.findall(r"\d+", run["shard"] or "")
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (0, 1)


def _runs_of_shard(runs: Sequence[dict[str, Any]], shard: tuple[int, int]) -> list[dict[str, Any]]:
    return [run for run in runs if _shard_of(run) == shard]


def _last_that_asked(runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest of these runs that has results of its own to compare with."""
    return next((run for run in reversed(runs) if run["stats"]["outcomes"]["done"]), None)


def _merged(current: Sequence[dict[str, Any]], missing: Sequence[int]) -> dict[str, Any]:
    """The newest runs of all shards as one summary."""
    ignored = _most([run["ignored"] for run in current])
    counts = _merged_counts([run["counts"] for run in current], ignored=sum(ignored.values()))
    worst = min(current, key=_badness)
    remaining = merged([RemainingFailures.from_json(run.get("remaining")) for run in current])
    verdict = worst["verdict"] if worst["exit_code"] else headline(counts, 0, remaining=remaining.failed)
    message = f"shard {worst['shard']}: {worst['message']}" if worst["message"] else ""
    newest = max(current, key=_age)
    return {
        **newest,
        "shard": None,
        "exit_code": worst["exit_code"],
        "verdict": f"SHARDS ARE MISSING: {verdict}" if missing else verdict,
        "message": message,
        "started_at": min(run["started_at"] for run in current),
        "finished_at": max(run["finished_at"] for run in current),
        "counts": counts,
        "ignored": ignored,
        "remaining": remaining.to_json(),
        "files": {name: where for run in current for name, where in run["files"].items()},
        "parts": [part for run in current for part in run["parts"]],
        "stats": merge([run["stats"] for run in current]),
        "overhead": _added([run.get("overhead", {}) for run in current]),
        "prompt_length": [row for run in current for row in run.get("prompt_length", [])],
        "ask_again": [document_id for run in current for document_id in run.get("ask_again", [])],
    }


def _added(tables: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: sum(table.get(name, 0) for table in tables) for name in names}


def _badness(run: Mapping[str, Any]) -> int:
    return _WORST_FIRST.index(run["exit_code"]) if run["exit_code"] in _WORST_FIRST else 0


def _merged_counts(each: Sequence[Mapping[str, int]], *, ignored: int) -> dict[str, int]:
    """The counts of all shards; what is ignored belongs to none of them and is counted once."""
    added = {name: sum(counts[name] for counts in each) for name in COUNTS}
    return {**added, "ignored": ignored, "found": added["found"] - added["ignored"] + ignored}


def _most(tables: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The most that any of the tables has: every shard passes over the same files of the whole input."""
    names = sorted({name for table in tables for name in table})
    return {name: max(table.get(name, 0) for table in tables) for name in names}


def _shard_row(run: Mapping[str, Any]) -> dict[str, Any]:
    names = ("shard", "run", "run_id", "exit_code", "verdict", "counts", "started_at", "finished_at")
    return {**{name: run[name] for name in names}, "elapsed_s": run["stats"]["elapsed_s"]}


def _compared(run: Mapping[str, Any], previous: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each field of this run beside the run before, and a warning for each that lost half of what it held."""
    before = merge([each["stats"] for each in previous])["fields"]
    fields = {name: _field_row(now, before.get(name)) for name, now in run["stats"]["fields"].items()}
    warnings = [text for name, row in fields.items() for text in _drops(name, row)]
    return {"with_runs": [each["run"] for each in previous], "fields": fields, "warnings": warnings}


def _field_row(now: Numbers, before: Numbers | None) -> Numbers:
    enough = before is not None and min(now["documents"], before["documents"]) >= COMPARED_DOCUMENTS
    old = before if enough and before is not None else {}
    return {
        "filled": _filled(now),
        "filled_before": _filled(old),
        "mean_items": now["mean_items"],
        "mean_items_before": old.get("mean_items"),
    }


def _filled(counts: Numbers) -> float | None:
    empty_share = counts.get("empty_share")
    return None if empty_share is None else round(1 - empty_share, 4)


def _drops(name: str, row: Numbers) -> list[str]:
    """What to say of a field, at most one line: fewer filled explains fewer items."""
    now, before = row["filled"] or 0.0, row["filled_before"]
    if before and now <= before / 2:
        return [f"{name} is filled in {now:.0%} of the results; in the run before it was {before:.0%}"]
    now, before = row["mean_items"] or 0.0, row["mean_items_before"]
    if before and now <= before / 2:
        return [f"{name} has {now:.1f} items on average; in the run before it had {before:.1f}"]
    return []

"""Print the last lines of `make run`: the records, their quality, and the next commands.

It reads finished outputs and must not import the project or call a model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LABEL = 18


def grade(out: Path) -> str | None:
    """Return F1 with its interval from an output's eval.json; None if it has none."""
    try:
        f1 = json.loads((out / "eval.json").read_text(encoding="utf-8"))["outputs"][0]["overall"]["f1"]
        return f"F1 {f1['value']:.2f} ({f1['low']:.2f} to {f1['high']:.2f})"
    except (OSError, ValueError, LookupError, TypeError):
        return None


def counts(out: Path) -> tuple[int, int, Any]:
    """Return the numbers of records, of documents and of judged documents of an output."""
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    judged = json.loads((out / "eval.json").read_text(encoding="utf-8"))["gold"]["graded"]
    return len({json.loads(line)["id"] for line in lines}), report["run"]["counts"]["found"], judged


def long_document(out: Path) -> Iterator[str]:
    """Yield the result of the document that was read in windows; no line without an output."""
    try:
        lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
        record = json.loads(lines[-1])
        windows = len(record["windows"]["rows"])
        reports = len(record["output"]["reports"])
    except (OSError, ValueError, LookupError, TypeError):
        if (out / "errors.jsonl").exists():
            yield "failed, as it may with a model this small: see what failed with"
            yield f"pipeline errors {out}"
        return
    yield f"{record['id']}: {windows} windows merged into one record of {reports} reports, with"
    yield f"{len(record['evidence'])} quotes marked in its text: {out}/bulletin.html"


def built_in_agent(out: Path) -> str | None:
    """Return the grade of a built-in agent, named like its output's folder; None without an output."""
    if not out.is_dir():
        return None
    try:
        gold = json.loads((out / "eval.json").read_text(encoding="utf-8"))["gold"]
        texts = f"{gold['graded']} of its {gold['documents']} texts"
        failed = f", {gold['failed']} refused or failed" if gold["failed"] else ""
    except (OSError, ValueError, LookupError, TypeError):
        return f"{out.name}: no text was finished in the time that is given to it here"
    return f"{out.name}: {grade(out) or 'no F1'} on {texts}{failed}"


def summary(out: Path, *, builtin: Sequence[Path], long: Path | None, command: str) -> Iterator[str]:
    """Yield the lines; the last three are the result, its place, and the next commands.

    `builtin`: the graded outputs of the built-in agents. `long`: that of the long document. `command`: the pipeline.
    """
    done_count, found_count, judged = counts(out)
    agents = [line for line in map(built_in_agent, builtin) if line is not None]
    for number, text in enumerate(agents):
        yield _line("" if number else "Built-in agents", text)
    if agents:
        yield _line("", "This model has 135 million parameters; they need about 7 billion: make builtin, with your own")
    for number, text in enumerate(long_document(long) if long is not None else ()):
        yield _line("" if number else "Long document", text)
    if agents or long is not None:
        yield ""
    yield _line(
        "What came out", f"{done_count} records of {found_count} documents, {grade(out)} on {judged} judged documents"
    )
    yield _line("Where", f"{out}/results.jsonl; to look at: {out}/report.html")
    yield _line("What next", f"{command} errors {out} (why some failed); {command} init news (your documents)")


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL}}{text}"


def main(arguments: Sequence[str]) -> int:
    """Return 0 when the lines are printed, 3 for an output that no run has finished."""
    parser = argparse.ArgumentParser(description="Print the last lines of `make run`.")
    parser.add_argument("out", type=Path, help="the output of the demonstration")
    parser.add_argument("--builtin", type=Path, nargs="*", default=[], help="the graded outputs of the built-in agents")
    parser.add_argument("--long", type=Path, help="the output of the long document")
    parser.add_argument("--command", default="pipeline", help="the command that starts the pipeline")
    options = parser.parse_args(arguments)
    try:
        print("\n".join(summary(options.out, builtin=options.builtin, long=options.long, command=options.command)))
    except (OSError, ValueError, LookupError) as problem:
        print(f"demo_summary: {options.out}: {problem}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The tables of the report page as values: their heads and their rows.

They must show only numbers of the report, and must not write markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.contents import Comparison, QuestionRow, Report
from pipeline.report.grades import GradedOutput
from pipeline.report.note_hints import hint_of
from pipeline.report.numbers import FieldCounts, ProviderNumbers, RunNumbers, VariantNumbers
from pipeline.report.numbers_text import duration_text
from pipeline.report.profile_text import move_text, range_text, share_text, value_text
from pipeline.report.profiled import Movement, Profile, ProfiledField
from pipeline.report.questions import SHOWN_CHARS
from pipeline.report.run_summary import OutputCounts, RunSummary
from pipeline.report.text import counts_text, rerun_command, shown_files
from pipeline.terminal import percent_text, plural

Row = Sequence[Any]
_NUMBER = re.compile(r"[<>~+−-]?[0-9][0-9,.]*( ?%| s| ms)?|–")
_SHOWN_VALUES = 5
_PERCENT = "\N{NO-BREAK SPACE}%"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows whose first cell is their name; `sentence`: an introduction; `command`: below the rows, with its label."""

    title: str
    head: Sequence[str]
    rows: Sequence[Row]
    sentence: str = ""
    command: tuple[str, str] | None = None

    @property
    def is_wide(self) -> bool:
        """True when a phone shows each row as a block: with four columns or more, or with texts in three columns."""
        return len(self.head) > 3 or (len(self.head) > 2 and not all(self.numeric_columns()[1:]))

    def numeric_columns(self) -> list[bool]:
        """Return for each column whether it holds numbers, which are aligned at the right."""
        return [self._is_numeric(column) for column in range(len(self.head))]

    def _is_numeric(self, column: int) -> bool:
        cells = [row[column] for row in self.rows if row[column] is not None]
        return column > 0 and bool(cells) and all(_is_number(cell) for cell in cells)


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (int, float)) or (isinstance(cell, str) and _NUMBER.fullmatch(cell) is not None)


_COUNTS = {
    "Done": "done",
    "Failed": "failed",
    "Requests": "attempts",
    "Corrections": "reasks",
    "Repaired": "repaired",
    "Tokens in": "prompt_tokens",
    "Tokens out": "completion_tokens",
}
_LATENCY = {"Median latency": "p50_s", "95 % latency": "p95_s"}


def variants(variants: Mapping[str, VariantNumbers]) -> Table:
    """Return a column per variant; no rows for a single variant, which the other sections cover."""
    names = sorted(variants)
    columns = [variants[name] for name in names]
    reasons = sorted({reason for row in columns for reason in row.reasons})
    fields = list(dict.fromkeys(field for row in columns for field in row.fields))
    lines: list[Row] = [(label, *(getattr(row, key) for row in columns)) for label, key in _COUNTS.items()]
    lines.insert(2, ("Share done", *(percent(row.done / ((row.done + row.failed) or 1)) for row in columns)))
    lines += [(label, *(seconds(getattr(row.latency, key)) for row in columns)) for label, key in _LATENCY.items()]
    lines += [(f"failed: {reason}", *(row.reasons.get(reason, 0) for row in columns)) for reason in reasons]
    lines += [(f"filled: {field}", *(_filled(row.fields.get(field)) for row in columns)) for field in fields]
    return Table("Variants side by side", ("", *names), lines if len(variants) > 1 else ())


def _filled(counts: FieldCounts | None) -> str:
    share = counts.empty_share if counts else None
    return percent(None if share is None else 1 - share)


def seconds(value: float | None) -> str:
    """Return a duration as text, or a dash for None."""
    return "–" if value is None else duration_text(value)


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash for None."""
    return "–" if share is None else percent_text(share)


def providers(providers: Mapping[str, ProviderNumbers]) -> Table:
    """Return models, results, tokens, latency and errors of each provider."""
    head = ("Provider", "Models", "Done", "Tokens in", "Tokens out", *_LATENCY, "Errors")
    rows = [
        (
            name,
            ", ".join(row.models) or None,
            row.done,
            row.prompt_tokens,
            row.completion_tokens,
            *(seconds(getattr(row.latency, key)) for key in _LATENCY.values()),
            ", ".join(f"{error} {count:,}" for error, count in row.errors.items()) or None,
        )
        for name, row in sorted(providers.items())
    ]
    return Table("Providers", head, rows)


_FIELD = {
    "Filled": "filled",
    "Filled in the run before": "filled_before",
    "Mean items": "mean_items",
    "Mean items in the run before": "mean_items_before",
}


def fields(compared: Comparison) -> Table:
    """Return how often each field is filled and its mean items, now and in the run before; no empty columns."""
    rows = compared.fields.items()
    columns = [(title, key) for title, key in _FIELD.items() if any(getattr(row, key) is not None for _, row in rows)]
    cells = [(name, *(_field_value(getattr(row, key), key) for _, key in columns)) for name, row in rows]
    return Table("Fields of the results", ("Field", *(title for title, _ in columns)), cells if columns else ())


def _field_value(value: float | None, key: str) -> str | None:
    if key.startswith("filled"):
        return percent(value)
    return None if value is None else f"{value:.1f}"


def shards(report: Report) -> Table:
    """Return a row per shard of a merged report."""
    rows = [
        (shard.shard, shard.verdict, shard.exit_code, counts_text(shard.counts), duration_text(shard.elapsed_s))
        for shard in report.shards
    ]
    return Table("Shards", ("Shard", "Verdict", "Exit code", "Documents", "Duration"), rows)


def slowest(numbers: RunNumbers) -> Table:
    """Return the slowest documents."""
    rows = [(document.id, duration_text(document.latency_s)) for document in numbers.slowest]
    return Table("Slowest documents", ("Document", "Latency"), rows)


def longest_documents(numbers: RunNumbers) -> Table:
    """Return the longest documents."""
    rows = [(document.id, document.chars) for document in numbers.largest]
    return Table("Largest documents", ("Document", "Characters"), rows)


def long_documents(numbers: RunNumbers) -> Table:
    """Return the numbers of the documents that were read in windows; no rows without any."""
    counts = numbers.long_documents
    if counts is None:
        return Table("Long documents, read in windows", ("What", "Number"), ())
    rows: dict[str, int] = {
        "documents": counts.documents,
        "windows answered": counts.windows,
        "of them in an earlier run": counts.reused,
        "most windows of one document": counts.most,
        "windows divided into smaller ones": counts.divided,
        "values that differed between windows": counts.conflicts,
        "items left out by x-over": counts.dropped,
        "documents whose answers could not be merged": counts.merge_failed,
    }
    return Table("Long documents, read in windows", ("What", "Number"), list(rows.items()))


def notes(numbers: RunNumbers) -> Table:
    """Return the notes on documents, the most frequent first."""
    ordered = sorted(numbers.notes.items(), key=lambda item: (-item[1], item[0]))
    rows = [(name, count, hint_of(name)) for name, count in ordered]
    return Table("Notes on documents", ("Note", "Documents", "Meaning"), rows)


def ignored(run: RunSummary) -> Table:
    """Return the files that were not read, by kind."""
    return Table("Ignored files", ("Kind", "Files"), list(run.ignored.items()))


def remaining(report: Report) -> Table:
    """Return the remaining failures of the input by reason, with the command that retries those of one reason.

    No rows when the run has tried all of them: the failures by reason are the same then.
    """
    run = report.run
    reasons = run.remaining.reasons
    is_known = not any(count.untried or count.accepted for count in reasons.values())
    head = ("Reason", "Remaining", "Not retried in this run", "Accepted", "Example")
    rows = [
        (reason, count.count, count.untried, count.accepted, next(iter(count.examples), None))
        for reason, count in reasons.items()
    ]
    command = ("Try those of one reason again:", rerun_command(run, "REASON"))
    return Table("Remaining failures", head, () if is_known else rows, command=command)


def questions(rows: Sequence[QuestionRow]) -> Table:
    """Return how many documents are done per question."""
    cells = [(row.fingerprint[:SHOWN_CHARS], row.variant, row.done, row.done_in_output) for row in rows]
    return Table("Results by fingerprint", ("Fingerprint", "Variant", "Done in this run", "Done in all runs"), cells)


def whole_output(output: OutputCounts | None) -> Table:
    """Return the state of all documents of the output, over all runs; no rows when it is not known."""
    head = ("State", "Documents")
    if output is None:
        return Table("Whole output, over all runs", head, ())
    rows: list[Row] = [("done", output.done), ("failed", output.failed)]
    rows += [("of the failed: accepted", output.accepted)] if output.accepted else []
    rows += [("failed now, with an older result", output.stale)] if output.stale else []
    rows += [(f"failed: {reason}", number) for reason, number in output.reasons.items()]
    for name, row in sorted(output.variants.items()) if len(output.variants) > 1 else ():
        rows += [(f"variant {name}: done", row.done), (f"variant {name}: failed", row.failed)]
    return Table("Whole output, over all runs", head, rows)


def places(run: RunSummary) -> Table:
    """Return where the files of the output are."""
    return Table("Files", ("What", "Where"), list(shown_files(run).items()))


def values(profile: Profile) -> Sequence[Table]:
    """Return the values of the results: all, those that moved, and those of each variant; none without a profile."""
    if not profile.documents:
        return ()
    introduction = f"Over {plural(profile.documents, 'result')}"
    if not profile.exact:
        introduction += (
            ", including earlier results of repeated documents (`pipeline report` counts only the current ones)"
        )
    if any(listed.value is None for row in profile.fields.values() for listed in row.values):
        introduction += "; (text) is one of the texts that `pipeline report --profile-values` shows"
    moved = {move.field for move in profile.against.moved} if profile.against else set()
    tables = [Table("Values of the results", _VALUES, _value_rows(profile.fields, moved), f"{introduction}.")]
    tables += [_moves(profile.against)] if profile.against and profile.against.compared else []
    variants = profile.variants if len(profile.variants) > 1 else {}
    return tables + [
        Table(f"Values of variant {name}", _VALUES, _value_rows(row.fields, set())) for name, row in variants.items()
    ]


_VALUES = ("Field", "Filled", "Distinct", "Most frequent", "Numbers or dates", "Lengths", "Items")


def _value_rows(fields: Mapping[str, ProfiledField], moved: set[str]) -> list[Row]:
    return [
        (
            f"{name} (moved)" if name in moved else name,
            share_text(row.filled),
            row.distinct or None,
            ", ".join(f"{value_text(value)} {share_text(value.share)}" for value in row.values[:_SHOWN_VALUES]).replace(
                " %", _PERCENT
            )
            or None,
            range_text(spread) if (spread := row.dates or row.numbers) else None,
            range_text(row.lengths) if row.lengths else None,
            range_text(row.items) if row.items else None,
        )
        for name, row in fields.items()
    ]


def _moves(against: Movement) -> Table:
    """Return what moved against the run before, by more than chance and by two points at least."""
    title = f"Values that moved against run {', '.join(map(str, sorted(set(against.runs))[:5]))}"
    if not against.moved:
        no_change = f"None of {plural(against.compared, 'share')} moved by more than chance."
        return Table(title, (), (), no_change)
    rows = [(move_text(move), f"{100 * (move.share - move.share_before):+.0f} %") for move in against.moved]
    return Table(title, ("Share", "Change"), rows)


def worst_documents(output: GradedOutput) -> Table:
    """Return the documents with the most incorrect values."""
    rows = [(document.id, document.wrong, document.state) for document in output.worst]
    return Table("Documents with the most incorrect values", ("Document", "Incorrect values", "State"), rows)

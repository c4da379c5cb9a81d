"""The report: counts that add up, merged shards, a text summary, and an HTML page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape

from pipeline.records import ExtractionAttempt, Failure, ModelMetadata, Result, Try, Unchanged, Usage
from pipeline.report import (
    RunStats,
    RunSummary,
    build_report,
    headline,
    plain,
    reconciles,
    report_files,
    summary_text,
    timeline,
    write_newest,
    write_report,
)
from pipeline.report.contents import Report
from pipeline.report.html import page as html_page
from pipeline.report.merging import TOP, merge, quantile_s
from pipeline.report.numbers import RunNumbers
from pipeline.report.profile_text import field_lines, fitting, profile_lines
from pipeline.report.profiled import Profile, ProfiledVariant
from pipeline.report.run_summary import Counts, OutputCounts
from pipeline.shards import Shard

SCHEMA = {"type": "object", "properties": {"summary": {"type": "string"}, "companies": {"type": "array"}}}


class Clock:
    """A clock that does not advance until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def result(id: str = "a.txt", *, output: Any = None, latency_s: float = 1.0, variant: str = "default") -> Result:
    return Result(
        id=id, uri="file:///" + id, sha256="0" * 64, agent="extractor", variant=variant, fingerprint="f",
        output=output if output is not None else {"summary": "s", "companies": ["a", "b"]},
        model=ModelMetadata("ollama", "llama3.1"), attempts=2, reasks=1, repaired=True, notes=("encoding:cp1252",),
        usage=Usage(100, 10), context_length=8192, document_chars=len(id) * 10, metadata={}, latency_s=latency_s,
        finished_at="2026-11-23T00:00:00.000Z",
    )  # fmt: skip


def failure(id: str = "b.txt", *, reason: str = "timeout", message: str = "no answer in 300 s") -> Failure:
    return Failure(
        id=id, uri="file:///" + id, sha256=None, agent="extractor", variant="default", fingerprint="f", stage="call",
        reason=reason, error=reason, message=message, attempts=1,
        history=(Try("vllm", "http://a", f"{reason}: refused by 10.0.0.1", 3.0),), raw=None, usage=Usage(),
        notes=(), runs=1, finished_at="2026-11-23T00:00:00.000Z",
    )  # fmt: skip


def count(stats: RunStats, outcome: Result | Failure | Unchanged) -> None:
    """Count an outcome and its requests."""
    if isinstance(outcome, Failure):
        tries = [ExtractionAttempt(ModelMetadata(step.provider, "m"), error=step.error) for step in outcome.history]
        stats.add_attempts(tries, variant=outcome.variant)
    elif isinstance(outcome, Result):
        stats.add_attempts([ExtractionAttempt(outcome.model)] * outcome.attempts, variant=outcome.variant)
    stats.add(outcome)


def counts(**given: int) -> Counts:
    return Counts(**{"found": sum(given.values()), **given})


def summary(stats: RunStats | None = None, **given: Any) -> RunSummary:
    clock = Clock()
    if stats is None:
        stats = RunStats(SCHEMA, clock)
        count(stats, result())
        count(stats, failure())
        clock.now = 4.0
    facts: dict[str, Any] = {
        "counts": counts(done=19, failed=3, skipped=2), "exit_code": 0, "started_at": "2026-11-23T00:00:00.000Z",
        "finished_at": "2026-11-23T00:00:04.000Z", "run_id": "r1", "run": 1, "shard": None, "agent": "extractor",
        "config": {"vllm": {"api_key": "***"}}, "command": "pipeline run --config prod.yaml",
        "files": {"results": "out/results.jsonl"},
    }  # fmt: skip
    facts |= given
    verdict = headline(facts["counts"], facts["exit_code"])
    return RunSummary(stats=stats.snapshot(), **{"verdict": verdict, **facts})


def stats_of(outcomes: list[Result | Failure], schema: Mapping[str, Any] = SCHEMA) -> RunStats:
    stats = RunStats(schema, Clock())
    for outcome in outcomes:
        count(stats, outcome)
    return stats


def test_counts_reconcile_only_if_they_add_up() -> None:
    """`found` must be the sum of all other counts."""
    assert reconciles(counts(done=1, failed=2, skipped=3, ignored=4, left=5))
    assert not reconciles(replace(counts(done=1), found=2))


@pytest.mark.parametrize(
    ("given", "exit_code", "expected"),
    [
        (counts(done=1), 0, "FINISHED"),
        (counts(done=1, failed=1), 0, "FINISHED WITH FAILURES"),
        (counts(done=1, left=1), 0, "STOPPED AS REQUESTED"),
        (counts(failed=1), 1, "TOO MANY FAILURES"),
        (counts(left=1), 3, "STOPPED BEFORE THE END"),
        (counts(left=1), 143, "INTERRUPTED"),
    ],
)
def test_headline_follows_counts_and_exit_code(given: Counts, exit_code: int, expected: str) -> None:
    """Each combination has its own verdict."""
    assert headline(given, exit_code) == expected


def test_stats_count_outcomes_by_kind() -> None:
    """The kinds are outcome, reason, provider, variant and note."""
    stats = RunStats(SCHEMA, Clock())
    for outcome in (result(), result(variant="terse"), failure(), failure(reason="overloaded"), Unchanged("c")):
        count(stats, outcome)
    data = plain.to_json(stats.snapshot())
    assert data["outcomes"] == {"done": 2, "failed": 2, "unchanged": 1}
    assert {name: row["count"] for name, row in data["reasons"].items()} == {"timeout": 1, "overloaded": 1}
    assert data["providers"]["ollama"]["models"] == {"llama3.1": 2}
    assert data["providers"]["vllm"]["errors"] == {"timeout": 1, "overloaded": 1}
    assert {name: (row["done"], row["failed"]) for name, row in data["variants"].items()} == {
        "default": (1, 2),
        "terse": (1, 0),
    }
    total = data["total"]
    assert (total["attempts"], total["reasks"], total["repaired"]) == (6, 2, 2)
    assert (total["prompt_tokens"], total["completion_tokens"], total["tokens_unknown"]) == (200, 20, 2)
    assert data["notes"] == {"encoding:cp1252": 2}


def test_field_stats_count_empty_values() -> None:
    """Empty, blank, null and missing values are empty; lists have their mean number of items."""
    outputs = [
        {"summary": "s", "companies": [1, 2, 3]},
        {"summary": " ", "companies": []},
        {"summary": None},
        {"summary": 0},
    ]
    fields = stats_of([result(output=output) for output in outputs]).snapshot().fields
    assert fields["summary"].empty_share == 0.5
    assert fields["companies"].empty_share == 0.75
    assert fields["companies"].mean_items == 1.5


@settings(deadline=None)
@given(st.lists(st.floats(0.002, 5000), min_size=1, max_size=80), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_at_most_5_percent_too_high(latencies: list[float], share: float) -> None:
    """The histogram's percentile is the true one or up to 5 % above, and never above the longest."""
    latency = stats_of([result(latency_s=latency_s) for latency_s in latencies]).snapshot().total.latency
    ranked = sorted(latencies)
    true = next(latency_s for at, latency_s in enumerate(ranked, 1) if at >= share * len(ranked))
    estimate = quantile_s(latency, share)
    assert estimate is not None
    assert true * 0.999 <= estimate <= min(true * 1.0501, max(latencies) * 1.000001)


def test_snapshot_of_a_large_run_is_small() -> None:
    """Twenty thousand varied documents over a day take about ten kilobytes."""
    clock = Clock()
    stats = RunStats(SCHEMA, clock)
    for number in range(20_000):
        clock.now += 4.3
        count(stats, result(f"{number}.txt", latency_s=1 + number % 300, variant=f"v{number}"))
        count(stats, failure(f"f{number}", reason=f"reason{number}"))
    data = plain.to_json(stats.snapshot())
    assert len(json.dumps(data)) < 120_000
    assert len(data["timeline"]["rows"]) <= timeline.BUCKETS
    assert sum(row[0] for row in data["timeline"]["rows"]) == 20_000
    assert sum(row["count"] for row in data["reasons"].values()) == 20_000
    assert [row["latency_s"] for row in data["slowest"]] == [300.0] * TOP


def test_snapshot_does_not_change_during_the_run() -> None:
    """Later outcomes do not alter it."""
    stats = stats_of([result()])
    before = stats.snapshot()
    text = json.dumps(plain.to_json(before))
    count(stats, result("z"))
    count(stats, failure())
    assert json.dumps(plain.to_json(before)) == text


times = st.lists(st.tuples(st.floats(0, 400), st.booleans(), st.floats(0.01, 50)), max_size=30)


@settings(deadline=None)
@given(times, times)
def test_merged_shards_equal_a_single_run(first: list[Any], second: list[Any]) -> None:
    """Merging two snapshots gives the numbers of one run over all documents."""

    def run(events: list[Any]) -> RunNumbers:
        clock = Clock()
        stats = RunStats(SCHEMA, clock)
        for number, (clock.now, ok, latency_s) in enumerate(sorted(events)):
            count(stats, result(f"r{number}", latency_s=round(latency_s, 3)) if ok else failure("f"))
        return plain.from_json(RunNumbers, json.loads(json.dumps(plain.to_json(stats.snapshot()))))

    merged = plain.to_json(merge([run(first), run(second)]))
    single = plain.to_json(run(first + second))
    for name in ("outcomes", "notes", "fields"):
        assert merged[name] == single[name]
    for name in ("fields", "reasons") if single["variants"] else ():
        assert merged["variants"]["default"][name] == single["variants"]["default"][name]
    assert [row["latency_s"] for row in merged["slowest"]] == [row["latency_s"] for row in single["slowest"]]
    assert merged["total"]["latency"]["buckets"] == single["total"]["latency"]["buckets"]
    assert merged["total"]["latency"]["p95_s"] == single["total"]["latency"]["p95_s"]
    assert merged["timeline"]["bucket_s"] == single["timeline"]["bucket_s"]
    assert merged["timeline"]["reasons"] == single["timeline"]["reasons"]
    for merged_row, expected_row in zip(merged["timeline"]["rows"], single["timeline"]["rows"], strict=True):
        assert merged_row == pytest.approx(expected_row)


def test_report_covers_the_newest_run() -> None:
    """The highest run number counts, in whatever order the runs come."""
    report = build_report([summary(run=2, run_id="new"), summary(run=1, run_id="old")], OutputCounts(done=19))
    assert report.run.run_id == "new"
    assert report.to_json()["output"] == {"done": 19, "failed": 0, "stale": 0, "reasons": {}, "variants": {}}
    assert report.shards == ()
    assert report.missing_shards == ()


def test_report_without_runs_raises_value_error() -> None:
    """Calling it without a run is an error of the caller."""
    with pytest.raises(ValueError, match="at least one run"):
        build_report([])


@pytest.mark.parametrize("name", ["{}/3", "{:05d}-of-00003"])
def test_report_merges_shards_and_names_missing_ones(name: str) -> None:
    """Each shard counts with its newest run; one without a run is named, in the text as well."""
    runs = [
        summary(run=1, shard=None, counts=counts(done=1000)),
        summary(run=2, shard=name.format(0), counts=counts(done=5)),
        summary(run=3, shard=name.format(0), counts=counts(done=7), exit_code=3),
        summary(run=3, shard=name.format(2), counts=counts(done=1, failed=1)),
    ]
    report = build_report(runs)
    assert report.run.counts == counts(done=8, failed=1)
    assert plain.to_json(report.run.stats.outcomes) == {"done": 2, "failed": 2, "unchanged": 0}
    assert report.missing_shards == (1,)
    assert report.exit_code == 3
    assert len(report.shards) == 2
    assert "no run of shard 1 is in this output" in summary_text(report, colour=False)


def test_report_names_missing_chunks_by_ranges() -> None:
    """A plan may have a thousand chunks; unlisted documents make the counts lower bounds."""
    runs = [replace(summary(run=1, shard=f"chunk {index}"), chunks=100) for index in (*range(0, 50, 2), 70)]
    report = build_report([replace(run, counts=counts(done=1, left=1)) for run in runs])
    text = summary_text(report, colour=False)
    assert "no run of chunk 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 16 more ranges is in" in " ".join(text.split())
    assert build_report(runs[:1]).lost_text == "no run of chunk 1 to 99 is in this output"
    assert report.verdict.startswith("CHUNKS ARE MISSING")
    assert "At least 26 documents are left: not all were listed" in " ".join(text.split())


def test_verdict_of_shards_is_that_of_the_worst() -> None:
    """The message names the shard."""
    runs = [
        summary(run=1, shard="0/2"),
        summary(run=2, shard="1/2", exit_code=1, verdict="TOO FEW DOCUMENTS", message="found 3 documents"),
    ]
    report = build_report(runs)
    assert (report.exit_code, report.verdict) == (1, "TOO FEW DOCUMENTS")
    assert report.run.message == "shard 1/2: found 3 documents"


def test_field_filled_half_as_often_is_a_warning() -> None:
    """Half as many items in a list is a warning too."""
    before = stats_of([result(output={"summary": "s", "companies": [1, 2, 3, 4]})] * 10)
    after = stats_of([result(output={"summary": "", "companies": [1, 2]})] * 10)
    report = build_report([summary(before, run=1), summary(after, run=2)])
    assert report.compared.warnings == (
        "summary is filled in 0 % of the results; in the run before it was 100 %",
        "companies has 2.0 items on average; in the run before it had 4.0",
    )
    assert "summary is filled in 0 %" in summary_text(report, colour=False)


def test_few_documents_cause_no_field_warning() -> None:
    """Nine documents are too few, and a run without requests is skipped in the comparison."""
    full = [result(output={"summary": "s", "companies": [1]})]
    empty = [result(output={"summary": "", "companies": []})]
    few = build_report([summary(stats_of(full * 10), run=1), summary(stats_of(empty * 9), run=2)])
    assert few.compared.warnings == ()
    runs = [summary(stats_of(full * 10), run=1), summary(stats_of([]), run=2), summary(stats_of(empty * 10), run=3)]
    assert len(build_report(runs).compared.warnings) == 2  # one for each field


def test_summary_has_verdict_advice_and_commands() -> None:
    """It also has reasons, examples, numbers and files."""
    text = summary_text(build_report([summary()]), colour=False)
    assert text.startswith("FINISHED WITH FAILURES: 24 found, 19 done, 3 failed, 2 skipped (exit 0)\n")
    for phrase in (
        "      1  timeout\n",
        "example       b.txt",
        "message       no answer in 300 s",
        "to do         raise the provider's `timeout`",
        "retry         pipeline run --config prod.yaml --only-failed timeout",
        "speed         0.50 documents per second",
        "latency       median 1.0 s, 95 % within 1.0 s, longest 1.0 s",
        "tokens        100 in, 10 out (not reported for 1 document)",
        "requests      3 sent, 1 to correct an invalid answer, 1 answer repaired",
        "answered by   ollama (llama3.1) 1 done",
        "results       out/results.jsonl",
    ):
        assert phrase in text, phrase


def test_summary_details_only_the_most_frequent_reasons() -> None:
    """The others are counted, so that the verdict stays on the screen; the page has all."""
    names = ("timeout", "overloaded", "rejected", "invalid_json", "not_grounded", "document_empty")
    failed = [failure(name, reason=name) for at, name in enumerate(names) for _ in range(9 - at)]
    report = build_report([summary(stats_of(failed), counts=counts(failed=39))])
    text = summary_text(report, colour=False)
    assert text.count("--only-failed") == 4
    assert "  and           5 not_grounded, 4 document_empty; see report.html, or `pipeline errors`" in text
    assert html_page(report).count("--only-failed") == 6


def test_summary_ends_with_the_resume_command() -> None:
    """It does if documents are left."""
    text = summary_text(build_report([summary(counts=counts(done=1, left=1200), exit_code=130)]), colour=False)
    assert text.endswith(
        "1,200 documents are left. Run the same command to resume:\n  pipeline run --config prod.yaml\n"
    )


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (3, "1 document is left. Run the same command to resume"),
        (2, "1 document is left. Fix the error, then run the same command to resume"),
    ],
)
def test_resume_advice_depends_on_the_exit_code(code: int, advice: str) -> None:
    """After exit code 2 the error must be fixed first; page and text agree."""
    report = build_report([summary(counts=counts(done=1, left=1), exit_code=code)])
    assert f"{advice}:" in summary_text(report, colour=False)
    assert f"<li>{advice}.</li>" in html_page(report)


def test_long_file_names_keep_a_space_before_the_path() -> None:
    """A shard's file names are longer than the column of labels."""
    name = "results-00003-of-00004.jsonl"
    text = summary_text(build_report([summary(files={name: f"out/{name}"})]), colour=False)
    assert "  results-*-of-00004.jsonl out/results-*-of-00004.jsonl\n" in text


def test_summary_has_colour_only_on_request() -> None:
    """The words are the same with and without colour."""
    report = build_report([summary()])
    plain, coloured = summary_text(report, colour=False), summary_text(report, colour=True)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
    assert coloured != plain


def test_wrapped_command_can_be_pasted() -> None:
    """It is wrapped between words with quotes kept whole."""
    command = "pipeline run " + " ".join(f"--set 'input.exclude=a b {n}'" for n in range(9))
    text = summary_text(build_report([summary(command=command, counts=counts(left=1), exit_code=3)]), colour=False)
    folded = text[text.index("Run the same command") :].split("\n", 1)[1]
    assert all(len(line) <= 100 for line in folded.splitlines())
    assert re.sub(r" \\\n +", " ", folded).strip() == command


hostile = st.text(min_size=1, max_size=300) | st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x>', "a\x1b[2J\u202e", "</style>", "$title", "{{ 7 * 7 }}", "{% raw %}"]
)


@settings(deadline=None)
@given(hostile, hostile, hostile)
def test_summary_fits_its_width_without_control_characters(id: str, message: str, variant: str) -> None:
    """This holds for any document name, message and variant."""
    stats = stats_of([result(id, variant=variant), failure(id, message=message)])
    report = build_report([summary(stats, message=message)])
    for width in (60, 80, 100):
        assert max(map(len, summary_text(report, colour=False, width=width).split("\n"))) <= width
    text = summary_text(report, colour=False)
    assert max(len(line) for line in text.split("\n")) <= 100
    assert all(char == "\n" or not (char < " " or "\x7f" <= char <= "\x9f") for char in text)


class Tags(HTMLParser):
    """The elements and attributes of a page; asserts that each element is closed."""

    VOID = frozenset({"meta", "path", "rect", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def full_report(text: str) -> Report:
    """Return a report in which every external value is this text."""
    clock = Clock()
    stats = RunStats({"properties": {text: {}}}, clock)
    for clock.now in (0.0, 5.0):
        count(stats, result(text, variant=text, output={text: "x"}))
        count(stats, failure(text, message=text, reason="?" + text))  # a known reason has advice
    run = summary(
        stats, run=2, agent=text, message=text, command=text, files={text: text}, config={text: {text: text}},
        ignored={text: 1}, shard="0/2", verdict=text,
    )  # fmt: skip
    return build_report([run, summary(run=1, shard="0/2")], OutputCounts(reasons={text: 1}))


@settings(deadline=None)
@given(hostile)
def test_external_text_adds_no_element_to_the_page(text: str) -> None:
    """It adds no attribute either, and leaves no raw control character."""
    page, plain = html_page(full_report(text)), html_page(full_report("plain"))
    assert Tags(page).names == Tags(plain).names
    assert Tags(page).attributes == Tags(plain).attributes
    assert Tags(page).open == []
    assert all(char == "\n" or not (char < " " or "\x7f" <= char <= "\x9f" or char == "\u202e") for char in page)


def test_page_needs_no_network_and_no_script() -> None:
    """It refers to no other resource, and its policy forbids loading any."""
    page = html_page(full_report("plain"))
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert not {"script", "link", "img", "iframe"} & set(Tags(page).names)
    assert not {"src", "href", "onload", "onclick"} & Tags(page).attributes


def test_page_has_the_content_of_the_summary() -> None:
    """These are verdict, counts, advice, an example and the command to run again."""
    page = html_page(build_report([summary()], OutputCounts(done=19)))
    for phrase in (
        "FINISHED WITH FAILURES",
        "24 found, 19 done, 3 failed, 2 skipped (exit 0)",
        "raise the provider&#39;s <code>timeout</code>",
        "<code>b.txt</code> <span>no answer in 300 s</span>",
        "pipeline run --config prod.yaml --only-failed timeout",
        "api_key",
    ):
        assert phrase in page, phrase


def test_report_files_are_written(tmp_path: Path) -> None:
    """report.json reads back as the report, with report.html beside it."""
    report = build_report([summary()], OutputCounts(done=19))
    write_report(lambda name, data: (tmp_path / name).write_bytes(data), report)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report.to_json()
    assert (tmp_path / "report.html").read_bytes() == report_files(report)["report.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_report_is_rewritten_if_a_shard_ended_meanwhile() -> None:
    """A slow shard does not replace a complete report with an older one."""
    sisters = [summary(run=1, shard=f"{index}/3") for index in range(3)]
    ended, written, counted = [sisters[0]], list[Any](), list[int]()

    def replace(name: str, data: bytes) -> None:
        if name == "report.json":
            written.append(json.loads(data))
            ended[:] = sisters[: len(written) + 1]

    def counts_now() -> OutputCounts:
        counted.append(len(ended))
        return OutputCounts(done=len(ended))

    report = write_newest(replace, runs=lambda: list(ended), counts=counts_now)
    assert [text["missing_shards"] for text in written] == [[1, 2], [2], []]
    assert report.to_json() == written[-1]
    assert counted == [1, 2, 3]


def test_report_of_a_run_without_requests() -> None:
    """Text and page omit numbers that would be meaningless."""
    report = build_report([summary(stats_of([]), counts=counts(skipped=24))])
    assert summary_text(report, colour=False).startswith("FINISHED: 24 found, 0 done, 24 skipped (exit 0)\n")
    page = html_page(report)
    assert "All documents are up to date." in page
    assert re.findall(r"<dt>(.*?)</dt>", page) == ["found", "done", "failed", "skipped", "duration"]
    assert "Fields of the results" not in page


def test_page_of_a_run_without_documents_says_so() -> None:
    """It says so in the first sentence."""
    report = build_report([summary(stats_of([]), counts=counts(), exit_code=1, verdict="TOO FEW DOCUMENTS")])
    assert "No document was found." in html_page(report)


def test_page_compares_fields_with_the_previous_run() -> None:
    """Without a previous run the columns are left out."""
    previous, newest = (summary(stats_of([result()] * 10), run=number) for number in (1, 2))
    assert "Filled in the run before" not in html_page(build_report([previous]))
    assert "Filled in the run before" in html_page(build_report([previous, newest]))


def test_page_names_the_most_frequent_reason_with_its_count() -> None:
    """The most frequent reason need not be a majority."""
    failed = [failure("a"), failure("b"), failure("c", reason="rejected"), failure("d", reason="invalid_json")]
    page = html_page(build_report([summary(stats_of(failed), counts=counts(failed=4))]))
    assert "4 of 4 attempted documents failed (100.0 %), most often with timeout (2)." in page


def test_example_links_to_the_errors_file_of_its_shard() -> None:
    """Without that file there is no link."""
    name = "errors-{:05d}-of-00003.jsonl"
    runs = [
        summary(stats_of([failure("b.txt")]), run=1, shard=f"{index}/3", files={name.format(index): "out"})
        for index in range(3)
    ]
    home = next(index for index in range(3) if Shard(index, 3).owns("b.txt"))
    assert f'<a href="{name.format(home)}#:~:text=b.txt"><code>b.txt</code></a>' in html_page(build_report(runs))
    del runs[home]
    assert "<a href" not in html_page(build_report(runs))


def test_summary_and_page_suggest_errors_show() -> None:
    """The example is a document of the most frequent reason."""
    failed = [failure("a b.txt"), failure("c", reason="rejected"), failure("d", reason="rejected")]
    report = build_report([summary(stats_of(failed), files={"report.html": "my out/report.html"})])
    command = "pipeline errors 'my out' --show c"
    assert command in summary_text(report, colour=False)
    assert str(escape(command)) in html_page(report)


def test_page_sentence_for_one_document_and_for_equal_reasons() -> None:
    """One document is singular; of equally frequent reasons the first listed one is named."""
    done = html_page(build_report([summary(stats_of([result()]), counts=counts(done=1))]))
    assert "The one attempted document is done." in done
    failed = [failure("a", reason="rejected"), failure("b", reason="invalid_json")]
    level = html_page(build_report([summary(stats_of(failed), counts=counts(failed=2))]))
    assert "most often with invalid_json (1)." in level


def test_the_line_of_values_has_no_free_text() -> None:
    """It shows the values of a list of choices, without the texts beside them."""
    choice = {"filled": 1.0, "values": [{"value": None, "share": 0.6}, {"value": "USD", "share": 0.4}]}
    fields = {"name": {"filled": 1.0, "values": [{"value": None, "share": 1.0}]}, "currency": choice}
    profile = plain.from_json(Profile, {"documents": 9, "fields": fields})
    report = replace(build_report([summary(stats_of([result()]), counts=counts(done=1))]), profile=profile)
    lines = profile_lines(report, colour=False, width=100)
    assert lines[2].split() == ["values", "currency", "USD", "40", "%"]


def test_range_without_a_median_has_its_ends_only() -> None:
    """Two dates have no median."""
    dates = {"least": "2026-01-10", "median": None, "greatest": "2026-08-18"}
    fields = {"due_on": {"filled": 1.0, "dates": dates}}
    profile = plain.from_json(ProfiledVariant, {"documents": 2, "fields": fields})
    _, line = field_lines(profile, width=100)
    assert line.endswith("  2026-01-10 to 2026-08-18")


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_field_line_omits_parts_that_do_not_fit(width: int) -> None:
    """A number is never cut in the middle."""
    lengths = {"least": 1, "median": 1, "greatest": 1}
    dates = {"least": "2026-01-10", "median": "2026-05-14", "greatest": "2026-08-18"}
    values = [{"value": None, "share": 0.03, "documents": 3}, {"value": "2026-01-11", "share": 0.03, "documents": 3}]
    row = {"filled": 1.0, "distinct": 58, "values": values, "dates": dates, "lengths": lengths}
    profile = plain.from_json(ProfiledVariant, {"documents": 114, "fields": {"due_on": row}})
    _, line = field_lines(profile, width=width)
    parts = ["58 distinct", "(text) 3 %, 2026-01-11 3 %", "2026-01-10 to 2026-08-18, median 2026-05-14", "1 character"]
    whole = [f"  due_on  filled 100 %  {'; '.join(parts[:number])}" for number in (1, 2, 3, 4)]
    assert line in [*(f"{part}; …" for part in whole[:3]), whole[3]]
    assert len(line) <= width
    assert (line == whole[3]) == (width == 160)


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (60, "currency EUR 40 %, USD 35 %, GBP 25 %; kind bill 90 %"),
        (40, "currency EUR 40 %, USD 35 %, GBP 25 %; …"),
        (30, "currency EUR 40 %, USD 35 %, …"),
        (25, "currency EUR 40 %, …"),
        (12, "curre…P 25 %; …"),
    ],
)
def test_value_list_is_cut_between_values(room: int, shown: str) -> None:
    """Only a single value is cut in its middle."""
    line = fitting(["currency EUR 40 %, USD 35 %, GBP 25 %", "kind bill 90 %"], room)
    assert line == shown
    assert len(line) <= room + 3


@pytest.mark.parametrize(
    ("reason", "failures", "message", "unsaid"),
    [
        ("document_too_large", ["http_413"], "a proxy in front of it", "max_document_bytes"),
        ("document_too_large", [""], "max_document_bytes", "proxy"),
        ("document_too_large", ["http_413", ""], "or for HTTP 413", "in front"),
        ("output_truncated", ["max_tokens_clamped"], "raise the context", "raise `max_tokens`"),
        ("output_truncated", [""], "raise `max_tokens`", "context"),
        ("output_truncated", ["", "max_tokens_clamped"], "where the server clamped", "left less room"),
    ],
)
def test_advice_depends_on_the_causes(reason: str, failures: list[str], message: str, unsaid: str) -> None:
    """One reason may have several remedies; failures of several causes get all of them, also over shards."""
    runs = [
        summary(stats_of([replace(failure(reason=reason), error=cause or reason, notes=(cause,))]), shard=f"{at}/2")
        for at, cause in enumerate(failures)
    ]
    advice = build_report(runs).advice[reason]
    assert (message in advice, unsaid in advice) == (True, False)

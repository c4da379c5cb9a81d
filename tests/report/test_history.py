"""The last runs of an output: one row for each run or round of shards, and charts with their values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from test_report import counts, failure, result, stats_of, summary

from pipeline.report import build_report
from pipeline.report.history import SHOWN_RUNS, history_rows
from pipeline.report.html import page as html_page
from pipeline.report.run_summary import RunSummary


def shard_run(shard: str, *, done: int, left: int = 0, at: int = 0) -> RunSummary:
    """Return the run of a shard, `at` minutes after the first one."""
    exit_code = 130 if left else 0
    finished_at = f"2026-11-23T00:{at:02}:00.000Z"
    return summary(
        run=at + 1, shard=shard, counts=counts(done=done, left=left), exit_code=exit_code, finished_at=finished_at
    )


def test_history_has_the_last_thirty_runs() -> None:
    """The oldest comes first; runs with an earlier number of shards are left out."""
    runs = [summary(run=number, counts=counts(done=number, failed=1)) for number in range(1, 41)]
    report = build_report([*reversed(runs), summary(run=3, shard="0/2")])
    assert [row.run for row in report.history] == list(range(41 - SHOWN_RUNS, 41))
    assert [row.done for row in report.history] == list(range(41 - SHOWN_RUNS, 41))
    assert report.history[-1].prompt_tokens == 100
    assert report.history[-1].elapsed_s == 4.0


def test_one_round_of_shards_is_one_row() -> None:
    """An interrupted shard continues its round; a finished one begins the next round."""
    runs = [
        shard_run("0/2", done=3, left=2, at=0),
        shard_run("1/2", done=5, at=1),
        shard_run("0/2", done=2, at=2),
        shard_run("1/2", done=7, at=10),
        shard_run("0/2", done=8, at=11),
    ]
    first, second = history_rows(runs, of=2)
    assert (first.done, first.exit_code, first.run, first.elapsed_s) == (10, 0, 3, 8.0)
    assert (second.done, second.finished_at) == (15, "2026-11-23T00:11:00.000Z")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=30))
def test_history_counts_every_run_of_a_shard(events: list[tuple[int, int, bool]]) -> None:
    """In whatever order shards end and restart, the rows add up to the documents of all runs."""
    runs = [shard_run(f"{shard}/4", done=done, left=left, at=at) for at, (shard, done, left) in enumerate(events)]
    rows = history_rows(runs, of=4)
    assert sum(row.done for row in rows) == sum(run.counts.done for run in runs)


def test_page_has_charts_of_the_last_runs() -> None:
    """They show documents, tokens and seconds with labels and tables; a single run has no history."""
    runs = [summary(run=number, counts=counts(done=number, failed=1)) for number in (1, 2, 3)]
    page = html_page(build_report(runs))
    assert "<h2>The last 3 runs</h2>" in page
    for title in ("Documents per run", "Tokens per run", "Seconds per run"):
        assert f"<title>{title}, at most" in page
    assert "<title>run 2, 2026-11-23: 2 done</title>" in page
    assert "<tr><td>run 3, 2026-11-23</td><td>3</td><td>1</td></tr>" in page
    assert "The last" not in html_page(build_report(runs[:1]))


def test_chart_of_grades_over_cost() -> None:
    """Each run is a mark, over money if every run knows its rate; a single run has no chart."""

    def graded(run: int, f1: float, per_1000: float | None) -> RunSummary:
        metric = {"value": f1, "low": f1 - 0.1, "high": f1 + 0.1, "documents": 40, "verdict": "ok"}
        output = {"output": "out", "overall": {"f1": metric}, "cost": {"p50_s": 2.5, "per_1000": per_1000}}
        gold = {"file": "gold.jsonl", "sha256": "a" * 64, "documents": 40, "graded": 40}
        return summary(run=run, eval={"v": 1, "at": "2026-11-23", "gold": gold, "outputs": [output], "gates": []})

    page = html_page(build_report([graded(1, 0.7, 1.2), graded(2, 0.8, 1.5)]))
    assert "<title>run 2, 2026-11-23: 0.80 (0.70 to 0.90) at 1.5</title>" in page
    assert "F1 over money for 1,000 documents" in page
    assert "F1 over seconds a document" in html_page(build_report([graded(1, 0.7, None), graded(2, 0.8, 1.5)]))
    later = html_page(build_report([graded(1, 0.7, None), graded(2, 0.8, 1.5), graded(3, 0.8, 1.4)]))
    assert "F1 over money for 1,000 documents" in later  # the first run knew no rate yet
    assert "F1 over" not in html_page(build_report([graded(2, 0.8, 1.5)]))


def test_page_has_the_history_of_a_failed_document() -> None:
    """It is folded and has each request's server, error and seconds, and the command for the details."""
    stats = stats_of([result(), failure("b.txt")])
    page = html_page(build_report([summary(stats, files={"report.html": "my out/report.html"})]))
    story = page[page.index("<summary>what happened</summary>") : page.index("</details>")]
    assert "1 request, stage call." in story
    assert "<td>vllm</td><td>http://a</td><td>timeout: refused by 10.0.0.1</td>" in story
    assert "pipeline errors &#39;my out&#39; --show b.txt" in story


def test_page_explains_each_note() -> None:
    """The explanation is beside the name of the note."""
    page = html_page(build_report([summary()]))
    assert '<th scope="row" class="word">encoding:cp1252</th>' in page
    assert "decoded from this encoding" in page

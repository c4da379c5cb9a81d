"""`pipeline diff`: validity, agreement of fields, added and lost items, and the most changed documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.comparison import Comparison, differences
from pipeline.report.pairing import paired

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from("abc"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "x", "y"]), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)


def record(document_id: str, output: Any, *, run: int = 1, fingerprint: str = "1") -> dict[str, Any]:
    """Return a result record, or an error record if there is no output."""
    head = {"v": 1, "id": document_id, "uri": document_id, "sha256": "a" * 64, "agent": "a", "variant": "default"}
    tail = {"finished_at": "2026-01-01T00:00:00.000Z", "version": None, "run": run, "run_id": "r", "shard": None}
    failure = {"reason": "timeout", "runs": 1, "message": "", "stage": "call"}
    outcome = failure if output is None else {"output": output}
    return {**head, "fingerprint": fingerprint * 64, **outcome, **tail}


def write(folder: Path, *records: dict[str, Any]) -> None:
    """Write an output with these records."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, is_result in (("results.jsonl", True), ("errors.jsonl", False)):
        lines = [
            json.dumps(record, separators=(",", ":")) + "\n" for record in records if ("output" in record) == is_result
        ]
        (folder / name).write_text("".join(lines), encoding="utf-8")


def diff(place: Place, *arguments: str) -> Any:
    """Return what `pipeline diff --json` prints."""
    ran = place.call("diff", *arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_documents_are_counted_by_state_before_and_now(place: Place) -> None:
    """The states are done, failed and absent; the last line of an id counts."""
    write(place.folder / "a", record("both", {}), record("worse", {}), record("better", None), record("gone", {}))
    write(
        place.folder / "b",
        record("both", {}),
        record("worse", {}, run=1),
        record("worse", None, run=2),
        record("better", {}),
        record("new", None),
    )
    comparison = diff(place, "a", "b")
    assert comparison["done_share"] == {"before": 0.6667, "after": 0.6667}
    assert comparison["documents"] == {
        "done_in_both": 1,
        "done_before_failed_now": 1,
        "failed_before_done_now": 1,
        "done_before_not_there_now": 1,
        "not_there_before_failed_now": 1,
    }


def test_text_shows_valid_results_before_and_now(place: Place) -> None:
    """The share covers documents in both outputs, so a prompt that fails more often is visible."""
    write(place.folder / "a", *(record(f"d{n}", {"x": 1}) for n in range(4)), record("other", {"x": 1}))
    write(place.folder / "b", *(record(f"d{n}", {"x": 2} if n else None) for n in range(4)))
    out = place.call("diff", "a", "b").out
    assert "  3  done in both\n" in out
    assert "  1  done before, failed now\n" in out
    assert "valid results: 100.0 % before, 75.0 % now, of those in both" in out
    assert "  1 value  d1\n" in out


def test_each_field_has_its_agreement(place: Place) -> None:
    """Numeric fields also have the mean change."""
    write(place.folder / "a", record("d1", {"mood": "good", "score": 10}), record("d2", {"mood": "good", "score": 20}))
    write(place.folder / "b", record("d1", {"mood": "good", "score": 14}), record("d2", {"mood": "bad", "score": 20}))
    comparison = diff(place, "a", "b")
    assert (comparison["compared"], comparison["identical"]) == (2, 0)
    assert {name: row["agreement"] for name, row in comparison["fields"].items()} == {"mood": 0.5, "score": 0.5}
    assert comparison["fields"]["score"]["mean_change"] == 2.0


def test_outlier_does_not_dominate_a_numeric_change(place: Place) -> None:
    """Medians and counts of increases and decreases are shown; the mean would be -1e13 here."""
    write(place.folder / "a", *(record(f"d{n}", {"x": n if n else 10**14}) for n in range(9)))
    write(place.folder / "b", *(record(f"d{n}", {"x": n + 1 if n else 0}) for n in range(9)))
    row = diff(place, "a", "b")["fields"]["x"]
    assert (row["median_before"], row["median_after"], row["up"], row["down"]) == (5, 5, 8, 1)
    out = place.call("diff", "a", "b").out
    assert "median 5 → 5, 8 up, 1 down" in out and "average" not in out


def test_show_prints_changed_values_of_documents(place: Place) -> None:
    """--show N prints field, old value and new value of the N most changed documents."""
    write(place.folder / "a", record("d1", {"x": 1, "y": "old"}), record("d2", {"x": 1, "y": "same"}))
    write(place.folder / "b", record("d1", {"x": 2, "y": "new"}), record("d2", {"x": 2, "y": "same"}))
    out = place.call("diff", "a", "b", "--show", "1").out
    assert 'd1\n  x\n    - 1\n    + 2\n  y\n    - "old"\n    + "new"' in out
    assert [item["id"] for item in diff(place, "a", "b", "--show", "5")["shown"]] == ["d1", "d2"]
    assert diff(place, "a", "b")["shown"] == []


def test_list_items_are_matched_by_name(place: Place) -> None:
    """Their order is ignored; items are identified by a name, a ticker or a similar field."""
    before = [{"name": "Alpha", "sentiment": "good"}, {"name": "Beta", "sentiment": "bad"}]
    after = [{"name": "Gamma", "sentiment": "bad"}, {"name": "alpha", "sentiment": "bad"}]
    write(place.folder / "a", record("d", {"companies": before, "themes": ["x", "y"]}))
    write(place.folder / "b", record("d", {"companies": after, "themes": ["y", "x", "z"]}))
    fields = diff(place, "a", "b")["fields"]
    assert (fields["companies"]["added"], fields["companies"]["lost"]) == (1, 1)
    assert (fields["themes"]["added"], fields["themes"]["lost"]) == (1, 0)
    assert (fields["companies.sentiment"]["compared"], fields["companies.sentiment"]["same"]) == (1, 0)


def test_key_flag_selects_the_field_that_identifies_items(place: Place) -> None:
    """--key names that field."""
    write(place.folder / "a", record("d", {"rows": [{"name": "one", "place": 1}, {"name": "two", "place": 2}]}))
    write(place.folder / "b", record("d", {"rows": [{"name": "eins", "place": 1}, {"name": "two", "place": 2}]}))
    rows = diff(place, "a", "b", "--key", "rows=place")["fields"]
    assert (rows["rows"]["added"], rows["rows.name"]["agreement"]) == (0, 0.5)


def test_rows_without_a_key_are_matched_by_similarity(place: Place) -> None:
    """A row with one changed cell still matches, equal rows stay separate, and dissimilar rows are added or lost."""
    old = [{"date": f"2024-01-{day:02}", "payer": "Ames", "amount": day} for day in (1, 2, 2, 3)]
    new = [{"date": "2024-05-05", "payer": "Cole", "amount": 9}, *({**row} for row in old)]
    new[4]["amount"] = 33
    write(place.folder / "a", record("d", {"rows": old}))
    write(place.folder / "b", record("d", {"rows": new}))
    fields = diff(place, "a", "b")["fields"]
    assert (fields["rows"]["added"], fields["rows"]["lost"]) == (1, 0)
    assert (fields["rows.amount"]["compared"], fields["rows.amount"]["same"]) == (4, 3)
    assert (fields["rows.date"]["compared"], fields["rows.date"]["same"]) == (4, 4)


def test_rows_with_equal_names_are_matched_by_similarity(place: Place) -> None:
    """A new first row with the same name does not shift the others."""
    old = [{"name": "Halden", "date": f"2024-01-{day:02}", "amount": day} for day in range(1, 9)]
    new = [{"name": "Halden", "date": "2023-12-31", "amount": 99}, *old]
    write(place.folder / "a", record("d", {"rows": old}))
    write(place.folder / "b", record("d", {"rows": new}))
    fields = diff(place, "a", "b")["fields"]
    assert (fields["rows"]["added"], fields["rows"]["lost"]) == (1, 0)
    assert fields["rows.amount"]["agreement"] == 1


@pytest.mark.parametrize("by", [(), ("--by", "fingerprint")])
def test_x_key_of_the_schema_identifies_items(place: Place, by: tuple[str, ...]) -> None:
    """`x-key` comes from the agent in the run's summary; --key takes precedence."""
    items = {"type": "object", "properties": {"name": {"type": "string"}, "isin": {"type": "string"}}}
    schema = {"type": "object", "properties": {"companies": {"type": "array", "items": items, "x-key": "isin"}}}
    answers = [{"companies": [{"name": name, "isin": "DE1"}]} for name in ("Alpha AG", "Alpha Holding")]
    for number, output in enumerate(answers):
        place.documents(1)
        place.server.answer = lambda _, __, own=output: json.dumps(own)
        place.configure(agent={"schema": schema, "system_prompt": f"Prompt {number}.\n"})
        place.run("--output", "out" if by else f"out{number}")
    outs = ("out", *by) if by else ("out0", "out1")
    fields = diff(place, *outs)["fields"]
    assert (fields["companies"]["added"], fields["companies.name"]["agreement"]) == (0, 0)
    assert diff(place, *outs, "--key", "companies=name")["fields"]["companies"]["added"] == 1


def test_matching_of_many_rows_is_not_quadratic() -> None:
    """Two lists of thousands of rows without a key are matched without comparing every pair."""
    olds = [{"a": number, "b": -number, "c": 0} for number in range(5000)]
    news = [{"a": number + 9000, "b": number + 9000, "c": 1} for number in range(5000)]
    assert paired(olds, news) == ([], 5000, 5000)
    assert paired(olds, [*news, *olds]).added == 5000


def test_field_flag_shows_one_field_with_its_changes(place: Place) -> None:
    """The most frequent change comes first."""
    moods = [("good", "bad"), ("good", "bad"), ("bad", "good"), ("good", "good")]
    write(place.folder / "a", *(record(f"d{n}", {"mood": old, "x": n}) for n, (old, _) in enumerate(moods)))
    write(place.folder / "b", *(record(f"d{n}", {"mood": new, "x": -n}) for n, (_, new) in enumerate(moods)))
    comparison = diff(place, "a", "b", "--field", "mood")
    assert list(comparison["fields"]) == ["mood"]
    assert [change["count"] for change in comparison["fields"]["mood"]["changes"]] == [2, 1]
    assert '"good" → "bad"' in place.call("diff", "a", "b", "--field", "mood").out


def test_most_changed_documents_come_first(place: Place) -> None:
    """At most ten of them are listed."""
    write(place.folder / "a", *(record(f"d{n:02}", {"list": []}) for n in range(15)))
    write(place.folder / "b", *(record(f"d{n:02}", {"list": list(range(n))}) for n in range(15)))
    comparison = diff(place, "a", "b")
    assert [change["id"] for change in comparison["most_changed"]] == [f"d{n:02}" for n in range(14, 4, -1)]
    assert comparison["most_changed"][0]["changed"] == 14


def test_diff_by_fingerprint_compares_the_last_two_requests(place: Place) -> None:
    """The last line of each fingerprint counts; a document with a single fingerprint is not counted."""
    write(
        place.folder / "out",
        record("d", {"x": 1}, run=1, fingerprint="1"),
        record("d", {"x": 2}, run=2, fingerprint="1"),
        record("d", {"x": 3}, run=3, fingerprint="2"),
        record("once", {"x": 9}),
    )
    comparison = diff(place, "out", "--by", "fingerprint")
    assert comparison["documents"] == {"done_in_both": 1}
    assert comparison["fields"]["x"]["mean_change"] == 1.0


def test_diff_by_fingerprint_after_a_prompt_change(place: Place) -> None:
    """A user runs, changes the prompt, runs again and compares."""
    place.documents(3)
    place.run()
    place.configure(agent={"system_prompt": "Sum it up well.\n"})
    place.run()
    assert diff(place, "out", "--by", "fingerprint")["documents"] == {"done_in_both": 3}


def test_diff_after_a_single_run_explains_what_is_needed(place: Place) -> None:
    """It exits with 0, and the text names the two ways to get a comparison."""
    write(place.folder / "a", record("d1", {"x": 1}), record("d2", None))
    ran = place.call("diff", "a", "--by", "fingerprint")
    assert (ran.code, ran.err) == (0, "")
    output = " ".join(ran.out.split())
    assert "2 documents have results of one fingerprint only" in output
    assert "change a prompt, the schema or the model, and run again" in output
    assert "pipeline diff a OTHER" in output
    assert diff(place, "a", "--by", "fingerprint")["documents"] == {}


def test_sharded_and_unsharded_outputs_can_be_compared(place: Place) -> None:
    """The names of the files do not matter."""
    place.documents(6)
    place.run("--output", "whole")
    for shard in ("0/2", "1/2"):
        place.run("--output", "parts", "--shard", shard)
    comparison = diff(place, "whole", "parts")
    assert (comparison["documents"], comparison["identical"]) == ({"done_in_both": 6}, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "need two outputs"),
        (("a",), "'out', which holds no record"),
        (("a", "b", "--by", "fingerprint"), "need one output"),
        (("a", "nowhere"), "'nowhere', which holds no record"),
        (("a", "b", "--field", "nope"), "--field: got 'nope'"),
        (("a", "b", "--key", "nope"), "--key: got 'nope'"),
        (("nowhere", "--by", "fingerprint"), "'nowhere', which holds no record"),
        (("a", "b", "--field", "companies.sentiment"), "no result has this field; fields: x"),
        (("a", "b", "--field", "y"), "no result has this field; fields: x"),
    ],
)
def test_impossible_comparison_is_exit_2(place: Place, arguments: tuple[str, ...], message: str) -> None:
    """The message says what is needed."""
    write(place.folder / "a", record("d", {"x": 1}))
    write(place.folder / "b", record("d", {"x": 1}))
    ran = place.call("diff", *arguments)
    assert (ran.code, message in ran.err) == (2, True), ran.err


@given(OBJECTS)
def test_a_result_agrees_with_itself(output: Mapping[str, Any]) -> None:
    """For any output, no field differs and no item is added or lost."""
    assert all(
        difference.same and not difference.added and not difference.lost
        for difference in differences(output, output, keys={})
    )


@given(OBJECTS, OBJECTS)
def test_swapped_outputs_swap_added_and_lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """The fields and their agreement stay the same."""
    ways = [Comparison(), Comparison()]
    ways[0].add("d", before, after)
    ways[1].add("d", after, before)
    there, back = ({name: (c.compared, c.same, c.added, c.lost) for name, c in way.fields.items()} for way in ways)
    assert there == {name: (compared, same, lost, added) for name, (compared, same, added, lost) in back.items()}

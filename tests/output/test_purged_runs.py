"""Run summaries after a purge: no trace of the purged document, and all of the others."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from conftest import Place
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.output.purged_runs import RemovalTest, without_documents
from pipeline.report.profile import kept_profiles
from pipeline.values.profiling import ProfileBuilder
from pipeline.values.value_profile import digest_label

SCHEMA = {
    "type": "object",
    "properties": {
        "currency": {"enum": ["USD", "EUR"]},
        "supplier": {"type": "string"},
        "amount": {"type": "integer"},
        "signed": {"type": "string"},
    },
}
TIMES = ["2024-01-01T00:00:00.000Z", "2025-01-01T00:00:00.000Z"]


def record(id: str, run: int, output: Any, *, at: str = TIMES[1]) -> dict[str, Any]:
    """Return the fields of a record that a profile uses."""
    own = {"id": id, "output": output, "variant": "default", "fingerprint": "f", "finished_at": at}
    return {**own, "run": run, "run_id": f"r{run}", "shard": None}


def summary(run: int, records: list[dict[str, Any]], *, show_texts: bool = False) -> dict[str, Any]:
    """Return the run file of a run that wrote these records."""
    builder = ProfileBuilder(SCHEMA, random=Random(0).random, show_texts=show_texts)
    for record in records:
        builder.add(record["output"], variant="default", fingerprint="f")
    question = {"default": {"schema": SCHEMA}}
    profile = kept_profiles(builder.profiles())
    config = {"question": question}
    return {"run": run, "run_id": f"r{run}", "shard": None, "config": config, "profile": profile, "ask_again": ["b"]}


def cleaned(runs: list[dict[str, Any]], records: list[dict[str, Any]], is_purged: RemovalTest) -> list[dict[str, Any]]:
    """Return the run files after a purge."""
    lines = [json.dumps(record).encode() for record in records]
    changed = without_documents({str(run["run"]): run for run in runs}, lambda: lines, is_purged)
    return [changed.get(str(run["run"]), run) for run in runs]


documents = st.lists(
    st.fixed_dictionaries({
        "currency": st.sampled_from(["USD", "EUR"]),
        "supplier": st.sampled_from(["Acme", "Other", "x" * 120]),
        "amount": st.integers(0, 9),
    }),
    max_size=30,
)  # fmt: skip


@settings(max_examples=60)
@given(documents, documents, st.sampled_from(TIMES), st.booleans())
def test_profile_after_a_purge_equals_one_without_the_document(
    first: list[Any], second: list[Any], at: str, show_texts: bool
) -> None:
    """This holds for any documents purged by id or by age."""
    outputs = [(1, output) for output in first] + [(2, output) for output in second]
    records = [record(f"d{n}", run, output, at=TIMES[n % 2]) for n, (run, output) in enumerate(outputs)]

    def is_purged(id: str, finished_at: str) -> bool:
        return id.endswith(("0", "3")) and finished_at <= at

    def runs_of(some: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            summary(run, [record for record in some if record["run"] == run], show_texts=show_texts) for run in (1, 2)
        ]

    remaining = [record for record in records if not is_purged(record["id"], record["finished_at"])]
    assert cleaned(runs_of(records), records, is_purged) == runs_of(remaining)


def test_purge_recounts_profiles_from_remaining_records() -> None:
    """A superseded line may already be compacted away while its values are still in the profile of its run."""
    old = [record("a", 1, {"amount": 987}), record("b", 1, {"amount": 3})]
    new = [record("a", 2, {"amount": 4}), record("c", 2, {"amount": 5})]
    later = [record("d", 3, {"amount": 6})]
    runs = [summary(1, old), summary(2, new), summary(3, [*later, record("e", 3, {"amount": 7})])]
    first, second, third = cleaned(runs, [old[1], *new, *later], lambda id, _: id == "a")
    assert "987" not in json.dumps(first) and first["profile"]["default"]["documents"] == 1
    assert second["profile"]["default"]["fields"]["amount"]["values"] == {"5": 1}
    assert third == runs[2]  # it began after the last record of `a` was written


def test_purge_removes_ids_from_ask_again() -> None:
    """There the id is a plain text in a list."""
    (run,) = cleaned([summary(1, [])], [record("b", 1, {})], lambda id, _: id == "b")
    assert run["ask_again"] == []


@pytest.mark.parametrize("flags", [(), ("--profile-values",)])
def test_no_value_of_a_purged_document_remains_in_an_output(place: Place, flags: tuple[str, ...]) -> None:
    """Its numbers, dates, texts and text digests are in no run file, report or result."""
    secret = {"currency": "EUR", "supplier": "Hidden Ltd", "amount": 987654321, "signed": "2099-12-31"}
    plain = {"currency": "USD", "supplier": "Other", "amount": 5, "signed": "2020-01-01"}
    place.server.answer = lambda prompt, _: json.dumps(secret if "TAKE DOWN" in prompt else plain)
    place.configure(agent={"schema": {**SCHEMA, "required": list(SCHEMA["properties"])}})
    place.documents(12)
    place.documents({"gone.txt": "TAKE DOWN", "gone2.txt": "TAKE DOWN"})
    place.run(*flags)
    place.documents({"later.txt": "An ordinary one."})
    place.run(*flags)
    (place.folder / "ids.txt").write_text("gone.txt\ngone2.txt\n", encoding="utf-8")
    assert place.call("purge", "out", "--ids", "ids.txt").code == 0
    traces = ("gone", "Hidden Ltd", digest_label("Hidden Ltd"), "987654321", "2099-12-31", '"EUR"": ')
    for path in (place.folder / "out").rglob("*"):
        text = path.read_text("utf-8") if path.is_file() else ""
        assert [trace for trace in traces if trace in text] == [], path
    profile = place.report()["profile"]
    assert (profile["exact"], profile["documents"]) == (True, 13)
    assert profile["fields"]["currency"]["values"] == [{"value": "USD", "documents": 13, "share": 1.0}]

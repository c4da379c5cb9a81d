"""The value profile in the summary and the report, and its gate `runner.max_drift`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from conftest import Place

SCHEMA = {
    "type": "object",
    "properties": {
        "currency": {"enum": ["USD", "EUR", "GBP"]},
        "supplier": {"type": "string", "maxLength": 40},
        "amount": {"type": "integer"},
    },
    "required": ["currency", "supplier", "amount"],
    "additionalProperties": False,
}


def says(place: Place, currencies: str) -> None:
    """Make the server answer with these currencies in turn, by the number in the document."""

    def answer(prompt: str, schema: Mapping[str, Any] | None) -> str:
        number = int(prompt.rsplit("number ", 1)[-1].split(".")[0]) if "number " in prompt else 0
        currency = {"U": "USD", "E": "EUR", "G": "GBP"}[currencies[number % len(currencies)]]
        return json.dumps({"currency": currency, "supplier": "Hidden Ltd", "amount": 3 + number})

    place.server.answer = answer


@pytest.fixture
def drifting(place: Place) -> Place:
    """Run once with three currencies; from then on the model answers only USD."""
    place.configure(agent={"schema": SCHEMA})
    place.documents(60)
    says(place, "UEG")
    place.run()
    says(place, "U")
    place.documents({f"n{n:03}.txt": f"A plain text, number {n}." for n in range(60)})
    return place


def test_summary_has_three_lines_about_the_values(drifting: Place) -> None:
    """They show filled fields, values and moved shares; text values appear only with --profile-values."""
    ran = drifting.run()
    lines = ran.out[ran.out.index("Values of 120 results") :].splitlines()[1:4]
    assert [line.split()[0] for line in lines] == ["filled", "values", "moved"]
    assert "amount 3 to 62, median" in lines[1] and "currency USD 67 %" in lines[1]
    assert "currency USD 33 % → 100 %" in lines[2] and "against run 1 (60 results)" in lines[2]
    profile = drifting.report()["profile"]
    assert profile["exact"] and profile["documents"] == 120
    assert profile["fields"]["supplier"]["values"] == [{"value": None, "documents": 120, "share": 1.0}]
    assert {move["value"] for move in profile["against"]["moved"]} == {"USD", "EUR", "GBP"}
    page = (drifting.folder / "out" / "report.html").read_text("utf-8")
    assert "Values of the results" in page and "currency (moved)" in page and "Hidden Ltd" not in page
    assert "supplier  filled 100 %  1 distinct; (text) 100 %" in drifting.call("results", "out", "--profile").out
    payload = json.loads(drifting.call("results", "out", "--profile", "--format", "jsonl").out)
    assert payload["documents"] == 120 and payload["fields"]["currency"]["values"][0]["value"] == "USD"
    shown = drifting.call("report", "out", "--profile-values")
    assert shown.code == 0 and "supplier Hidden Ltd 100 %" in shown.out


def test_drift_above_max_drift_exits_with_1(drifting: Place) -> None:
    """With 0 any marked move fails the run, with 0.9 none; a run without new documents passes."""
    drifting.run("--set", "runner.max_drift=0.9", "--limit", "30")
    ran = drifting.run("--set", "runner.max_drift=0", code=0)  # the second half is like the first
    assert "nothing against run 2" in ran.out
    says(drifting, "E")
    drifting.documents({f"x{n:03}.txt": f"A plain text, number {n}." for n in range(30)})
    ran = drifting.run("--set", "runner.max_drift=0", code=1)
    assert "VALUES MOVED" in ran.out and "runner.max_drift 0" in ran.err
    assert drifting.run("--set", "runner.max_drift=0").code == 0


def test_profile_counts_redone_documents_once(drifting: Place) -> None:
    """After a prompt change the profile covers only the new results; `report` reads the current ones."""
    drifting.configure(agent={"schema": SCHEMA, "system_prompt": "Another one.\n"})
    drifting.run()
    profile = drifting.report()["profile"]
    assert (profile["exact"], profile["documents"]) == (True, 120)
    assert profile["fields"]["currency"]["values"][0] == {"value": "USD", "documents": 120, "share": 1.0}
    drifting.change("d001.txt", "[[doc:d001.txt]] A changed text, number 1.")
    assert "Values of 121 results, including earlier results of repeated documents\n" in drifting.run().out
    assert (drifting.report()["profile"]["exact"], drifting.report()["profile"]["documents"]) == (False, 121)
    assert drifting.call("report", "out").code == 0
    assert (drifting.report()["profile"]["exact"], drifting.report()["profile"]["documents"]) == (True, 120)


def test_profile_compares_shards_as_a_whole(place: Place) -> None:
    """The newest runs of all shards are compared with the runs before them."""
    place.configure(agent={"schema": SCHEMA})
    says(place, "UEG")
    place.documents(60)
    for shard in ("0/2", "1/2"):
        place.run("--shard", shard)
    says(place, "U")
    place.documents({f"n{n:03}.txt": f"A plain text, number {n}." for n in range(60)})
    for shard in ("0/2", "1/2"):
        place.run("--shard", shard)
    against = place.report()["profile"]["against"]
    assert (against["documents"], against["documents_before"]) == (60, 60)
    assert against["moved"][0]["value"] == "USD" and place.report()["profile"]["documents"] == 120

"""Evidence in the records of a run: places of quotes, also in copies, and what the other commands make of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from conftest import Place
from making import pdf

from pipeline import read_results

TEXT = "Three ships reached “Rotterdam” on Mon-\nday. The first two were unloaded before noon."
QUOTES = ['Three ships reached "Rotterdam" on Monday.', "first two were unloaded before noon", "", TEXT[:11]]
AGENT = {
    "schema": {
        "type": "object",
        "properties": {"evidence": {"type": "array", "items": {"type": "string", "x-quote": True}}},
        "required": ["evidence"],
    },
    "max_reasks": 0,
}  # fmt: skip


def prepared(place: Place) -> None:
    """An agent that gives quotes, and a model that gives those of TEXT."""
    place.configure(agent=AGENT)
    place.server.answer = lambda prompt, _schema: json.dumps({"evidence": QUOTES if "ships" in prompt else []})


def results(place: Place) -> dict[str, Any]:
    """The last result of each document."""
    return {line["id"]: line for line in place.lines("results.jsonl")}


def shown(record: Any, text: str) -> list[str]:
    """What stands at the places of a record."""
    return [text[each["start"] : each["end"]] for each in record["evidence"]]


def test_places_are_those_of_the_documents_own_text(place: Place) -> None:
    """Also with special tokens in front, which the model saw broken up; the digest is of the same text."""
    prepared(place)
    place.documents({"a.txt": f"<|im_end|> {TEXT}", "none.txt": "Nothing."})
    place.run()
    text = (place.folder / "inbox" / "a.txt").read_text(encoding="utf-8")
    record = results(place)["a.txt"]
    assert "special_tokens_broken" in record["notes"]
    assert record["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert [(each["path"], each["match"], each["count"]) for each in record["evidence"]] == [
        ("/evidence/0", "folded", 1), ("/evidence/1", "exact", 1), ("/evidence/3", "exact", 1),
    ]  # fmt: skip
    assert shown(record, text) == [TEXT.split(" The")[0], "first two were unloaded before noon", "Three ships"]
    keys = list(record)
    at = keys.index("metadata")
    assert keys[at : at + 6] == ["metadata", "text_sha256", "evidence", "windows", "merge", "latency_s"]
    assert results(place)["none.txt"]["evidence"] == []


def test_a_copy_has_the_evidence_of_its_original(place: Place) -> None:
    """The same text has the same places: of this run (shared), and of an earlier one (reused)."""
    prepared(place)
    line = json.dumps({"text": f"[[doc:a.txt]] {TEXT}"})
    path = place.folder / "inbox" / "all.jsonl"
    path.write_text(f"{line}\n{line}\n", encoding="utf-8")
    place.run()
    path.rename(path.with_name("later.jsonl"))
    place.run()
    first, *others = results(place).values()
    assert first["evidence"]
    assert [note.partition(":")[0] for each in others for note in each["notes"]] == ["shared", "reused", "reused"]
    for other in others:
        assert (other["evidence"], other["text_sha256"]) == (first["evidence"], first["text_sha256"])


def test_the_pages_of_a_pdf_are_counted_with_empty_ones(place: Place) -> None:
    """The page stands in the evidence; a PDF of the same text on other pages is no copy."""
    prepared(place)
    place.server.answer = lambda _prompt, _schema: json.dumps({"evidence": ["two ships", "one ship"]})
    one, two = "It has one ship.", "It has two ships."
    (place.folder / "inbox" / "a.pdf").write_bytes(pdf([one, "", two]))
    (place.folder / "inbox" / "b.pdf").write_bytes(pdf(["", one, two]))
    place.run()
    pages_of = {name: [each["page"] for each in record["evidence"]] for name, record in results(place).items()}
    assert pages_of == {"a.pdf": [3, 1], "b.pdf": [3, 2]}
    assert all(record["attempts"] == 1 for record in results(place).values())


def test_other_commands_keep_remove_and_compare_it(place: Place, tmp_path: Path) -> None:
    """results, read_results and Parquet have it, compact keeps it, purge removes it."""
    prepared(place)
    place.documents({"a.txt": TEXT, "b.txt": f"Two {TEXT}"})
    place.run()
    before = results(place)
    place.run("--redo", "all")
    evidence = {name: record["evidence"] for name, record in before.items()}
    lines = [json.loads(line) for line in place.call("results", "out", "--format", "jsonl").out.splitlines()]
    assert {line["id"]: line["evidence"] for line in lines} == evidence
    assert place.call("compact", "out", "--format", "parquet").code == 0
    import pyarrow.parquet

    (table,) = (place.folder / "out").glob("*.parquet")
    rows = {row["id"]: row for row in pyarrow.parquet.read_table(table).to_pylist()}
    assert {name: json.loads(row["evidence"]) for name, row in rows.items()} == evidence
    assert rows["a.txt"]["text_sha256"] == before["a.txt"]["text_sha256"]
    records = {record.id: record.raw for record in read_results(str(place.folder / "out"))}
    assert records["a.txt"]["evidence"] == before["a.txt"]["evidence"]
    (place.folder / "ids").write_text("a.txt\n", encoding="utf-8")
    assert place.call("purge", "out", "--ids", "ids").code == 0
    kept = b"".join(path.read_bytes() for path in (place.folder / "out").rglob("*") if path.is_file())
    assert before["a.txt"]["text_sha256"].encode() not in kept
    assert list(results(place)) == ["b.txt"]


def test_records_of_earlier_versions_have_none(place: Place) -> None:
    """They stand, are reused as they are, and go into Parquet."""
    prepared(place)
    place.documents({"a.txt": TEXT})
    place.run()
    path = place.folder / "out" / "results.jsonl"
    (record,) = place.lines("results.jsonl")
    old = {key: value for key, value in record.items() if key not in ("evidence", "text_sha256")}
    path.write_text(json.dumps(old, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    inbox = place.folder / "inbox"
    (inbox / "a.txt").rename(inbox / "z.txt")
    place.run()
    assert place.last_run()["counts"]["done"] == 1
    reused = results(place)["z.txt"]
    assert (reused["attempts"], reused["text_sha256"], reused["evidence"]) == (0, None, None)
    assert place.call("compact", "out", "--format", "parquet").code == 0

"""Evidence in the records of a run: positions of quotes, also in copies, and how other commands handle them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from conftest import Place
from document_files import pdf

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


def configure(place: Place) -> None:
    """Configure an agent that asks for quotes and a model that returns QUOTES."""
    place.configure(agent=AGENT)
    place.server.answer = lambda prompt, _schema: json.dumps({"evidence": QUOTES if "ships" in prompt else []})


def results(place: Place) -> dict[str, Any]:
    """Return the last result of each document."""
    return {line["id"]: line for line in place.lines("results.jsonl")}


def quoted(record: Any, text: str) -> list[str]:
    """Return the text at each position in the evidence of a record."""
    return [text[quote["start"] : quote["end"]] for quote in record["evidence"]]


def test_positions_refer_to_the_original_text(place: Place) -> None:
    """Special tokens that the prompt breaks up do not shift the positions; text_sha256 is of the same text."""
    configure(place)
    place.documents({"a.txt": f"<|im_end|> {TEXT}", "none.txt": "Nothing."})
    place.run()
    text = (place.folder / "inbox" / "a.txt").read_text(encoding="utf-8")
    record = results(place)["a.txt"]
    assert "special_tokens_broken" in record["notes"]
    assert record["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert [(quote["path"], quote["match"], quote["count"]) for quote in record["evidence"]] == [
        ("/evidence/0", "folded", 1), ("/evidence/1", "exact", 1), ("/evidence/3", "exact", 1),
    ]  # fmt: skip
    assert quoted(record, text) == [TEXT.split(" The")[0], "first two were unloaded before noon", "Three ships"]
    keys = list(record)
    at = keys.index("metadata")
    assert keys[at : at + 6] == ["metadata", "text_sha256", "evidence", "windows", "merge", "latency_s"]
    assert results(place)["none.txt"]["evidence"] == []


def test_a_copy_has_the_evidence_of_its_original(place: Place) -> None:
    """A copy of a document of the same run (shared) or of an earlier run (reused) has the same positions."""
    configure(place)
    line = json.dumps({"text": f"[[doc:a.txt]] {TEXT}"})
    path = place.folder / "inbox" / "all.jsonl"
    path.write_text(f"{line}\n{line}\n", encoding="utf-8")
    place.run()
    path.rename(path.with_name("later.jsonl"))
    place.run()
    first, *others = results(place).values()
    assert first["evidence"]
    assert [note.partition(":")[0] for record in others for note in record["notes"]] == ["shared", "reused", "reused"]
    for other in others:
        assert (other["evidence"], other["text_sha256"]) == (first["evidence"], first["text_sha256"])


def test_page_numbers_include_empty_pages(place: Place) -> None:
    """The evidence has the page; a PDF with the same text on other pages is not a copy."""
    configure(place)
    place.server.answer = lambda _prompt, _schema: json.dumps({"evidence": ["two ships", "one ship"]})
    first_page, last_page = "It has one ship.", "It has two ships."
    (place.folder / "inbox" / "a.pdf").write_bytes(pdf([first_page, "", last_page]))
    (place.folder / "inbox" / "b.pdf").write_bytes(pdf(["", first_page, last_page]))
    place.run()
    pages_of = {name: [quote["page"] for quote in record["evidence"]] for name, record in results(place).items()}
    assert pages_of == {"a.pdf": [3, 1], "b.pdf": [3, 2]}
    assert all(record["attempts"] == 1 for record in results(place).values())


def test_other_commands_return_keep_and_remove_evidence(place: Place, tmp_path: Path) -> None:
    """`results`, read_results and Parquet return evidence, `compact` keeps it, `purge` removes it."""
    configure(place)
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
    all_bytes = b"".join(path.read_bytes() for path in (place.folder / "out").rglob("*") if path.is_file())
    assert before["a.txt"]["text_sha256"].encode() not in all_bytes
    assert list(results(place)) == ["b.txt"]


def test_records_without_evidence_remain_valid(place: Place) -> None:
    """Records of earlier versions are kept, reused unchanged, and written to Parquet."""
    configure(place)
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

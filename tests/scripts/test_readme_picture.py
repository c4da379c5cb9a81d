"""The picture of README.md: its content and highlights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import readme_picture
from conftest import Place

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
SCHEMA = {
    "type": "object",
    "properties": {"evidence": {"type": "string", "x-quote": True}, "mood": {"type": "string", "maxLength": 9}},
    "required": ["evidence", "mood"],
    "additionalProperties": False,
}


def test_picture_shows_a_run(place: Place) -> None:
    """It has the document's text and each field of its record."""
    place.configure(agent={"schema": SCHEMA})
    place.documents({"a.txt": "Prices of <steel> & copper rose."})
    place.run()
    (record,) = place.lines("results.jsonl")
    document = place.folder / "inbox" / "a.txt"
    script = [sys.executable, ROOT / "scripts" / "readme_picture.py", place.folder / "out", "--id", "a.txt"]
    flags = ["--document", document, "--agents-dir", place.folder / "agents"]
    ran = subprocess.run([*script, *flags], capture_output=True, text=True, check=True)
    shown = " ".join(node.text or "" for node in ElementTree.fromstring(ran.stdout).iter(f"{SVG}text"))
    assert document.read_text(encoding="utf-8") in shown
    assert f'"mood": "{record["output"]["mood"]}"' in shown


def test_only_checked_quotes_are_highlighted() -> None:
    """Each occurrence has its line and column; a field without x-quote is not highlighted."""
    record = {"output": {"evidence": "steel", "mood": "rose"}}
    quotes = readme_picture.quotes_of(record, SCHEMA)
    lines = ["steel and steel", "rose", "a steel"]
    assert list(readme_picture.highlights(lines, quotes)) == [(0, 0, 5), (0, 10, 5), (2, 2, 5)]


def test_picture_in_docs_is_valid() -> None:
    """It is well-formed, has a description, and has a highlighted quote."""
    root = ElementTree.parse(ROOT / "docs" / "record.svg").getroot()
    assert root.findtext(f"{SVG}title")
    assert len(root.findall(f"{SVG}rect")) >= 2

"""The small inputs of `tests/data/documents`: each has its expected value here or in the test of its format."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries

TESTS = Path(__file__).parent
CASES = TESTS.parent / "data" / "documents"
SPOKEN = "東京電力の社長が辞任を発表した。"


@pytest.mark.parametrize(
    ("case", "expected", "notes", "ignored"),
    [
        ("gz/12.htm", {"12.htm": "htm file"}, (), {}),
        ("gz/13.tsv", {"13.tsv#1": "a"}, (), {}),
        ("gz/15.markdown", {"15.markdown": "x"}, (), {}),
        ("gz/17.log", {"17.log": "x"}, (), {}),
        (
            "json/40_one_bad_byte_in_a_line.jsonl",
            {
                "40_one_bad_byte_in_a_line.jsonl#1": SPOKEN * 5 + "\ufffd",
                "40_one_bad_byte_in_a_line.jsonl#2": "ok",
            },
            ("invalid_bytes:1",),
            {},
        ),
        ("names", {"ok.txt": "Acme appoints John Roe.\n"}, (), {"(underscore)": 1}),
        ("names/_report.txt", {"_report.txt": "Acme appoints Jane Doe.\n"}, (), {}),
    ],
)
def test_case_has_its_expected_documents(
    case: str, expected: dict[str, str], notes: tuple[str, ...], ignored: dict[str, int]
) -> None:
    """Texts by id, notes of the first document, and the counts of skipped parts are compared."""
    counts = ListingCounts()
    entries = list(load_entries(InputConfig(uri=(InputSource(str(CASES / case)),)), output=None, counts=counts))
    documents = [decode(entry, entry.read(), text_field="text") for entry in entries]
    assert {document.id: document.text for document in documents} == expected
    assert documents[0].notes == notes
    assert counts.ignored == ignored


def test_every_case_file_is_used() -> None:
    """Each file is named in a test of its format or in this one."""
    tests = "".join(path.read_text("utf-8") for path in TESTS.glob("test_*.py"))
    forgotten = [str(path) for path in CASES.rglob("*") if path.is_file() and path.name not in tests]
    assert forgotten == []

"""Full EDGAR submissions: each document of a filing, with metadata from the filing's header."""

from __future__ import annotations

import binascii
import tracemalloc
from pathlib import Path

import pytest
from documents_of import documents_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents import ListingCounts, decode
from pipeline.documents.entries import is_looked_at
from pipeline.documents.files import ListedFile
from pipeline.documents.filings.edgar_header import header_metadata
from pipeline.documents.formats import FORMATS
from pipeline.errors import DocumentError
from pipeline.records import Document, Entry

HEADER = """<SEC-DOCUMENT>0000320193-26-000106.txt : 20261128
<SEC-HEADER>0000320193-26-000106.hdr.sgml : 20261128
<ACCEPTANCE-DATETIME>20261127180827
ACCESSION NUMBER:\t\t0000320193-26-000106
CONFORMED SUBMISSION TYPE:\t8-K
PUBLIC DOCUMENT COUNT:\t\t3
CONFORMED PERIOD OF REPORT:\t20261126
FILED AS OF DATE:\t\t20261128

FILER:

\tCOMPANY DATA:\t
\t\tCOMPANY CONFORMED NAME:\t\t\tAcme & Sons Inc.
\t\tCENTRAL INDEX KEY:\t\t\t0000320193
\t\tSTANDARD INDUSTRIAL CLASSIFICATION:\tELECTRONIC COMPUTERS [3571]
</SEC-HEADER>
"""
FILED = {
    "accession_number": "0000320193-26-000106", "form_type": "8-K", "period": "2026-11-26", "filing_date": "2026-11-28",
    "company": "Acme & Sons Inc.", "cik": "0000320193", "industry": "ELECTRONIC COMPUTERS [3571]",
}  # fmt: skip


def part(kind: str, text: str, *, sequence: int = 1, name: str = "", description: str = "") -> str:
    head = f"<TYPE>{kind}\n<SEQUENCE>{sequence}\n" + (f"<FILENAME>{name}\n" if name else "")
    head += f"<DESCRIPTION>{description}\n" if description else ""
    return f"<DOCUMENT>\n{head}<TEXT>\n{text}\n</TEXT>\n</DOCUMENT>\n"


def uuencoded(data: bytes, name: str = "a.jpg") -> str:
    lines = [binascii.b2a_uu(data[at : at + 45]).decode() for at in range(0, len(data), 45)]
    return f"begin 644 {name}\n{''.join(lines)}`\nend"


def submission(folder: Path, *parts: str, header: str = HEADER, end: str = "</SEC-DOCUMENT>\n") -> Path:
    path = folder / "0000320193-26-000106.txt"
    path.write_text(header + "".join(parts) + end)
    return path


def test_each_readable_part_of_a_filing_is_a_document(tmp_path: Path) -> None:
    """These are pages, XML and plain text; uuencoded files and XBRL data are counted."""
    picture = bytes(range(256)) * 4
    page = "<html><head><title>8-K</title></head><body><div>Acme&nbsp;reports.</div><div>Item 2.02</div></body></html>"
    path = submission(
        tmp_path,
        part("8-K", page, name="a8k.htm", description="FORM 8-K"),
        part("EX-99.1", "<PAGE>\n<TABLE>\n<S>   <C>\nProfit   5 &amp; 6\n</TABLE>", sequence=2, name="ex99.txt"),
        part("GRAPHIC", uuencoded(picture), sequence=3, name="a.jpg"),
        part("EX-99.2", f"<PDF>\n{uuencoded(picture, 'a.pdf')}\n</PDF>", sequence=4, name="a.pdf"),
        part("EX-101.SCH", "<XBRL>\n<?xml version='1.0'?><x>schema</x>\n</XBRL>", sequence=5, name="a.xsd"),
        part("XML", "<html>R1</html>", sequence=6, name="R1.htm", description="IDEA: XBRL DOCUMENT"),
        part("4", "<XML>\n<?xml version='1.0'?>\n<o><name>Anna</name><n>5</n></o>\n</XML>", sequence=7, name="f.xml"),
    )
    counts = ListingCounts()
    documents = [document for document in documents_of(path, counts) if isinstance(document, Document)]
    assert [(document.id.partition("#")[2], document.text) for document in documents] == [
        ("1", "Acme reports.\nItem 2.02"),
        ("2", "   \nProfit   5 & 6"),
        ("7", "Anna\n5"),
    ]
    assert counts.ignored == {"(uuencoded)": 2, "(XBRL)": 2}
    assert documents[0].metadata == {
        **FILED, "type": "8-K", "sequence": "1", "filename": "a8k.htm", "description": "FORM 8-K"
    }  # fmt: skip


def test_uuencoded_file_within_a_text_is_counted(tmp_path: Path) -> None:
    """The text around it is read; a sentence that only begins like such a file is text."""
    text = f"Before.\n{uuencoded(b'x' * 100)}\nbegin 644 reasons\nto stay calm.\nAfter."
    (document,) = documents_of(submission(tmp_path, part("EX-99", text)))
    assert isinstance(document, Document)
    assert document.text == "Before.\nbegin 644 reasons\nto stay calm.\nAfter."
    assert document.notes == ("attachments_skipped:1",)


@pytest.mark.parametrize(
    "start",
    [
        "-----BEGIN PRIVACY-ENHANCED MESSAGE-----\nProc-Type: 2001,MIC-CLEAR\nMIC-Info: RSA-MD5\n x\n\n" + HEADER,
        HEADER.replace("SEC-", "IMS-"),
        "\n\n" + HEADER,
    ],
)
def test_older_submission_envelope_is_recognised(tmp_path: Path, start: str) -> None:
    """EDGAR once wrapped submissions in an envelope."""
    (document,) = documents_of(submission(tmp_path, part("10-K", "Old filing."), header=start, end=""))
    assert isinstance(document, Document)
    assert (document.text, document.metadata["company"]) == ("Old filing.", "Acme & Sons Inc.")


def test_metadata_names_the_subject_company() -> None:
    """The company is the one that a filing is about, in both header formats."""
    owner = "REPORTING-OWNER:\n\n\tOWNER DATA:\n\t\tCOMPANY CONFORMED NAME:\tDoe Jane\n\t\tCENTRAL INDEX KEY:\t1\n\n"
    issuer = "ISSUER:\n\n\tCOMPANY DATA:\n\t\tCOMPANY CONFORMED NAME:\tAcme\n\t\tCENTRAL INDEX KEY:\t2\n"
    expected = {"filed_by": "Doe Jane", "company": "Acme", "cik": "2"}
    assert header_metadata(owner + issuer) == expected
    tags = "<REPORTING-OWNER><OWNER-DATA><CONFORMED-NAME>Doe Jane<CIK>1</OWNER-DATA></REPORTING-OWNER>"
    assert header_metadata(f"{tags}<ISSUER><COMPANY-DATA><CONFORMED-NAME>Acme<CIK>2</COMPANY-DATA>") == expected
    two = issuer.replace("ISSUER", "FILER") + issuer.replace("ISSUER", "FILER").replace("Acme", "Beta")
    assert header_metadata(two)["company"] == "Acme; Beta"


def test_ordinary_text_is_no_submission(tmp_path: Path) -> None:
    """Only a file that begins as a submission is one."""
    (tmp_path / "a.txt").write_text("The tag <SEC-DOCUMENT> begins a submission.")
    (document,) = documents_of(tmp_path / "a.txt")
    assert isinstance(document, Document)
    assert document.id == "a.txt"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/a/0000320193-26-000106.txt", True),
        ("s3://b/a/000032019326000106.txt", True),
        ("s3://b/a/8-K/full-submission.txt", True),
        ("s3://b/a/article-1.txt", False),
        ("data/article-1.txt", True),
    ],
)
def test_object_is_probed_only_if_its_name_suggests_a_submission(uri: str, expected: bool) -> None:
    """A request for each text of a bucket would halve the listing speed."""
    file = ListedFile(uri.rpartition("/")[2], "id", uri, None, 1, lambda: pytest.fail("opened"))
    assert is_looked_at(FORMATS[".txt"], file) is expected


def test_submission_under_another_name_in_a_bucket_fails() -> None:
    """It is not read as a single text."""
    data = (HEADER + part("8-K", "x")).encode()
    with pytest.raises(DocumentError) as error:
        decode(Entry("id", "s3://b/a.txt", None, 1, "text", lambda: data), data, text_field="text")
    assert error.value.reason == "unsupported_format"
    assert "full-submission.txt" in str(error.value)


# damage


def test_truncated_submission_fails_after_its_documents(tmp_path: Path) -> None:
    """An interrupted download leaves such a file."""
    path = submission(tmp_path, part("8-K", "One."), part("EX-99", "Two.", sequence=2).partition("</TEXT>")[0], end="")
    documents = documents_of(path)
    texts = [document if isinstance(document, str) else document.text for document in documents]
    assert texts == ["One.", f"{path.name}: document_unreadable"]


def test_submission_without_documents_fails(tmp_path: Path) -> None:
    """A header alone is no filing."""
    assert documents_of(submission(tmp_path)) == ["0000320193-26-000106.txt: document_unreadable"]


def test_too_long_part_fails_alone(tmp_path: Path) -> None:
    """It is not held in memory, and the other parts are read."""
    long = [part("EX-99", "x" * 3_000_000), part("EX-98", "y\n" * 1_000_000)]
    path = submission(tmp_path, part("8-K", "One."), *long, part("EX-97", "Four."))
    tracemalloc.start()
    documents = documents_of(path, max_document_bytes=10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [document.partition(": ")[2] if isinstance(document, str) else document.text for document in documents] == [
        "One.", "document_too_large", "document_too_large", "Four.",
    ]  # fmt: skip
    assert peak < 3_000_000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["text", "page", "xml", "picture", "both"]), min_size=1, max_size=6))
def test_each_part_is_a_document_or_is_counted(tmp_path_factory: pytest.TempPathFactory, kinds: list[str]) -> None:
    """Each planted word appears once, and the counts add up to the number of parts."""
    bodies = {
        "text": "{}", "page": "<html><body><p>{}</p></body></html>",
        "xml": "<XML>\n<?xml version='1.0'?><a>{}</a>\n</XML>",
        "picture": uuencoded(b"abc" * 50), "both": "{}\n" + uuencoded(b"abc" * 50).replace("{", "("),
    }  # fmt: skip
    words = [f"planted{n}x" for n in range(len(kinds))]
    parts = [part("EX", bodies[kind].replace("{}", word)) for kind, word in zip(kinds, words, strict=True)]
    counts = ListingCounts()
    documents = documents_of(submission(tmp_path_factory.mktemp("edgar"), *parts), counts)
    assert [document if isinstance(document, str) else document.text for document in documents] == [
        word for kind, word in zip(kinds, words, strict=True) if kind != "picture"
    ]
    assert counts.ignored["(uuencoded)"] == kinds.count("picture")

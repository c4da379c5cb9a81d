"""The report page in a real browser: readable on a phone, in both themes, and safe with any document name."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest
from chromium import Page, chromium, needs_chromium
from test_report import Clock, failure, result, stats_of, summary

from pipeline.report import RunStats, build_report, report_files
from pipeline.report.remaining import ReasonCount, RemainingFailures
from pipeline.report.run_summary import OutputCounts

pytestmark = needs_chromium

HOSTILE = '"><img src=x onerror="document.title=1"><script>document.title="owned"</script>' + "long" * 60
FIELDS = {"properties": {"summary": {}, "companies": {}, "a" * 60: {}}}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Yield a browser tab for all tests here."""
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of two shards with every section, whose documents try to inject markup."""
    clock = Clock()
    stats = RunStats(FIELDS, clock)
    for number in range(300):
        clock.now = number * 7.0
        variant = ("default", "terse")[number % 2]
        stats.add(result(f"{number}{HOSTILE}", variant=variant, latency_s=1 + number % 13))
        if number % 9 == 0:
            stats.add(failure(f"f{number}{HOSTILE}", message=HOSTILE, reason=("timeout", "schema_invalid")[number % 2]))
    runs = [
        summary(stats, run=2, shard=shard, message=HOSTILE, config={"a": HOSTILE}, files={"errors.jsonl": HOSTILE})
        for shard in ("0/3", "1/3")
    ]
    folder = tmp_path_factory.mktemp("report")
    for name, data in report_files(
        build_report([*runs, summary(stats, run=1, shard="0/3")], OutputCounts(done=1))
    ).items():
        (folder / name).write_bytes(data)
    return folder / "report.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1400])
def test_page_fits_the_window(page: Page, report: Path, width: int, dark: bool) -> None:
    """It never scrolls sideways; wide tables scroll in their own frame."""
    page.open(report.as_uri(), width=width, dark=dark)
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("document.querySelectorAll('svg rect').length") > 100


def test_printed_page_clips_no_column(page: Page, report: Path) -> None:
    """On A4 no element is wider than the paper, and no frame hides part of its table."""
    page.open(report.as_uri(), width=718, dark=False)
    page.call("Emulation.setEmulatedMedia", media="print")
    hidden = "[...document.querySelectorAll('.wide, main, pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.value("document.documentElement.scrollWidth") <= 718
    assert page.value(hidden) == 0
    page.call("Emulation.setEmulatedMedia", media="")


@pytest.fixture(scope="module")
def typical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report with five reasons, two variants and thirty runs."""
    reasons = ("timeout", "rejected", "invalid_json", "document_empty", "server_error")
    outcomes = [result(f"2026/d{number:04}.txt", variant=("a", "b")[number % 2]) for number in range(200)]
    failures = [failure(f"2026/e{number:04}.txt", reason=reasons[number % 5]) for number in range(20)]
    rows = {name: ReasonCount(4, 4, 0, ("2026-11-01-report-0013.txt",)) for name in reasons}
    stats = stats_of([*outcomes, *failures], FIELDS)
    more = {"remaining": RemainingFailures(220, 0, rows), "command": "pipeline run --set runner.max_error_rate=1"}
    runs = [summary(stats, run=number, **more) for number in range(1, 31)]
    folder = tmp_path_factory.mktemp("typical")
    for name, data in report_files(build_report(runs)).items():
        (folder / name).write_bytes(data)
    return folder / "report.html"


def test_phone_shows_every_table_without_sideways_scrolling(page: Page, typical: Path) -> None:
    """Rows of many columns are blocks there, each value beside the name of its column."""
    page.open(typical.as_uri(), width=360, dark=False)
    hidden = "[...document.querySelectorAll('.wide')].filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth)"
    assert page.value(f"{hidden}.map(e => e.innerText)") == []
    cell = "[...document.querySelectorAll('td')].find(each => each.innerText == '2026-11-01-report-0013.txt')"
    assert page.value(f"getComputedStyle({cell}, '::before').content") == '"Example: "'


def test_typical_report_prints_on_fewer_than_4_sheets(page: Page, typical: Path) -> None:
    """No heading is alone at the end of a sheet, and no word of a heading is broken."""
    page.open(typical.as_uri(), width=1400, dark=False)
    headings = page.value("[...document.querySelectorAll('h2, h3')].map(each => each.innerText)")
    printed = base64.b64decode(page.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
    sheets = texts_of_sheets(printed)
    assert 1 <= len(sheets) < 4
    assert "Remaining failures" in headings
    assert not {sheet.splitlines()[-1].strip() for sheet in sheets} & set(headings)
    page.open(typical.as_uri(), width=718, dark=False)
    page.call("Emulation.setEmulatedMedia", media="print")
    lines = "(cell => (all => (all.selectNodeContents(cell), all.getClientRects().length))(document.createRange()))"
    broken = page.value(
        f"[...document.querySelectorAll('th')].filter(each => {lines}(each) > 1).map(each => each.innerText)"
    )
    page.call("Emulation.setEmulatedMedia", media="")
    assert [name for name in broken if " " not in name] == []


def texts_of_sheets(printed: bytes) -> list[str]:
    """Return the text of each page of a PDF."""
    document = pypdfium2.PdfDocument(printed)
    try:
        return [document[at].get_textpage().get_text_range().strip() for at in range(len(document))]
    finally:
        document.close()


def test_document_history_opens_without_a_script(page: Page, report: Path) -> None:
    """The requests of a failed document are folded until the reader opens them."""
    page.open(report.as_uri(), width=360, dark=False)
    story = "document.querySelector('li details')"
    is_seen = f"{story}.querySelector('table').checkVisibility()"
    assert page.value(is_seen) is False
    assert page.value(f"{story}.open = true; {is_seen}") is True
    assert page.value("document.documentElement.scrollWidth") <= 360


def test_themes_have_readable_colours(page: Page, report: Path) -> None:
    """Dark is dark, light is light, and the text contrasts in both."""
    brightness = {}
    for dark in (False, True):
        page.open(report.as_uri(), width=380, dark=dark)
        colours = page.value("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
        brightness[dark] = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours]
    assert brightness[False][0] - brightness[False][1] > 150
    assert brightness[True][1] - brightness[True][0] > 150


def test_page_sends_no_request_and_logs_no_error(page: Page, report: Path) -> None:
    """The only request is for the page itself, and the console stays empty."""
    page.requests.clear()
    page.complaints.clear()
    page.open(report.as_uri(), width=1400, dark=False)
    page.value("1")
    assert page.requests == [report.as_uri()]
    assert page.complaints == []


def test_markup_from_documents_is_shown_as_text(page: Page, report: Path) -> None:
    """It creates no element."""
    page.open(report.as_uri(), width=1400, dark=False)
    assert page.value("document.querySelectorAll('script, img, iframe, object').length") == 0
    assert page.value("document.title") != "owned"
    assert "<script>" in page.value("document.body.innerText")

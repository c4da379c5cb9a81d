"""The review page in a real browser: usable by keyboard alone, safe with any document, and readable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from chromium import Page, chromium, needs_chromium
from conftest import Child, Place
from review_place import ANSWER, TEXT, gold_lines, write_output

pytestmark = needs_chromium

FOCUS = "document.activeElement.closest('.field')?.querySelector('.head b')?.textContent"
STATUS = "document.querySelector('#status').textContent"
HOSTILE = (
    "Acme said that profit rose. <script>document.title='owned'</script> <img src=x onerror=\"document.title='owned'\">"
    " </textarea> </div> \u202e evil \x07 \x1b[31m javascript:alert(1) http://example.org/"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Yield a browser tab for all tests here."""
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def start(place: Place, *arguments: str) -> tuple[Child, str]:
    """Start a review; return it and its address."""
    child = place.start("review", "out", *arguments, "--no-open", "--by", "anna")
    assert child.process.stdout is not None
    for line in child.process.stdout:
        if line.startswith("http://"):
            return child, line.strip()
    raise AssertionError(child.end().err)


def show(page: Page, url: str, *, width: int = 1400, dark: bool = False) -> None:
    """Open the page and wait for its first document."""
    page.requests.clear()
    page.complaints.clear()
    page.open(url, width=width, dark=dark)
    page.until("document.querySelectorAll('.field').length > 5")


def save(page: Page) -> None:
    """Save by keyboard, and wait for the next document."""
    page.press("Ctrl+Enter")
    page.until(f"{STATUS}.startsWith('saved,')")


@pytest.fixture
def reviewed(place: Place) -> Place:
    """Return five documents with equal answers."""
    write_output(place.folder / "out", dict.fromkeys([f"d{n}.txt" for n in range(5)], ANSWER))
    return place


def test_documents_can_be_judged_by_keyboard_alone(page: Page, reviewed: Place) -> None:
    """Accept, correct, not in the text, cannot tell; after a restart the fourth document comes first."""
    gold = reviewed.folder / "gold.jsonl"
    child, url = start(reviewed)
    show(page, url)
    assert page.value(FOCUS) == "company"
    page.press("A")
    save(page)

    page.press("a", "Enter")  # company accepted; mood is edited
    assert page.value("document.activeElement.type") == "radio"
    page.press("ArrowDown", "Escape", "ArrowDown", "u", "ArrowDown")
    assert page.value(FOCUS) == "name"
    page.press("ArrowDown", "ArrowDown", "Enter")
    page.type("Robert")
    page.press("Escape", "A")
    save(page)

    page.press("n", "z", "a", "a", "a")
    save(page)
    page.until("document.querySelector('#progress').textContent.startsWith('3 of 5')")
    assert page.complaints == []
    assert child.end(2).code == 0
    lines = gold_lines(gold)
    assert lines[0]["how"] == dict.fromkeys(["company", "mood", "score", "people", "themes"], "accepted")
    assert lines[0]["gold"]["score"] == ANSWER["score"]
    assert lines[0]["saw"] == "1" * 64
    assert lines[1]["unknown"] == ["score"]
    assert lines[1]["gold"]["mood"] == "bad"
    assert lines[1]["gold"]["people"] == [{"name": "Ann", "age": 40}, {"name": "Robert", "age": None}]
    assert lines[1]["how"] == {"company": "accepted", "mood": "corrected", "people": "corrected", "themes": "accepted"}
    assert lines[2]["gold"] == {name: ANSWER[name] for name in ("mood", "score", "people")}

    child, url = start(reviewed)
    show(page, url)
    done = {line["id"] for line in lines}
    assert page.value("document.querySelector('#text-about').textContent") not in done
    page.press("A")
    save(page)
    assert len({line["id"] for line in gold_lines(gold)}) == 4
    assert "1 document judged" in child.end(2).out


def test_draft_survives_a_reload_and_the_servers_end(page: Page, reviewed: Place) -> None:
    """The page reports that the server has ended, and no decision is lost."""
    child, url = start(reviewed)
    show(page, url)
    page.press("n")
    page.call("Page.reload")
    page.until("document.querySelectorAll('.field[data-d=nothing]').length == 1")
    child.end(9)
    page.press("Ctrl+Enter")
    assert "Your draft is kept" in page.until(f"{STATUS}.startsWith('Not saved') && {STATUS}")
    assert page.value("document.querySelectorAll('.field[data-d=nothing]').length") == 1


def test_draft_belongs_to_its_document(page: Page, reviewed: Place) -> None:
    """A later review on the same port and in the same tab has other documents without drafts."""
    child, url = start(reviewed)
    port = url.rpartition(":")[2].partition("/")[0]
    show(page, url)
    first = page.value("document.querySelector('#text-about').textContent")
    page.press("A")
    save(page)
    page.press("n", "n")
    child.end(2)
    shown_texts = (first, page.value("document.querySelector('#text-about').textContent"))
    named = next(f"d{n}.txt" for n in range(5) if f"d{n}.txt" not in shown_texts)
    _, url = start(reviewed, "--ids", named, "--port", port)
    show(page, url)
    assert page.value("document.querySelector('#text-about').textContent") == named
    assert page.value("document.querySelectorAll('.field[data-d=nothing], .field[data-d=value]').length") == 0


def test_hostile_document_is_shown_as_text(page: Page, place: Place) -> None:
    """It creates no element, no error and no foreign request; control and bidi characters are spelled out."""
    answer = {**ANSWER, "company": HOSTILE[:70], "summary": HOSTILE}
    write_output(place.folder / "out", {"<b>d.txt": answer}, texts={"<b>d.txt": HOSTILE})
    _, url = start(place)
    show(page, url)
    page.press("A", "g", "/")
    page.type("evil")
    page.until("document.querySelector('#found').textContent == '1 of 1'")
    text = page.value("document.querySelector('#text').textContent")
    assert "<script>" in text
    assert "\\u202e evil \\x07 \\x1b[31m" in text
    assert page.value("document.querySelectorAll('img, iframe, a, #text script').length") == 0
    assert page.value("document.title") == "0/1 review"
    assert page.complaints == []
    assert all(request.startswith(url.partition("#")[0]) for request in page.requests)


def test_quotes_are_marked_at_their_positions(page: Page, reviewed: Place) -> None:
    """Marks cross white space, and overlapping ones are split into pieces with both numbers."""
    _, url = start(reviewed)
    show(page, url)
    marks = page.value("[...document.querySelectorAll('mark')].map(m => [m.textContent, m.dataset.numbers])")
    assert marks == [["said\n that  ", "1"], ["profit", "1,2"], [" rose", "2"]]
    assert page.value("document.querySelector('#text').textContent") == TEXT


def test_view_scrolls_to_the_evidence_position(page: Page, place: Place) -> None:
    """The record says which of several "profit rose" was quoted; the link of the static page goes there too."""
    text = "profit rose " * 400 + "Acme said that profit rose."
    at = text.rindex("profit rose")
    write_output(place.folder / "out", {"d.txt": {**ANSWER, "evidence": ["profit rose"]}}, texts={"d.txt": text})
    results = place.folder / "out" / "results.jsonl"
    record = json.loads(results.read_text())
    evidence = {"path": "/evidence/0", "start": at, "end": at + 11, "match": "exact", "count": 401}
    digest = hashlib.sha256(text.encode()).hexdigest()
    tail = {name: record.pop(name) for name in list(record)[-6:]}
    results.write_text(json.dumps({**record, "text_sha256": digest, "evidence": [evidence], **tail}) + "\n")
    _, url = start(place)
    show(page, url)
    page.press("g")
    assert page.value("document.querySelectorAll('mark.current').length") == 401
    assert page.value("[...document.querySelectorAll('mark')].findIndex(m => m.matches('.proof'))") == 400
    pane = "document.querySelector('#text-pane').getBoundingClientRect()"
    proof = "document.querySelector('mark.proof').getBoundingClientRect()"
    page.until(f"{pane}.top <= {proof}.top && {proof}.bottom <= {pane}.bottom")  # scrolled smoothly
    assert place.call("review", "out", "--html", "page.html").code == 0
    before, _, after = (place.folder / "page.html").read_text().partition("<a id=d0m1></a>")
    assert before.count("<mark>") == 400
    assert after.count("<mark>") == 1


def test_two_answers_are_anonymous_before_the_choice(page: Page, reviewed: Place) -> None:
    """Neither form nor marks reveal their sides; the choice fills the field."""
    other = {**ANSWER, "mood": "bad", "evidence": ["Ann, 40"]}
    write_output(reviewed.folder / "trial", {"d3.txt": other})
    _, url = start(reviewed, "trial", "--disputed")
    show(page, url)
    assert page.value("document.querySelectorAll('mark').length") == 0
    sides = page.value("[...document.querySelectorAll('.sides button')].map(b => b.textContent)")
    assert sorted(side[10:] for side in sides[:2]) == ["bad", "good"]
    assert not any("OUT" in side or "OTHER" in side for side in sides)
    page.press("ArrowDown", "a")
    assert "choose one" in page.value(STATUS)
    page.value("[...document.querySelectorAll('.sides button')].find(b => b.textContent.endsWith('bad')).click() || 1")
    page.press("A")
    save(page)
    (line,) = gold_lines(reviewed.folder / "gold.jsonl")
    assert line["gold"]["mood"] == "bad"
    assert (line["why"], line["how"]["mood"]) == ("disputed", "accepted")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 1400])
def test_review_page_is_readable_and_accessible(page: Page, reviewed: Place, width: int, dark: bool) -> None:
    """No element exceeds the window, contrast is 4.5 to 1, and every control has a name."""
    _, url = start(reviewed)
    show(page, url, width=width, dark=dark)
    assert page.value("document.documentElement.scrollWidth") <= width
    result: list[Any] = page.value(CONTRASTS)
    assert len(result) > 20
    assert [pair for pair in result if pair[1] < 4.5] == []
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "radio", "checkbox", "combobox", "searchbox"}
    controls = [node for node in tree if node.get("role", {}).get("value") in roles]
    assert len(controls) > 20
    assert [node for node in controls if not node.get("name", {}).get("value")] == []


def test_static_review_page_has_no_script(page: Page, place: Place) -> None:
    """It first says whose text it contains, and links quotes to marks."""
    write_output(place.folder / "out", {"d.txt": {**ANSWER, "summary": HOSTILE}}, texts={"d.txt": HOSTILE})
    ran = place.call("review", "out", "--html", "page.html")
    assert ran.code == 0, ran.err
    path = place.folder / "page.html"
    page.requests.clear()
    page.complaints.clear()
    page.open(path.as_uri(), width=320, dark=False)
    assert page.value("document.documentElement.scrollWidth") <= 320
    assert page.value("document.body.innerText").startswith("This page holds the text of 1 document of out.")
    assert page.value("document.querySelectorAll('script, img, form, input').length") == 0
    assert page.value(
        "document.querySelector('dd a[href=\"#d0m1\"]') !== null && document.querySelector('#d0m1') !== null"
    )
    assert page.requests == [path.as_uri()]
    assert page.complaints == []


CONTRASTS = """(() => {
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  return [...document.querySelectorAll('body *')].filter((e) => e.offsetParent !== null
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => {
    const [a, b] = [light(parts(getComputedStyle(e).color)), light(paper(e))];
    return [e.tagName + ' ' + e.textContent.slice(0, 20), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
})()"""


def test_holdout_answer_is_not_sent_to_the_page(page: Page, reviewed: Place) -> None:
    """The judgement is typed without it, and the gold line says so."""
    reviewed.configure({"eval.holdout": 1.0})
    _, url = start(reviewed)
    show(page, url)
    assert "holdout" in page.value("document.querySelector('#messages').textContent")
    page.press("A")
    assert "No answer is shown" in page.value(STATUS)
    page.press("Enter")
    page.type("Acme")
    save(page)
    (line,) = gold_lines(reviewed.folder / "gold.jsonl")
    assert (line["set"], line["saw"], line["how"]) == ("holdout", None, {"company": "typed"})
    assert json.dumps(line["gold"]) == '{"company": "Acme"}'

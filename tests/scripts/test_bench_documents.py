"""Measurements of document decoding: guessed encodings, and words kept of web pages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import bench_encodings
import bench_html
import pytest


@pytest.mark.slow
def test_encoding_guesses_reach_the_claimed_accuracy() -> None:
    """At most 2 % of the texts of 200 bytes or more are wrong, in 51 languages and their encodings."""
    django = pytest.importorskip("django")
    root = Path(django.__file__).parent
    texts = {language: bench_encodings.sentences(language, root=root) for language in bench_encodings.ENCODINGS}
    assert len(texts) >= 30
    result = bench_encodings.measure(bench_encodings.DETECTORS["ours"](), texts, sizes=[200, 1000], count=2)
    total = sum(result.values(), Counter[str]())
    assert total["wrong"] <= bench_encodings.MAX_WRONG * sum(total.values())
    assert total["refused"] == 0


@pytest.mark.parametrize(("name", "page"), list(bench_html.pages()), ids=[name for name, _ in bench_html.pages()])
def test_non_article_pages_keep_their_words(name: str, page: str) -> None:
    """Cases are a filing, a table, a list and a form; an article keeps its words and loses the menu."""
    assert bench_html.kept_share(page)[2] > (0.85 if name == "news" else 0.99)
    if name == "news":
        from pipeline.documents.html.page import read_page

        assert "Section" not in read_page(page)[0]


def test_form_is_read_with_its_values() -> None:
    """Typed and chosen values are visible, hidden elements are not."""
    from pipeline.documents.html.visible import visible_text

    page = "<form>Name <input value='Jane Doe'><input type=hidden value=x><select><option>A<option selected>B</select>"
    page += "<div style='display: none'><div>c</div>d</div><span hidden>e</span><table><tr><td>1<td>2<tr><th>3</table>"
    assert visible_text(page) == "Name Jane Doe\nB\n1\t2\n3"

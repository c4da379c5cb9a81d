"""Measure the share of a web page's visible words that are kept.

    python scripts/bench_html.py [FILE_OR_FOLDER …]

Without an argument the pages are generated: a news page, a filing, a table, a list, a form and an inline XBRL report.
Prints the words of the page's visible text, those of its document, and the kept share. The exit code is 1 if a page
other than a news page keeps less than MIN_KEPT of its words.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

MIN_KEPT = 0.75
SENTENCE = "The registrant discloses matter number {} in this sentence of the filing, with figures and dates. "


def pages() -> Iterator[tuple[str, str]]:
    """Yield generated pages by name."""
    sentences = [SENTENCE.format(number) for number in range(1, 41)]
    article = "".join(f"<p>{''.join(sentences[at : at + 4])}</p>" for at in range(0, 40, 4))
    menu = "<nav>" + "".join(f"<a href=/{at}>Section {at}</a> " for at in range(30)) + "</nav>"
    yield "news", f"<html><body>{menu}<article><h1>News</h1>{article}</article><footer>Imprint</footer></body></html>"
    font = '<div style="text-align:justify"><font size="2">{}</font></div>'
    yield "filing", "<html><body>" + "".join(font.format(sentence) for sentence in sentences) + "</body></html>"
    rows = "".join(f"<tr><td>Revenue {at}</td><td>$</td><td>{at * 1371}</td></tr>" for at in range(60))
    yield "table", f"<html><body><p>Quarterly report.</p><table>{rows}</table></body></html>"
    yield "list", "<html><body><ul>" + "".join(f"<li>Item {at}</li>" for at in range(80)) + "</ul></body></html>"
    fields = "".join(f"<label>Field {at}<input type=text value='Value {at}'></label>" for at in range(40))
    yield "form", f"<html><body><form>{fields}</form></body></html>"
    hidden = "<div style='display:none'><ix:header>" + "<ix:hidden>0000320193</ix:hidden>" * 50 + "</ix:header></div>"
    facts = "".join(f"<p>Net sales were <ix:nonFraction>{at}</ix:nonFraction> million.</p>" for at in range(60))
    yield "inline XBRL", f"<html><body>{hidden}{facts}</body></html>"


def files(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the pages of files and folders by name."""
    from pipeline.documents.encodings.decoding import to_text

    for argument in map(Path, arguments):
        paths = sorted(argument.rglob("*.htm*")) if argument.is_dir() else [argument]
        for path in paths:
            yield path.name, to_text(path.read_bytes())[0]


def kept_share(page: str) -> tuple[int, int, float]:
    """Return the words of the visible text, the words of the document, and the share of the former in the latter."""
    from pipeline.documents.html.page import read_page
    from pipeline.documents.html.visible import visible_text

    page_words = Counter(visible_text(page).split())
    kept_words = Counter(read_page(page)[0].split())
    total = sum(page_words.values())
    return total, sum(kept_words.values()), sum((page_words & kept_words).values()) / total if total else 1.0


def main() -> int:
    """Print a line for each page; return 1 when one keeps too few of its words."""
    arguments = sys.argv[1:]
    worst = 1.0
    print(f"{'page':32}{'visible':>9}{'document':>9}{'kept':>9}")
    for name, page in files(arguments) if arguments else pages():
        word_count, words, share = kept_share(page)
        worst = worst if name == "news" else min(worst, share)
        print(f"{name[:31]:32}{word_count:9}{words:9}{share:9.1%}")
    return int(not arguments and worst < MIN_KEPT)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())

"""Visibility on the page: marks with enough contrast, and the values of each chart."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from pipeline.report.charts import Series, timeline_chart
from pipeline.report.page_template import render_macro

STYLE = (files("pipeline.report") / "report.css").read_text(encoding="utf-8")
THEMES = [
    dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)
]
MARKS = ("ok", "bad", "good", "fair", "r1", "r2", "r3", "r4", "r5", "mark")


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(foreground: str, background: str) -> float:
    """Return the contrast of WCAG 2.2, from 1 to 21."""
    dark, light = sorted((luminance(foreground), luminance(background)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_marks_have_enough_contrast(theme: int) -> None:
    """Graphics need 3:1 against page and panels, text 4.5:1, in both themes."""
    colours = THEMES[theme]
    for ground in ("paper", "panel"):
        for mark in MARKS:
            assert contrast(colours[mark], colours[ground]) >= 3, (mark, ground)
        for text in ("ink", "soft"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("page", ["pipeline.report/evidence.html.tmpl", "pipeline.review/page/static.html"])
def test_quotes_are_marked_with_enough_contrast(page: str) -> None:
    """The line below a quote needs 3:1 against the page and the colour behind the quote, in both themes."""
    package, _, name = page.partition("/")
    style = files(package).joinpath(name).read_text(encoding="utf-8").partition("</style>")[0]
    themes = [
        dict(re.findall(r"--([\w-]+):\s+(#[0-9a-f]{3,6});", block)) for block in style.split("prefers-color-scheme")
    ]
    assert len(themes) == 2
    for theme in themes:
        line = theme.get("edge") or theme["mark-line"]
        assert min(contrast(line, theme["paper"]), contrast(line, theme["mark"])) >= 3
        assert contrast(theme["ink"], theme["mark"]) >= 4.5


def test_list_of_marks_is_complete() -> None:
    """Each colour that fills or draws is in the list of marks, a text colour, or a plain background."""
    used = set(re.findall(r"(?:fill|stroke|background|border|border-left): [^;{}]*?var\(--(\w+)\)", STYLE))
    assert used - {"paper", "panel", "line", "tone", "ink", "soft"} <= set(MARKS)


def test_chart_has_a_title_and_a_table() -> None:
    """Readers who cannot see the bars get the chart's name and a table of its values."""
    series = [Series("a", [1, 2], "r0"), Series("b", [None, 4000], "r1")]
    drawn = render_macro("parts.jinja", "bars", timeline_chart("Failed <by> reason", series, spans=2, bucket_s=60))
    assert "<title>Failed &lt;by&gt; reason, at most 4k</title>" in drawn
    rows = re.findall(r"<tr>(.*?)</tr>", drawn)
    assert [re.findall(r">([^<]+)</t[dh]>", row) for row in rows] == [
        ["from", "a", "b"],
        ["0 s", "1", "0"],
        ["60 s", "2", "4k"],
    ]

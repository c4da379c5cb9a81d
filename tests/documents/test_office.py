"""Office files: every visible word appears once and in order, whatever part it is in."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pptx
import pytest
import xlsxwriter
from docx.enum.section import WD_SECTION
from hypothesis import given, settings
from hypothesis import strategies as st
from office_files import W, office, p, part, relations, run, word, workbook
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.errors import DocumentError
from pipeline.records import Document, Entry

_SETTINGS = settings(deadline=None, max_examples=40)


def document(data: bytes, form: str = "docx") -> Document:
    return decode(Entry("id", "uri", None, len(data), form, lambda: data), data, text_field="text")


def problem(data: bytes, form: str = "docx") -> tuple[str, str]:
    with pytest.raises(DocumentError) as error:
        document(data, form)
    return error.value.reason, str(error.value)


def saved(file: Any) -> bytes:
    out = io.BytesIO()
    file.save(out)
    return out.getvalue()


# documents


def test_word_document_gives_all_its_parts() -> None:
    """These are header, headings, numbered lists, merged table cells, footer, comments and properties."""
    file = docx.Document()
    file.core_properties.title, file.core_properties.author = "Annual report", "Jane Doe"
    file.core_properties.created = datetime(2026, 11, 28, 10)
    file.add_heading("Results", 1)
    paragraph = file.add_paragraph("Profit rose")
    for style in ("List Number", "List Number", "List Bullet"):
        file.add_paragraph("item", style=style)
    table = file.add_table(2, 3)
    for at in range(6):
        table.cell(at // 3, at % 3).text = f"c{at}"
    table.cell(0, 0).merge(table.cell(0, 1))
    file.sections[0].header.paragraphs[0].text = "Head"
    file.sections[0].footer.paragraphs[0].text = "Foot"
    file.add_comment(paragraph.runs, text="by how much?", author="Bob")
    decoded = document(saved(file))
    assert decoded.text.splitlines() == [
        *("Head", "Results", "Profit rose", "1. item", "2. item", "• item"),
        *("c0 c1\t\tc2", "c3\tc4\tc5", "Foot", "Comment by Bob: by how much?"),
    ]
    assert decoded.metadata == {"title": "Annual report", "author": "Jane Doe", "date": "2026-11-28T10:00:00+00:00"}
    assert decoded.notes == ("comments_added:1",)


BOX = (
    "<w:r><mc:AlternateContent><mc:Choice Requires='wps'><w:drawing><wps:txbx><w:txbxContent>{0}</w:txbxContent>"
    "</wps:txbx></w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox><w:txbxContent>{0}</w:txbxContent></v:textbox>"
    "</w:pict></mc:Fallback></mc:AlternateContent></w:r>"
)
FIELD = "<w:r><w:fldChar w:fldCharType='{}'/></w:r>"
CHECK = (
    "<w:r><w:fldChar w:fldCharType='begin'><w:ffData><w:checkBox>{}</w:checkBox></w:ffData></w:fldChar></w:r>"
    + FIELD.format("end")
)


@pytest.mark.parametrize(
    ("body", "text", "notes"),
    [
        (p("a ", "<w:ins w:id='1'>" + run("new") + "</w:ins>", "<w:del><w:r><w:delText>old</w:delText></w:r></w:del>"),
         "a new", ("tracked_changes",)),
        (p("<w:moveFrom>" + run("x") + "</w:moveFrom>", "stays") + p("<w:moveTo>" + run("x") + "</w:moveTo>"),
         "stays\nx", ("tracked_changes",)),
        (p("one ", properties="<w:rPr><w:del/></w:rPr>") + p("line"), "one line", ("tracked_changes",)),
        (p("a", BOX.format(p("in the box")), "b") + p("c"), "ab\nin the box\nc", ()),
        (p("<w:hyperlink r:id='x'>" + run("link") + "</w:hyperlink>", "<w:smartTag>" + run(" tag") + "</w:smartTag>"),
         "link tag", ()),
        ("<w:sdt><w:sdtPr><w:alias w:val='no'/></w:sdtPr><w:sdtContent>" + p("control") + "</w:sdtContent></w:sdt>",
         "control", ()),
        (p("<w:customXml w:element='e'>" + run("custom") + "</w:customXml>"), "custom", ()),
        (p("<w:fldSimple w:instr='DATE'>" + run("today") + "</w:fldSimple>"), "today", ()),
        (p(FIELD.format("begin"), "<w:r><w:instrText>IF </w:instrText></w:r>", FIELD.format("begin"),
           "<w:r><w:instrText>MERGEFIELD x</w:instrText></w:r>", FIELD.format("separate"), "inner", FIELD.format("end"),
           FIELD.format("separate"), "shown", FIELD.format("end"), " after"), "shown after", ()),
        (p(FIELD.format("begin"), "never") + p("ended"), "never\nended", ()),
        (p("a", "<w:r><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t></w:r>",
           properties="<w:tabs><w:tab w:val='left'/></w:tabs>"), "a\tb\nc-d", ()),
        (p("<w:r><w:rPr><w:vanish/></w:rPr><w:t>unseen</w:t></w:r>"), "unseen", ("hidden_text",)),
        (p("<w:r><w:rPr><w:vanish w:val='0'/></w:rPr><w:t>seen</w:t></w:r>"), "seen", ()),
        (p("<w:r><w:sym w:font='Symbol' w:char='F061'/><w:sym w:font='Wingdings' w:char='F0FE'/></w:r>"), "α☑", ()),
        (p("<w:r><w:sym w:font='Webdings' w:char='F061'/></w:r>"), "\ufffd", ("symbols_unknown:1",)),
        (p(CHECK.format("<w:default w:val='0'/><w:checked/>"), " yes ", CHECK.format("<w:default w:val='0'/>"), " no"),
         "☒ yes ☐ no", ()),
        (p("<w:r><w:fldChar w:fldCharType='begin'><w:ffData><w:ddList><w:result w:val='1'/><w:listEntry w:val='red'/>"
           "<w:listEntry w:val='blue'/></w:ddList></w:ffData></w:fldChar></w:r>"), "blue", ()),
        (p("<m:oMath><m:r><m:t>E=mc</m:t></m:r></m:oMath>"), "E=mc", ()),
        (p("<w:ruby><w:rt>" + run("かんじ") + "</w:rt><w:rubyBase>" + run("漢字") + "</w:rubyBase></w:ruby>"),
         "漢字(かんじ)", ()),
        (p("<w:r><w:pict><v:shape><v:textpath string='DRAFT'/></v:shape></w:pict></w:r>", "text"), "text\nDRAFT", ()),
        (p("now", properties="<w:pPrChange><w:pPr><w:numPr><w:numId w:val='9'/></w:numPr></w:pPr></w:pPrChange>"),
         "now", ()),
    ],
)  # fmt: skip
def test_word_text_is_what_a_reader_sees(body: str, text: str, notes: tuple[str, ...]) -> None:
    """It has accepted changes, text boxes once, results of fields, form fields, symbols and formulas."""
    decoded = document(word(body))
    assert (decoded.text, decoded.notes) == (text, notes)


def test_word_table_is_read_by_rows() -> None:
    """Several paragraphs and nested tables stay in their cell; a row of one cell keeps its lines."""
    cell = "<w:tc><w:tcPr>{}</w:tcPr>{}</w:tc>".format
    inner = f"<w:tbl><w:tr>{cell('', p('i1'))}{cell('', p('i2'))}</w:tr></w:tbl>"
    wide = cell('<w:gridSpan w:val="2"/>', p("wide"))
    rows = (
        f"<w:tr>{cell('', p('a') + p('b'))}{cell('', inner)}</w:tr>"
        f"<w:tr>{wide}{cell('', p('z'))}</w:tr>"
        f"<w:tr>{cell('<w:vMerge/>', '<w:p/>')}{cell('', p('x') + p('y'))}</w:tr>"
    )
    assert document(word(f"<w:tbl>{rows}</w:tbl>")).text == "a b\ti1 i2\nwide\t\tz\nx\ny"


def test_notes_follow_the_text_with_their_marks() -> None:
    """Footnotes and endnotes are in the order of their marks; separators and unmarked notes are not shown."""
    note = "<w:{0} w:id='{1}'>{2}</w:{0}>".format
    body = p("one", "<w:r><w:footnoteReference w:id='7'/></w:r>", " two", "<w:r><w:footnoteReference w:id='3'/></w:r>")
    body += p("three", "<w:r><w:endnoteReference w:id='1'/></w:r>")
    feet = note("footnote", 3, p("second") + p("more")) + note("footnote", 7, p("first")) + note("footnote", 9, p("no"))
    beside = {
        "f.xml": ("footnotes", part("w:footnotes", feet)),
        "e.xml": ("endnotes", part("w:endnotes", note("endnote", 1, p("end")))),
    }
    assert document(word(body, beside)).text == "one[1] two[2]\nthree[e1]\n[1] first\n[2] second\nmore\n[e1] end"


def test_only_visible_page_headers_are_read() -> None:
    """First-page and even-page headers need their switch, and equal ones appear once."""
    references = "".join(f"<w:headerReference w:type='{kind}' r:id='{kind}'/>" for kind in ("default", "first", "even"))
    beside = {f"{kind}.xml": ("header", part("w:hdr", p(kind))) for kind in ("default", "first", "even")}
    assert document(word(p("x") + f"<w:sectPr>{references}</w:sectPr>", beside)).text == "default\nx"
    with_first = word(p("x") + f"<w:sectPr>{references}<w:titlePg/></w:sectPr>", beside)
    assert document(with_first).text == "default\nfirst\nx"
    beside["s.xml"] = ("settings", part("w:settings", "<w:evenAndOddHeaders/>"))
    assert document(word(p("x") + f"<w:sectPr>{references}</w:sectPr>", beside)).text == "default\neven\nx"
    file = docx.Document()
    file.sections[0].header.paragraphs[0].text = "same"
    file.add_paragraph("x")
    other = file.add_section(WD_SECTION.NEW_PAGE)
    other.header.is_linked_to_previous = False
    other.header.paragraphs[0].text = "same"
    assert document(saved(file)).text == "same\nx"


def test_list_numbers_are_computed() -> None:
    """They follow levels, styles, formats and restarts; `1.a` includes the level above."""
    level = "<w:lvl w:ilvl='{}'><w:start w:val='{}'/><w:numFmt w:val='{}'/><w:lvlText w:val='{}'/>{}</w:lvl>".format
    levels = level(0, 1, "decimal", "%1.", "<w:pStyle w:val='H1'/>") + level(1, 1, "lowerLetter", "%1.%2)", "")
    other = level(0, 4, "upperRoman", "Article %1", "") + level(1, 1, "bullet", "\uf0b7", "")
    numbering = (
        f"<w:abstractNum w:abstractNumId='0'>{levels}</w:abstractNum>"
        f"<w:abstractNum w:abstractNumId='1'>{other}</w:abstractNum>"
        "<w:num w:numId='1'><w:abstractNumId w:val='0'/></w:num><w:num w:numId='2'><w:abstractNumId w:val='1'/></w:num>"
        "<w:num w:numId='3'><w:abstractNumId w:val='0'/>"
        "<w:lvlOverride w:ilvl='0'><w:startOverride w:val='1'/></w:lvlOverride></w:num>"
    )
    styles = "<w:style w:styleId='H1'><w:pPr><w:numPr><w:numId w:val='1'/></w:numPr></w:pPr></w:style>"
    styles += "<w:style w:styleId='H1b'><w:basedOn w:val='H1'/></w:style>"
    beside = {
        "n.xml": ("numbering", part("w:numbering", numbering)),
        "s.xml": ("styles", part("w:styles", styles)),
    }

    def item(list_id: int, at: int) -> str:
        return p("x", properties=f"<w:numPr><w:ilvl w:val='{at}'/><w:numId w:val='{list_id}'/></w:numPr>")

    heading = p("x", properties="<w:pStyle w:val='H1'/>") + p("x", properties="<w:pStyle w:val='H1b'/>")
    plain = p("x", properties="<w:pStyle w:val='H1'/><w:numPr><w:numId w:val='0'/></w:numPr>")
    deleted = item(1, 1).replace("</w:pPr>", "<w:rPr><w:del/></w:rPr></w:pPr>").replace("<w:t", "<w:delText")
    deleted = deleted.replace("</w:t>", "</w:delText>")
    body = (
        heading
        + item(1, 1)
        + deleted
        + item(1, 1)
        + plain
        + item(1, 0)
        + item(1, 1)
        + item(2, 0)
        + item(2, 1)
        + item(3, 0)
    )
    labels = ["1. x", "2. x", "2.a) x", "2.b) x", "x", "3. x", "3.a) x", "Article IV x", "• x", "1. x"]
    assert document(word(body, beside)).text.splitlines() == labels


def test_embedded_pages_are_read_and_files_counted() -> None:
    """Some programs write the whole text as a page beside an empty body; embedded files are not read."""
    body = p("before") + "<w:altChunk r:id='page'/><w:altChunk r:id='other'/>" + p("after")
    beside = {
        "page.html": ("aFChunk", "<p>first<p>größer"),
        "other.rtf": ("aFChunk", "{}"),
        "o.bin": ("oleObject", "x"),
    }
    decoded = document(word(body, beside))
    assert decoded.text == "before\nfirst\ngrößer\nafter"
    assert decoded.notes == ("attachments_skipped:2",)


def test_diagrams_and_charts_are_read_in_place() -> None:
    """A diagram is a separate part; a missing one is counted."""

    def point(text: str) -> str:
        return f"<dgm:pt><dgm:t><a:p><a:r><a:t>{text}</a:t></a:r></a:p></dgm:t></dgm:pt>"

    data = part("dgm:dataModel", f"<dgm:ptLst>{point('box one')}{point('box two')}</dgm:ptLst>")
    body = p("a", "<w:drawing><dgm:relIds r:dm='d'/></w:drawing>") + p(
        "b", "<w:drawing><c:chart r:id='no'/></w:drawing>"
    )
    decoded = document(word(body, {"d.xml": ("diagramData", data)}))
    assert decoded.text == "a\nbox one\nbox two\nb"
    assert decoded.notes == ("drawings_skipped:1",)


def test_strict_open_xml_document_is_read() -> None:
    """Its namespaces differ in every part."""
    strict = "http://purl.oclc.org/ooxml/wordprocessingml/main"
    body = part("w:document", f"<w:body>{p('strict text')}</w:body>").replace(W, strict)
    assert document(office({"word/document.xml": body}, "word/document.xml")).text == "strict text"


WORDS = st.text("abcdefghijklmnopqrstuvwxyzäß漢字", min_size=1, max_size=8)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Draw a body of nested blocks, and its words in reading order."""
    words: list[str] = []

    def fresh() -> str:
        words.append(f"{draw(WORDS)}{len(words)}")
        return words[-1]

    def inline() -> str:
        kind = draw(st.sampled_from(["run", "split", "ins", "link", "sdt", "field"]))
        if kind == "split":
            word_ = fresh()
            cut = draw(st.integers(1, len(word_)))
            return run(word_[:cut]) + (run(word_[cut:]) if word_[cut:] else "") + run(" ")
        text = run(fresh() + " ")
        field = FIELD.format("begin") + "<w:r><w:instrText>X</w:instrText></w:r>" + FIELD.format("separate")
        deleted = "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        return {
            "run": text,
            "ins": f"<w:ins>{text}</w:ins>{deleted}",
            "link": f"<w:hyperlink>{text}</w:hyperlink>",
            "sdt": f"<w:sdt><w:sdtContent>{text}</w:sdtContent></w:sdt>",
            "field": field + text + FIELD.format("end"),
        }[kind]

    def block(depth: int) -> str:
        kind = draw(st.sampled_from(["p", "p", "table", "sdt", "box"] if depth else ["p"]))
        if kind == "table":
            rows = [[blocks(depth - 1) for _ in range(draw(st.integers(1, 3)))] for _ in range(draw(st.integers(1, 2)))]
            cells = ("".join(f"<w:tc>{cell}<w:p/></w:tc>" for cell in row) for row in rows)
            return "<w:tbl>" + "".join(f"<w:tr>{row}</w:tr>" for row in cells) + "</w:tbl>"
        if kind == "sdt":
            return f"<w:sdt><w:sdtContent>{blocks(depth - 1)}</w:sdtContent></w:sdt>"
        text = "".join(inline() for _ in range(draw(st.integers(0, 3))))
        return p(text + BOX.format(blocks(depth - 1)) if kind == "box" else text) if text or kind == "box" else "<w:p/>"

    def blocks(depth: int) -> str:
        return "".join(block(depth) for _ in range(draw(st.integers(1, 3))))

    return blocks(3) + p(fresh()), words


@_SETTINGS
@given(bodies())
def test_every_word_of_a_document_appears_once_and_in_order(document_and_words: tuple[str, list[str]]) -> None:
    """Paragraphs, tables, boxes, controls, fields and tracked changes are nested in any way."""
    body, words = document_and_words
    from pipeline.documents.office import decode_office

    assert decode_office(word(body), "text").text.split() == words


# presentations


def deck() -> Any:
    """Return a presentation of two slides with every feature of the library; the second slide is hidden."""
    file = pptx.Presentation()
    file.core_properties.title, file.core_properties.author = "Deck", "Jane"
    file.core_properties.created = datetime(2026, 11, 28, 10)
    slide = file.slides.add_slide(file.slide_layouts[1])
    slide.shapes.title.text = "Title"
    slide.placeholders[1].text = "Body\nline\vbroken"
    slide.notes_slide.notes_text_frame.text = "Say hello"
    table = slide.shapes.add_table(2, 2, 0, 0, Inches(3), Inches(1)).table
    for at in range(4):
        table.cell(at // 2, at % 2).text = f"x{at}"
    data = CategoryChartData()
    data.categories = ["East", "West"]
    data.add_series("Sales", (19.2, 21.4))
    chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, Inches(3), Inches(3), data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "By region"
    slide.shapes.add_group_shape().shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "grouped"
    second = file.slides.add_slide(file.slide_layouts[5])
    second.shapes.title.text = "Second"
    second._element.set("show", "0")
    return file


def test_presentation_gives_its_slides_with_notes() -> None:
    """Shapes, tables, charts and groups are read; a hidden slide is read and noted."""
    decoded = document(saved(deck()), "pptx")
    assert decoded.text.splitlines() == [
        *("Slide 1", "Title", "Body", "line", "broken", "x0\tx1", "x2\tx3"),
        *(
            "By region",
            "Sales",
            "East\t19.2",
            "West\t21.4",
            "grouped",
            "Notes:",
            "Say hello",
            "Slide 2 (hidden)",
            "Second",
        ),
    ]
    assert decoded.metadata == {"title": "Deck", "author": "Jane", "date": "2026-11-28T10:00:00+00:00", "slides": 2}
    assert decoded.notes == ("hidden_slides:1", "speaker_notes_added")


def test_slides_are_in_order_and_master_text_appears_once() -> None:
    """Part numbers follow creation, not order; placeholder prompts are not shown."""
    file = deck()
    order = file.slides._sldIdLst
    order.append(order[0])
    for layout in file.slide_layouts:
        layout.shapes._spTree.append(deck().slides[0].shapes[0]._element.__copy__())
    box = file.slides[0].shapes.add_textbox(0, 0, Inches(1), Inches(1))
    box.text_frame.text = "Acme confidential"
    file.slide_master.shapes._spTree.append(box._element)
    text = document(saved(file), "pptx").text
    assert text.startswith("Slide 1 (hidden)\nSecond\nSlide 2\nTitle\n")
    assert text.endswith("Notes:\nSay hello\nAcme confidential")
    assert "Click to edit" not in text


def test_comments_on_slides_are_read_with_their_authors() -> None:
    """The new kind keeps replies before the text that they reply to; the old kind is read too."""

    def body(text: str) -> str:
        return f"<pc:txBody><a:p><a:r><a:t>{text}</a:t></a:r><a:r><a:t>!</a:t></a:r></a:p></pc:txBody>"

    reply = f"<pc:replyLst><pc:reply authorId='{{B}}'>{body('Yes')}</pc:reply></pc:replyLst>"
    parts: dict[str, str | bytes] = {
        "ppt/p.xml": part("p:presentation", "<p:sldIdLst><p:sldId id='1' r:id='s'/></p:sldIdLst>"),
        "ppt/_rels/p.xml.rels": relations(
            {"s": ("slide", "s.xml"), "a": ("commentAuthors", "a.xml"), "b": ("authors", "b.xml")}
        ),
        "ppt/a.xml": part("p:cmAuthorLst", "<p:cmAuthor id='0' name='Ann'/>"),
        "ppt/b.xml": part("pc:authorLst", "<pc:author id='{B}' name='Bob'/>"),
        "ppt/s.xml": part("p:sld", "<p:cSld/>"),
        "ppt/_rels/s.xml.rels": relations({"c": ("comments", "c.xml"), "d": ("comments", "d.xml")}),
        "ppt/c.xml": part("p:cmLst", "<p:cm authorId='0'><p:text>Old one</p:text></p:cm>"),
        "ppt/d.xml": part("pc:cmLst", f"<pc:cm authorId='{{B}}'>{reply}{body('Sure?')}</pc:cm>"),
    }
    decoded = document(office(parts, "ppt/p.xml"), "pptx")
    assert decoded.text.splitlines()[1:] == [
        "Comment by Ann: Old one",
        "Comment by Bob: Sure?!",
        "Comment by Bob: Yes!",
    ]
    assert decoded.notes == ("comments_added:3",)


@_SETTINGS
@given(st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=4), st.data())
def test_every_word_of_a_presentation_appears_once_and_in_order(slides: list[list[str]], data: st.DataObject) -> None:
    """Titles, boxes, nested groups and tables come before the notes of each slide."""
    from pipeline.documents.office import decode_office

    file = pptx.Presentation()
    expected: list[str] = []
    for number, words in enumerate(slides, 1):
        slide = file.slides.add_slide(file.slide_layouts[6])
        expected += ["Slide", str(number), *words, "Notes:", words[0]]
        for item in words:
            kind = data.draw(st.sampled_from(["box", "group", "table"]))
            if kind == "table":
                slide.shapes.add_table(1, 2, 0, 0, 9, 9).table.cell(0, 1).text = item
                continue
            shapes = slide.shapes.add_group_shape().shapes.add_group_shape().shapes if kind == "group" else slide.shapes
            shapes.add_textbox(0, 0, 9, 9).text_frame.text = item
        slide.notes_slide.notes_text_frame.text = words[0]
    assert decode_office(saved(file), "text").text.split() == expected


# workbooks


def written(fill: Callable[[xlsxwriter.Workbook], None]) -> bytes:
    out = io.BytesIO()
    file = xlsxwriter.Workbook(out)
    fill(file)
    file.close()
    return out.getvalue()


def test_workbook_gives_its_sheets_as_tables() -> None:
    """Values are as shown, without empty rows and columns; hidden content is read and noted."""

    def fill(file: xlsxwriter.Workbook) -> None:
        file.set_properties({"title": "Book", "author": "Ann", "created": datetime(2026, 11, 28, 10)})
        data = file.add_worksheet("Data")
        share = file.add_format({"num_format": "0.0%"})
        data.write_row(1, 1, ["Name", "Date", "", "Share"])
        data.write_row(4, 1, ["Acme", datetime(2026, 11, 28)], file.add_format({"num_format": "d mmm yyyy"}))
        data.write(4, 4, 0.125, share)
        data.write_formula(5, 4, "=SUM(E5:E5)", share, 0.125)
        data.write_comment("B5", "see\nnote", {"author": "Ann"})
        data.insert_textbox(9, 5, "box text")
        data.merge_range("B7:C7", "merged")
        data.write_rich_string("B9", "rich ", file.add_format({"bold": 1}), "text\nin lines")
        data.write_boolean(9, 1, True)
        data.set_header('&L&"Arial,Bold"Q&&A &P')
        data.set_row(8, None, None, {"hidden": 1})
        data.set_column(4, 5, None, None, {"hidden": 1})
        secret = file.add_worksheet("Secret")
        secret.write(0, 0, 12)
        secret.very_hidden()

    decoded = document(written(fill), "xlsx")
    assert decoded.text.splitlines() == [
        *("Sheet: Data", "Name\tDate\tShare", "Acme\t2026-11-28\t12.5%", "\t\t12.5%", "merged", "rich text in lines"),
        *("TRUE", "Q&A", "box text", "B5: Comment by Ann: see note", "Sheet: Secret (hidden)", "12"),
    ]
    assert decoded.metadata == {"title": "Book", "author": "Ann", "date": "2026-11-28T10:00:00+00:00", "sheets": 2}
    assert decoded.notes == ("comments_added:1", "hidden_columns:2", "hidden_rows:1", "hidden_sheets:1")


def test_uncomputed_formulas_are_shown_as_formulas() -> None:
    """A library writes no values for them; an empty result counts as computed."""
    file = openpyxl.Workbook()
    file.active.append([1, 2, "=A1+B1"])
    decoded = document(saved(file), "xlsx")
    assert (decoded.text, decoded.notes) == ("Sheet: Sheet\n1\t2\t=A1+B1", ("formulas_without_value:1",))


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("<x:row><x:c t='s'><x:v>0</x:v></x:c><x:c t='s'><x:v>9</x:v></x:c></x:row>", "東京 x"),
        ("<x:row><x:c t='inlineStr'><x:is><x:t>in </x:t><x:r><x:t>line</x:t></x:r></x:is></x:c></x:row>", "in line"),
        ("<x:row><x:c t='e'><x:v>#REF!</x:v></x:c><x:c t='str'><x:v>a_x000D_b</x:v></x:c></x:row>", "#REF!\ta b"),
        ("<x:row><x:c t='d'><x:v>2026-11-28T00:00:00</x:v></x:c></x:row>", "2026-11-28T00:00:00"),
        ("<x:row><x:c r='C1'><x:v>1</x:v></x:c></x:row><x:row><x:c r='A2'><x:v>2</x:v></x:c></x:row>", "\t1\n2"),
        ("<x:row><x:c r='B1'><x:v>1</x:v></x:c><x:c r='A1'><x:v>2</x:v></x:c></x:row>", "1\t2"),
        ("<x:row><x:c r='XFD1'><x:v>1</x:v></x:c></x:row>", "1"),
        ("<x:row><x:c s='1'><x:v>45989</x:v></x:c><x:c s='5'><x:v>nan</x:v></x:c></x:row>", "2025-11-28\tnan"),
    ],
)
def test_cell_is_shown_by_its_type(rows: str, text: str) -> None:
    """Cases are shared, inline and escaped texts, errors, dates, and cells with and without a position."""
    shared = "<x:si><x:r><x:t>東京</x:t></x:r><x:r><x:t> x</x:t></x:r><x:rPh><x:t>トウキョウ</x:t></x:rPh></x:si>"
    styles = "<x:cellXfs><x:xf/><x:xf numFmtId='14'/></x:cellXfs>"
    assert document(workbook(rows, styles=styles, shared=shared), "xlsx").text == f"Sheet: One\n{text}"


CELLS = st.one_of(
    st.none(),
    st.integers(-(10**9), 10**9),
    st.booleans(),
    st.datetimes(datetime(1950, 1, 1), datetime(2080, 1, 1)).map(lambda moment: moment.replace(microsecond=0)),
    WORDS.map(lambda text: f"{text} {text}"),
)


@_SETTINGS
@given(st.lists(st.lists(CELLS, min_size=1, max_size=6), min_size=1, max_size=8), st.booleans())
def test_every_cell_appears_once_in_its_row_and_column(rows: list[list[Any]], streams: bool) -> None:
    """One writer shares texts, the other does not."""
    from pipeline.documents.office import decode_office

    file = openpyxl.Workbook(write_only=streams)
    sheet = file.create_sheet("S") if streams else file.active
    for row in rows:
        sheet.append(row)
    data = saved(file)
    shown = [
        ["" if cell is None else str(cell).upper() if cell is True or cell is False else str(cell) for cell in row]
        for row in rows
    ]
    if not any(map(any, shown)):
        return
    width = max(map(len, shown))
    grid = [row + [""] * (width - len(row)) for row in shown]
    used = [at for at in range(width) if any(row[at] for row in grid)]
    expected = ["\t".join(row[at] for at in used).rstrip("\t") for row in grid]
    lines = decode_office(data, "text").text.split("\n")[1:]
    seconds = re.compile(r"(\d\d:\d\d)(?=$|\t)")
    assert [seconds.sub(r"\1:00", line) if ":" in line else line for line in lines] == [
        line for line in (seconds.sub(r"\1:00", expected_line) for expected_line in expected) if line
    ]


# invalid and hostile files


def test_old_and_encrypted_office_files_are_recognised() -> None:
    """The message says what to do, whatever the suffix."""
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)
    for stream, word_ in (
        ("EncryptedPackage", "encrypted"),
        ("WordDocument", "convert-to docx"),
        ("Workbook", "convert-to xlsx"),
        ("PowerPoint Document", "convert-to pptx"),
        ("Other", "OLE"),
    ):
        reason, message = problem(ole + stream.encode("utf-16-le"))
        assert (reason, word_ in message) == ("unsupported_format", True), message
    assert problem(office({"xl/workbook.bin": "x"}, "xl/workbook.bin"), "xlsx")[0] == "unsupported_format"
    assert problem(office({"visio.xml": "<visio/>"}, "visio.xml"))[0] == "unsupported_format"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
    assert "OpenDocument" in problem(out.getvalue())[1]


def test_office_file_with_a_wrong_suffix_is_read() -> None:
    """A document is named like a workbook."""
    assert document(word(p("text")), "xlsx").text == "text"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "document_unreadable"),
        (b"PK\3\4 no zip", "document_unreadable"),
        (word(p("cut"))[:-200], "document_unreadable"),
        (word("<w:p>"), "document_unreadable"),
        (office({}, "word/document.xml"), "document_unreadable"),
        (word(""), "document_empty"),
        (word("<w:p/>", {"i.png": ("image", "x")}), "document_empty"),
    ],
)
def test_broken_or_empty_office_file_fails(data: bytes, reason: str) -> None:
    """A picture is no text; the message says how to add text."""
    assert problem(data)[0] == reason


def test_xml_entities_in_office_files_are_refused() -> None:
    """They multiply text, or read files."""
    doctype = "<!DOCTYPE w:document [<!ENTITY a 'aaaa'><!ENTITY b SYSTEM 'file:///etc/passwd'>]>"
    for entity in ("&a;", "&b;"):
        main = part("w:document", p(entity)).replace("?>", f"?>{doctype}", 1)
        reason, message = problem(office({"word/document.xml": main}, "word/document.xml"))
        assert (reason, "document type" in message) == ("document_unreadable", True)


@pytest.mark.parametrize(
    ("data", "reasons"),
    [
        (lambda: word("<w:p>" + "<w:r>" * 1_000_000), ("document_unreadable", "document_too_expensive")),
        (lambda: word(p("a" * 80_000_000)), ("document_too_expensive", "document_too_large")),
        (lambda: word("<w:tc>" * 200_000), ("document_unreadable", "document_too_expensive")),
        (
            lambda: workbook("<x:row><x:c r='A1'><x:v>1</x:v></x:c><x:c r='XFD1'><x:v>1</x:v></x:c></x:row>" * 60_000),
            (None,),
        ),
        (lambda: workbook("<x:row/>" * 1_000_000 + "<x:row><x:c><x:v>1</x:v></x:c></x:row>"), (None,)),
        (
            lambda: workbook(
                "<x:row><x:c t='s'><x:v>0</x:v></x:c></x:row>" * 5000, shared=f"<x:si><x:t>{'a' * 100_000}</x:t></x:si>"
            ),
            ("document_too_large", "document_too_expensive"),
        ),
        (lambda: word("<w:tc><w:tcPr><w:gridSpan w:val='999999999'/></w:tcPr></w:tc>" + p("x")), (None,)),
    ],
)
def test_hostile_office_file_is_bounded(data: Callable[[], bytes], reasons: tuple[str | None, ...]) -> None:
    """Cases are deep elements, long texts, distant cells, many empty rows, and texts shared by all cells."""
    packed = data()
    assert len(packed) < 5_000_000
    if None in reasons:
        assert document(packed, "xlsx").text
    else:
        assert problem(packed, "xlsx")[0] in reasons


@pytest.mark.parametrize("suffix", [".doc", ".xls", ".ppt", ".odt", ".rtf", ".xlsb"])
def test_old_office_format_is_counted_or_fails_with_advice(tmp_path: Path, suffix: str) -> None:
    """`input.unsupported` decides."""
    (tmp_path / f"a{suffix}").write_bytes(b"x")
    counts = ListingCounts()
    assert list(load_entries(InputConfig(uri=(InputSource(str(tmp_path)),)), output=None, counts=counts)) == []
    assert counts.ignored == {suffix: 1}
    config = InputConfig(uri=(InputSource(str(tmp_path)),), unsupported="fail")
    (entry,) = load_entries(config, output=None, counts=ListingCounts())
    with pytest.raises(DocumentError, match=r"is not read: convert it with `soffice --headless --convert-to \w+ FILE`"):
        entry.read()


_WHOLE = {
    "docx": word(
        p("a", BOX.format(p("b")), "c", properties="<w:numPr><w:ilvl w:val='0'/><w:numId w:val='1'/></w:numPr>")
        + f"<w:tbl><w:tr><w:tc>{p(FIELD.format('begin'), 'x', FIELD.format('end'))}</w:tc></w:tr></w:tbl>"
        + p("<w:ruby><w:rt>" + run("r") + "</w:rt></w:ruby>", CHECK.format("<w:checked/>")),
        {"n.xml": ("numbering", part("w:numbering", "<w:num w:numId='1'><w:abstractNumId w:val='0'/></w:num>"))},
    ),
    "pptx": saved(deck()),
    "xlsx": workbook("<x:row r='1'><x:c r='A1' t='s'><x:v>0</x:v></x:c></x:row>", shared="<x:si><x:t>a</x:t></x:si>"),
}


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(_WHOLE)), st.randoms(use_true_random=False))
def test_damaged_office_file_is_read_or_fails(form: str, random: Any) -> None:
    """Elements and attributes are missing, duplicated, moved or changed, and no other exception is raised."""
    from pipeline.documents.office import decode_office

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_WHOLE[form])) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith((".xml", ".rels")) and random.random() < 0.3:
                tags = re.split(rb"(<[^<>]*>)", data)
                for _ in range(random.randint(1, 4)):
                    at, other = random.randrange(len(tags)), random.randrange(len(tags))
                    change = random.choice(["drop", "double", "swap", "value"])
                    if change == "drop":
                        tags[at] = b""
                    elif change == "double":
                        tags[at] += tags[at]
                    elif change == "swap":
                        tags[at], tags[other] = tags[other], tags[at]
                    else:
                        tags[at] = re.sub(rb"=(['\"])[^'\"]*['\"]", rb"=\g<1>-9e9\1", tags[at])
                data = b"".join(tags)
            if random.random() < 0.95:
                target.writestr(name, data)
    try:
        assert decode_office(out.getvalue(), "text").text
    except DocumentError as error:
        assert error.reason in ("document_unreadable", "document_empty", "unsupported_format")

"""XML documents: news, articles and other vocabularies, well-formed or not, and bounds for hostile ones."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents import decode
from pipeline.documents.xml.file import decode_xml
from pipeline.documents.xml.lenient import parse_lenient
from pipeline.documents.xml.parse import parse_xml
from pipeline.documents.xml.text import text_of
from pipeline.documents.xml.tree import Element, TreeBuilder
from pipeline.errors import DocumentError
from pipeline.records import Document, Entry

NITF = """<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE nitf SYSTEM "nitf-3-6.dtd">
<nitf><head><title>Head title</title><tobject><tobject.subject tobject.subject.type="Economy"/></tobject>
<docdata><date.issue norm="20261128T101500Z"/><doc-id id-string="x-1"/><key-list><keyword key="rates"/></key-list>
</docdata><pubdata name="The Daily"/></head>
<body><body.head><hedline><hl1>Bank <em>raises</em> rates</hl1><hl2>Second line</hl2></hedline>
<byline>By Anna B.</byline><dateline>FRANKFURT</dateline><abstract><p>Short.</p></abstract></body.head>
<body.content><block class="lead_paragraph"><p>The bank raised</p></block><block class="full_text">
<p>The bank raised</p><p>CO<sub>2</sub> at <money>5</money> euros.</p><media><media-reference source="a.jpg"/>
<media-metadata name="x" value="y">no</media-metadata><media-caption><p>A caption.</p></media-caption></media>
<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table></block></body.content>
<body.end><tagline>Contact: desk</tagline></body.end></body></nitf>"""

NEWS_ITEM = """<newsItem xmlns="http://iptc.org/std/nar/2006-10-01/" guid="urn:1" version="2"><itemMeta>
<provider qcode="nprov:ACME"/><versionCreated>2026-11-28T10:15:00Z</versionCreated><title>Meta title</title></itemMeta>
<contentMeta><creator><name>Anna B.</name></creator><subject qcode="medtop:1"><name>economy</name></subject>
<language tag="en"/><slugline>bank</slugline><headline>Bank raises rates</headline><by>By Anna B.</by>
<dateline>FRANKFURT</dateline><description role="drol:summary">A summary.</description></contentMeta>
<contentSet>%s</contentSet></newsItem>"""

ARTICLE = r"""<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD JATS 1.3//EN" "JATS-archivearticle1.dtd">
<article xmlns:mml="http://www.w3.org/1998/Math/MathML" xmlns:xlink="http://www.w3.org/1999/xlink"><front>
<journal-meta><journal-title-group><journal-title>Journal of Tests</journal-title></journal-title-group></journal-meta>
<article-meta><article-id pub-id-type="doi">10.1/x</article-id><title-group><article-title>On <italic>E. coli</italic>
</article-title><subtitle>A subtitle</subtitle></title-group><contrib-group><contrib contrib-type="author"><name>
<surname>Curie</surname><given-names>Marie</given-names></name></contrib><contrib><collab>The Group</collab></contrib>
</contrib-group><pub-date pub-type="epub"><day>5</day><month>11</month><year>2026</year></pub-date>
<abstract><p>An abstract.</p></abstract><kwd-group><kwd>bacteria</kwd></kwd-group></article-meta></front>
<body><sec><title>Methods</title><p>See <xref ref-type="bibr">[1]</xref>, x<sup>2</sup>.</p>
<table-wrap><label>Table 1</label><caption><p>Cells.</p></caption><table><thead><tr><th>a</th><th>b</th></tr></thead>
<tbody><tr><td>1</td><td>2</td></tr></tbody></table></table-wrap>
<fig><label>Figure 1</label><caption><p>A figure.</p></caption><graphic xlink:href="f1"/></fig>
<disp-formula><label>(1)</label><alternatives><tex-math>\documentclass{minimal}\begin{document}$$E=mc^2$$\end{document}
</tex-math><mml:math><mml:mi>E</mml:mi></mml:math></alternatives></disp-formula>
<p>With <inline-formula><mml:math><mml:mi>y</mml:mi><mml:mo>=</mml:mo><mml:mn>3</mml:mn></mml:math></inline-formula>.
</p></sec></body><back><ack><p>Thanks.</p></ack><ref-list><title>References</title><ref>
<mixed-citation>Old, 1900</mixed-citation></ref><ref><mixed-citation>Older, 1800</mixed-citation></ref></ref-list>
<app-group><app><p>Appendix.</p></app></app-group>
</back><sub-article><front-stub><title-group><article-title>Review</article-title></title-group></front-stub>
<body><p>Good.</p></body></sub-article></article>"""


def document(data: bytes | str) -> Document:
    data = data.encode() if isinstance(data, str) else data
    return decode(Entry("id", "uri", None, len(data), "xml", lambda: data), data, text_field="text")


def problem(data: bytes | str) -> tuple[str, str]:
    with pytest.raises(DocumentError) as error:
        decode_xml(data.encode() if isinstance(data, str) else data, "text")
    return error.value.reason, str(error.value)


# vocabularies


def test_nitf_gives_its_body_in_order() -> None:
    """It has headline, byline, dateline, paragraphs, captions and tables; a repeated lead paragraph appears once."""
    decoded = document(NITF)
    assert decoded.text == (
        "Bank raises rates\nSecond line\nBy Anna B.\nFRANKFURT\nShort.\nThe bank raised\nCO2 at 5 euros.\nA caption.\n"
        "a\tb\nc\td\nContact: desk"
    )
    assert decoded.metadata == {
        "title": "Bank raises rates", "author": "Anna B.", "dateline": "FRANKFURT", "guid": "x-1",
        "source": "The Daily", "published_at": "2026-11-28T10:15:00Z", "tags": ["rates", "Economy"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        '<inlineXML contenttype="application/nitf+xml"><nitf xmlns="http://iptc.org/std/NITF/2006-10-18/"><body>'
        "<body.head><hedline><hl1>Bank raises rates</hl1></hedline></body.head>"
        "<body.content><p>One.</p><p>Two.</p></body.content></body></nitf></inlineXML>",
        '<inlineXML><html xmlns="http://www.w3.org/1999/xhtml"><head><title>no</title></head><body>'
        "<p>Bank raises rates</p><p>One.</p><p>Two.</p></body></html></inlineXML>",
        '<inlineData contenttype="text/plain">Bank raises rates\nOne.\nTwo.</inlineData>',
        '<inlineData contenttype="text/html">&lt;p>Bank raises rates&lt;p>One.&lt;p>Two.</inlineData>',
    ],
)
def test_news_item_gives_its_headline_and_content(content: str) -> None:
    """Content is NITF, a page or text; repeated content is read once, and remote content is counted."""
    decoded = document(NEWS_ITEM % (content + '<remoteContent href="a.jpg"/>'))
    assert decoded.text == "By Anna B.\n\nFRANKFURT\n\nA summary.\n\nBank raises rates\nOne.\nTwo."
    assert decoded.notes == ("attachments_skipped:1",)
    assert decoded.metadata["source"] == "ACME"
    assert {name: decoded.metadata[name] for name in ("title", "author", "guid", "language", "tags", "dateline")} == {
        "title": "Bank raises rates", "author": "Anna B.", "guid": "urn:1", "language": "en", "tags": ["economy"],
        "dateline": "FRANKFURT",
    }  # fmt: skip


def test_article_gives_title_abstract_and_sections() -> None:
    """Tables have tabs, a formula appears in one form, and references are counted."""
    decoded = document(ARTICLE)
    assert decoded.text == (
        "On E. coli\nA subtitle\n\nAn abstract.\n\nMethods\nSee [1], x2.\nTable 1\nCells.\na\tb\n1\t2\n"
        "Figure 1\nA figure.\n(1)\n$$E=mc^2$$\nWith y=3.\n\nThanks.\nAppendix.\n\nReview\n\nGood."
    )
    assert decoded.notes == ("references_skipped:2",)
    assert decoded.metadata == {
        "title": "On E. coli", "author": "Marie Curie, The Group", "source": "Journal of Tests", "doi": "10.1/x",
        "published_at": "2026-11-05", "tags": ["bacteria"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("<a><b>One</b><b>Two</b></a>", "One\nTwo"),
        ("<a>The <b>bold</b><i>est</i> word<sub>2</sub>, here.</a>", "The boldest word2, here."),
        ("<a><p>x &amp; y &lt; z</p><p><![CDATA[<raw> & ]]></p></a>", "x & y < z\n<raw> &"),
        ("<a><row><cell>1</cell><cell>2</cell></row><row><cell>3</cell><cell>4</cell></row></a>", "1\t2\n3\t4"),
        ("<x:a><y:b>undeclared</y:b> prefixes</x:a>", "undeclared prefixes"),
        ("<a>&nbsp;caf&eacute;&unknown;</a>", "café&unknown;"),
        ('<!DOCTYPE a [<!ENTITY co "Acme &#38; Co">]><a>&co;</a>', "Acme & Co"),
        ('<?xml version="1.0" standalone="yes"?><a>caf&eacute;</a>', "café"),
        ("<a>R&D <br> x < y <b>z</a>", "R&D\nx < y z"),
        ("<a>one\x0b two &#150; three</a>", "one two – three"),
        ("<html><body><p>A page</p><script>no</script></body></html>", "A page"),
        ("\n  <?xml version='1.0'?><a>late declaration</a>", "late declaration"),
    ],
)  # fmt: skip
def test_unknown_xml_gives_all_its_text_in_order(data: str, text: str) -> None:
    """Inline elements stay in their line, others have lines of their own."""
    assert document(data).text == text


@pytest.mark.parametrize(
    ("text", "encoding", "notes"),
    [
        ('<?xml version="1.0" encoding="windows-1251"?><a>Привет, мир и труд</a>', "cp1251", ("encoding:cp1251",)),
        ('<?xml version="1.0" encoding="utf-16"?><a>Привет</a>', "utf-16", ()),
        ('<?xml version="1.0" encoding="Shift_JIS"?><a>日本経済新聞の記事</a>', "cp932", ("encoding:cp932",)),
        ('<?xml version="1.0" encoding="iso-8859-1"?><a>Привет</a>', "utf-8", ()),
        ("<a>Привет</a>", "utf-8-sig", ()),
    ],
)
def test_xml_encoding_is_declared_or_marked(text: str, encoding: str, notes: tuple[str, ...]) -> None:
    """UTF-8 under a wrong declaration is read as UTF-8."""
    decoded = document(text.encode(encoding))
    assert decoded.text == re.sub("<.*?>", "", text)
    assert decoded.notes == notes


def test_damaged_xml_is_noted_and_truncated_xml_fails() -> None:
    """A repair is noted; a file whose root element does not end is truncated."""
    assert document("<a><b>x</a>").notes == ("xml_repaired",)
    assert problem("<a><b>x</b>")[0] == "document_unreadable"
    assert problem("just words") == ("document_unreadable", "no XML: it has no element")
    assert problem("<a><b c='d'/></a>")[0] == "document_empty"


# hostile documents


def bomb(levels: int, width: int) -> str:
    names = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * width}">' for n in range(1, levels))
    return f'<!DOCTYPE a [<!ENTITY e0 "lol">{names}]><a>&e{levels - 1};</a>'


@pytest.mark.parametrize(
    "data",
    [
        bomb(10, 10),
        f'<!DOCTYPE a [<!ENTITY e "{"x" * 50_000}">]><a>{"&e;" * 5000}</a>',
        bomb(9, 10).replace("<a>", "<a><b c='&e8;'/>"),
    ],
)
def test_entity_bomb_is_document_too_expensive(data: str) -> None:
    """It is nested or repeated, in a text or an attribute."""
    assert problem(data)[0] == "document_too_expensive"


@pytest.mark.parametrize("damage", ["", "</b>"])
@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://127.0.0.1:9/x"])
def test_external_entity_is_refused(target: str, damage: str) -> None:
    """No file is read and no request sent, also for malformed documents."""
    data = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{target}">]><a>{damage}&x;</a>'
    assert problem(data) == ("document_unreadable", "it refers to an external entity, which is not read")


def test_external_dtd_is_not_read() -> None:
    """Its absence is no failure."""
    subset = '<!ENTITY % p SYSTEM "file:///etc/passwd"> %p; <!ENTITY c "Co">'
    assert document(f'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd" [{subset}]><a>Acme &c;</a>').text == "Acme Co"


@pytest.mark.parametrize(
    "piece",
    [
        "<a>",
        "<",
        "<a",
        "<!--",
        "<![CDATA[",
        "<?",
        "&",
        "&a",
        "<a b='",
        "</a>",
        "<!DOCTYPE a [",
        "<!ENTITY a '",
        "]>",
        "<br>",
    ],
)
def test_hostile_xml_takes_linear_time(piece: str) -> None:
    """Cases are hundreds of thousands of unclosed constructs."""
    started = time.process_time()
    for data in (piece * (200_000 // len(piece)), f"<a>{piece * (200_000 // len(piece))}</a>"):
        with suppress(DocumentError):
            decode_xml(data.encode(), "text")
    assert time.process_time() - started < 5


def test_deep_nesting_loses_no_text() -> None:
    """Elements below the deepest level are read as text of that level."""
    data = "".join(f"<a>w{n} " for n in range(5000)) + "</a>" * 5000
    assert document(data).text.split() == [f"w{n}" for n in range(5000)]


# both parsers

NAMES = st.sampled_from(["a", "b", "media:c", "x-y", "_z"])
TEXTS = st.text("ab é日&<>\"'\n]", min_size=1, max_size=8)


def written(element: Element) -> str:
    inner = "".join(html.escape(child) if isinstance(child, str) else written(child) for child in element.children)
    attributes = "".join(f' {name}="{html.escape(value)}"' for name, value in element.attributes.items())
    return f"<{element.name}{attributes}>{inner}</{element.name}>"


ATTRIBUTES = st.dictionaries(st.sampled_from(["k", "l"]), st.text("ab <&\"'", max_size=5))
ELEMENTS = st.recursive(
    st.builds(Element, NAMES, ATTRIBUTES, st.lists(TEXTS, max_size=1)),
    lambda inner: st.builds(Element, NAMES, st.just({}), st.lists(st.one_of(inner, TEXTS), max_size=4)),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(ELEMENTS)
def test_lenient_parser_agrees_with_expat(element: Element) -> None:
    """For well-formed XML it gives the same texts and elements."""
    text = written(element)
    strict, notes = parse_xml(text)
    assert notes == ()
    builder = TreeBuilder()
    parse_lenient(text, builder)
    assert not builder.is_open
    lenient = builder.top.children[0]
    assert isinstance(lenient, Element)
    assert (
        list(lenient.texts()) and "".join(lenient.texts()) == "".join(strict.texts()) if list(strict.texts()) else True
    )
    assert text_of(lenient) == text_of(strict)
    assert [node.name for node in lenient.elements()] == [node.name for node in strict.elements()]
    assert lenient.attributes == strict.attributes


JUNK = ["<p>", "</p>", "<b>", "</b>", "&", "<", ">", "<br>", "&nbsp;", "<x:y z=1>", "</i>", '<q r="', "]]>"]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["<p>", "</p>", "<b>", "</b>", "&", "<", ">", "<br>", "&nbsp;", "<x:y z=1>", "</i>", '<q r="', "]]>"]
        ),
        max_size=15,
    )
)
def test_every_word_of_broken_xml_appears_once(junk: Sequence[str]) -> None:
    """Words between any pieces of markup appear in order."""
    words = [f"word{n}" for n in range(len(junk) + 1)]
    body = "".join(f" {word} {piece} " for word, piece in zip(words, [*junk, ""], strict=True))
    try:
        decoded = decode_xml(f"<doc>{body}</doc>".encode(), "text")
    except DocumentError:  # an attribute that is not closed takes the end tag with it
        assert '<q r="' in junk
        return
    if '<q r="' not in junk:
        assert re.findall(r"word\d+", decoded.text) == words

"""Files of many items: feeds, NewsML-G2 messages and sets of articles, split and decoded item by item."""

from __future__ import annotations

import gzip
import html
import io
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from documents_of import documents_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, load_entries
from pipeline.documents.markup_scanner import Scanner, Tag
from pipeline.documents.repeats import headed, without_repeats
from pipeline.records import Document, Entry

RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/" xmlns:dc="http://purl.org/dc/elements/1.1/">
<channel><title>The Daily</title><link>https://daily.example/</link><language>en</language>%s</channel></rss>"""

ITEM = """<item><title>Bank &amp; rates</title><link>https://daily.example/1</link><guid isPermaLink="false">id-1</guid>
<pubDate>Sat, 28 Nov 2026 10:15:00 GMT</pubDate><dc:creator>Anna B.</dc:creator><category>Economy</category>
<category>Banks</category><description>The bank raised its rate. [&#8230;]</description>
<content:encoded><![CDATA[<p>The bank raised its rate.</p><p>Shares&nbsp;fell <b>3</b> %.</p><script>no</script>]]>
</content:encoded><enclosure url="a.mp3" length="1" type="audio/mpeg"/></item>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:xh="http://www.w3.org/1999/xhtml">
<title>The Daily</title><entry><id>urn:1</id>
<title type="html">Bank &amp;amp; rates</title><link rel="self" href="/self"/><link href="/1"/>
<updated>2026-11-28T10:15:00Z</updated><author><name>Anna B.</name><email>a@b.example</email></author>
<category term="eco" label="Economy"/><summary>A summary.</summary><content type="xhtml"><xh:div><xh:p>One.</xh:p>
<xh:p>Two &lt; three.</xh:p></xh:div></content></entry></feed>"""

RDF = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/">
<channel rdf:about="x"><title>The Daily</title><items><rdf:Seq><rdf:li rdf:resource="y"/></rdf:Seq></items></channel>
<image><title>Logo</title></image>
<item rdf:about="https://daily.example/1"><title>Bank</title><description>Plain 1 &lt; 2.
</description></item></rdf:RDF>"""


def entries(path: Path, counts: ListingCounts | None = None, **config: Any) -> Iterator[Entry]:
    settings = InputConfig(uri=(InputSource(str(path)),), **config)
    return load_entries(settings, output=None, counts=counts or ListingCounts())


def read(folder: Path, text: str | bytes, name: str = "feed.xml", **config: Any) -> list[Document | str]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return documents_of(folder / name, **config)


def only_document(folder: Path, text: str | bytes) -> Document:
    (document,) = read(folder, text)
    assert isinstance(document, Document), document
    return document


# vocabularies


def test_rss_item_is_a_document(tmp_path: Path) -> None:
    """Title and content are the text, without a repeated teaser; the rest is metadata."""
    document = only_document(tmp_path, RSS % ITEM)
    assert document.id == "feed.xml#id-1"
    assert document.uri.endswith("feed.xml#1")
    assert document.text == "Bank & rates\n\nThe bank raised its rate.\nShares fell 3 %."
    assert document.notes == ("attachments_skipped:1",)
    assert document.metadata == {
        "title": "Bank & rates", "url": "https://daily.example/1", "guid": "id-1", "author": "Anna B.",
        "language": "en", "published_at": "2026-11-28T10:15:00+00:00", "tags": ["Economy", "Banks"],
        "source": "The Daily",
    }  # fmt: skip


def test_atom_entry_is_a_document(tmp_path: Path) -> None:
    """Its content may be a page within the feed."""
    document = only_document(tmp_path, ATOM)
    assert document.id == "feed.xml#urn:1"
    assert document.text == "Bank & rates\n\nA summary.\n\nOne.\nTwo < three."
    assert document.metadata == {
        "title": "Bank & rates", "url": "/1", "guid": "urn:1", "author": "Anna B.", "tags": ["Economy"],
        "source": "The Daily", "published_at": "2026-11-28T10:15:00Z", "updated_at": "2026-11-28T10:15:00Z",
    }  # fmt: skip


def test_rss_1_item_is_a_document(tmp_path: Path) -> None:
    """The item is a sibling of its channel, and its address is its identifier."""
    document = only_document(tmp_path, RDF)
    assert document.id == "feed.xml#https://daily.example/1"
    assert document.text == "Bank\n\nPlain 1 < 2."
    assert document.metadata == {"title": "Bank", "guid": "https://daily.example/1", "source": "The Daily"}


def test_news_message_has_news_items(tmp_path: Path) -> None:
    """Each is a document; packages are counted."""
    items = "".join(
        f"<newsItem guid='urn:{n}'><contentMeta><headline>H{n}</headline></contentMeta><contentSet>"
        f"<inlineData>Text {n}.</inlineData></contentSet></newsItem>"
        for n in (1, 2)
    )
    (tmp_path / "a.xml").write_text(f"<newsMessage><itemSet>{items}<packageItem guid='p'/></itemSet></newsMessage>")
    counts = ListingCounts()
    documents = documents_of(tmp_path / "a.xml", counts)
    assert [(document.id, document.text) for document in documents if isinstance(document, Document)] == [
        ("a.xml#urn:1", "H1\n\nText 1."), ("a.xml#urn:2", "H2\n\nText 2."),
    ]  # fmt: skip
    assert counts.ignored == {"(packageItem)": 1}


def test_unknown_item_elements_are_metadata_or_text(tmp_path: Path) -> None:
    """A short value is metadata under its own name; prose belongs to the text."""
    item = "<item><title>T</title><x:ticker>ACME</x:ticker><x:story>" + "A long story. " * 20 + "</x:story></item>"
    document = only_document(tmp_path, RSS % item)
    assert document.metadata["ticker"] == "ACME"
    assert document.text.startswith("T\n\nA long story. A long story.")


# identity


def test_item_keeps_its_id_when_the_feed_changes(tmp_path: Path) -> None:
    """Its identifier counts; without a usable one it has a positional id."""
    items = [f"<item><guid>https://daily.example/{n}</guid><title>T{n}</title></item>" for n in range(4)]
    before = read(tmp_path, RSS % "".join(items[1:3]))
    after = read(tmp_path, RSS % "".join(items[:3]))
    assert [document.id for document in before if isinstance(document, Document)] == [
        "feed.xml#https://daily.example/1", "feed.xml#https://daily.example/2",
    ]  # fmt: skip
    assert [document.sha256 for document in before if isinstance(document, Document)] == [
        document.sha256 for document in after[1:] if isinstance(document, Document)
    ]
    odd = ["<item><title>none</title></item>", f"<item><guid>{'x' * 600}</guid><title>long</title></item>",
           "<item><guid> </guid><title>blank</title></item>",
           "<item><guid>a\nb</guid><title>lines</title></item>"]  # fmt: skip
    documents = read(tmp_path, RSS % "".join(odd))
    assert [document.id for document in documents if isinstance(document, Document)] == [
        f"feed.xml#{n}" for n in range(1, 5)
    ]


def test_item_id_is_not_taken_from_nested_elements(tmp_path: Path) -> None:
    """Atom has `id` on several levels, and a page in an item may contain any element."""
    feed = "<feed><id>feed</id><entry><source><id>other</id></source><id>own</id><title>T</title></entry></feed>"
    assert only_document(tmp_path, feed).id == "feed.xml#own"
    item = "<item><description><![CDATA[<guid>no</guid>]]></description><guid><![CDATA[own&amp;1]]></guid></item>"
    assert only_document(tmp_path, RSS % item).id == "feed.xml#own&1"


def test_item_does_not_depend_on_later_elements(tmp_path: Path) -> None:
    """A picture of the feed after or between items does not change them."""
    items = [f"<item><guid>{n}</guid><title>T{n}</title></item>" for n in range(3)]
    picture = "<image><title>Logo</title></image>"
    before, after = (read(tmp_path, RSS % text) for text in (picture.join(items), "".join(items) + picture))
    assert [document.sha256 for document in before if isinstance(document, Document)] == [
        document.sha256 for document in after if isinstance(document, Document)
    ]
    assert all(document.metadata["source"] == "The Daily" for document in before if isinstance(document, Document))


def test_undecodable_identifier_is_ignored(tmp_path: Path) -> None:
    """In an encoding other than UTF-8 two identifiers could look alike."""
    items = "".join(f"<item><guid>статья {n}</guid><title>Привет, мир</title></item>" for n in "аб")
    documents = read(tmp_path, (RSS.replace("UTF-8", "windows-1251") % items).encode("cp1251"))
    assert [document.id for document in documents if isinstance(document, Document)] == ["feed.xml#1", "feed.xml#2"]


# damage


def test_broken_item_affects_no_other(tmp_path: Path) -> None:
    """Unescaped markup, a missing end tag or a bare ampersand is repaired, noted and read."""
    items = [
        "<item><guid>1</guid><title>R&D <br> up</title><description>x < y</description></item>",
        "<item><guid>2</guid><title>never closed<item>",
        "<guid>3</guid><title>fine</title></item>",
        "<item><guid>4</guid><description><p>open <b>tags</description></item>",
    ]
    documents = read(tmp_path, RSS % "\n".join(items))
    assert all(isinstance(document, Document) for document in documents)
    assert [
        (document.id[-1], document.text, document.notes) for document in documents if isinstance(document, Document)
    ] == [
        ("1", "R&D up\n\nx < y", ("xml_repaired",)),
        ("2", "never closed", ("xml_repaired",)),
        ("3", "fine", ()),
        ("4", "open tags", ("xml_repaired",)),
    ]


@pytest.mark.parametrize(
    "cut", ["</rss>", "</channel></rss>", "</item></channel></rss>", "title></item></channel></rss>"]
)
def test_truncated_feed_fails_after_its_items(tmp_path: Path, cut: str) -> None:
    """Items before the cut are read, and the file has a failure of its own."""
    whole = RSS % "".join(f"<item><guid>{n}</guid><title>T{n}</title></item>" for n in range(3))
    documents = read(tmp_path, whole.removesuffix(cut))
    assert documents[-1] == "feed.xml: document_unreadable"
    assert len(documents) == (4 if "item" not in cut else 3)


def test_too_long_item_fails_alone(tmp_path: Path) -> None:
    """No more than the limit is held in memory."""
    items = [f"<item><guid>{n}</guid><title>{'x' * size}</title></item>" for n, size in enumerate([5, 3_000_000, 5])]
    (tmp_path / "feed.xml").write_text(RSS % "".join(items))
    tracemalloc.start()
    result = [(entry.id, entry.size_bytes > 1000) for entry in entries(tmp_path / "feed.xml", max_document_bytes=2000)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result == [("feed.xml#0", False), ("feed.xml#1", True), ("feed.xml#2", False)]
    assert peak < 2_000_000
    assert documents_of(tmp_path / "feed.xml", max_document_bytes=2000)[1] == "feed.xml#1: document_too_large"


def test_feed_without_items_is_counted(tmp_path: Path) -> None:
    """It is no failure, but the report has it."""
    (tmp_path / "feed.xml").write_text(RSS % "")
    counts = ListingCounts()
    assert documents_of(tmp_path / "feed.xml", counts) == []
    assert counts.ignored == {"(feed without items)": 1}


@pytest.mark.parametrize(
    "piece", ["<", "<!--", "<![CDATA[", "<?", "<item>", "<item", "<a b='", "</item>", "<guid>", "&"]
)
def test_hostile_feed_is_split_in_linear_time(tmp_path: Path, piece: str) -> None:
    """Elements are never closed: every byte belongs to an item, or the file fails."""
    (tmp_path / "feed.xml").write_text("<rss><item>" + piece * (400_000 // len(piece)))
    assert list(entries(tmp_path / "feed.xml"))


# encodings and packing


@pytest.mark.parametrize(
    ("declared", "codec"),
    [("windows-1251", "cp1251"), ("utf-16", "utf-16"), ("", "utf-16-le"), ("shift_jis", "cp932"), ("utf-8", "cp1251"),
     ("iso-2022-jp", "iso2022_jp"), ("", "utf-8-sig")],
)  # fmt: skip
def test_feed_is_split_in_any_encoding(tmp_path: Path, declared: str, codec: str) -> None:
    """It may be declared, marked by a BOM, or neither."""
    words = "日本経済新聞の記事" if "jp" in codec or codec == "cp932" else "Центральный банк повысил ставку"
    items = "".join(f"<item><guid>{n}</guid><title>{words} {n}</title></item>" for n in range(3))
    text = RSS.replace('encoding="UTF-8"', f'encoding="{declared}"' if declared else "") % items
    documents = read(tmp_path, text.encode(codec))
    assert [document.text for document in documents if isinstance(document, Document)] == [
        f"{words} {n}" for n in range(3)
    ]


def test_configured_encoding_overrides_the_declared_one(tmp_path: Path) -> None:
    """It applies to the whole feed."""
    documents = read(tmp_path, (RSS % "<item><title>Привет</title></item>").encode("cp866"), encoding="cp866")
    assert [document.text for document in documents if isinstance(document, Document)] == ["Привет"]


def test_feed_is_read_compressed_and_in_archives(tmp_path: Path) -> None:
    """Its items have their usual ids."""
    documents = read(tmp_path, gzip.compress((RSS % ITEM).encode()), name="a.rss.gz")
    assert [document.id for document in documents if isinstance(document, Document)] == ["a.rss.gz#id-1"]


# laws


class Slow(io.RawIOBase):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    def read(self, size: int = -1, /) -> bytes:
        part, self._data = self._data[: self._size], self._data[self._size :]
        return part


MARKUP = [b"<a>", b"</a>", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?", b"?>", b"<", b">", b'"', b"'", b" x ",
          b"<b c='>'>", b"<!DOCTYPE a [", b"]>", b"\xff"]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(MARKUP), max_size=30), st.integers(1, 9))
def test_scanner_output_does_not_depend_on_chunks(pieces: list[bytes], size: int) -> None:
    """It yields every byte and the same tags however the bytes arrive."""
    data = b"".join(pieces)
    slow = list(Scanner(Slow(data, size)).parts())  # type: ignore[arg-type]
    assert b"".join(part.data if isinstance(part, Tag) else part for part in slow) == data
    whole = [part for part in Scanner(io.BytesIO(data)).parts() if isinstance(part, Tag)]
    assert [part for part in slow if isinstance(part, Tag)] == whole


PLACES = {
    "title": "<title>{}</title>",
    "description": "<description>{}</description>",
    "escaped": "<description>&lt;p&gt;{}&lt;/p&gt;</description>",
    "content": "<content:encoded><![CDATA[<div><p>{}</p></div>]]></content:encoded>",
    "creator": "<dc:creator>{}</dc:creator>",
    "category": "<category>{}</category>",
    "subtitle": "<itunes:subtitle>{}</itunes:subtitle>",
    "summary": "<itunes:summary>{}</itunes:summary>",
    "media": "<media:group><media:content url='x'><media:text>{}</media:text></media:content></media:group>",
    "mixed": "<x:own>{}<x:inner>inner</x:inner></x:own>",
    "own": "<x:ticker>{}</x:ticker>",
    "source": "<source url='x'>{}</source>",
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(sorted(PLACES)), max_size=8), min_size=1, max_size=4), st.booleans())
def test_each_planted_word_appears_once(
    tmp_path_factory: pytest.TempPathFactory, items: list[list[str]], broken: bool
) -> None:
    """It is in the text or metadata of its own item, even of a broken one."""
    numbers = iter(range(1000))
    planted = [[(place, f"planted{next(numbers)}x") for place in item] for item in items]
    feed = RSS % "".join(
        "<item>"
        + "".join(PLACES[place].format(word) for place, word in item)
        + ("<br>R&D" if broken else "")
        + "</item>"
        for item in planted
    )
    folder = tmp_path_factory.mktemp("feed")
    documents = read(folder, feed)
    assert len(documents) == len(items)
    for item, document in zip(planted, documents, strict=True):
        if not isinstance(document, Document):
            assert not {place for place, _ in item} - {"creator", "category", "own", "source"}
            continue
        words = re.findall(
            r"planted\d+x", document.text + repr({k: v for k, v in document.metadata.items() if k != "title"})
        )
        assert sorted(words) == sorted(word for _, word in item)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.data())
def test_any_damage_gives_documents_or_failures(
    tmp_path_factory: pytest.TempPathFactory, cuts: int, data: st.DataObject
) -> None:
    """No other exception is raised, and items before the damage are read."""
    feed = bytearray((RSS % (ITEM * 3).replace("id-1", html.escape("id"))).encode())
    for _ in range(cuts):
        at = data.draw(st.integers(0, len(feed) - 1))
        feed[at : at + 2] = data.draw(st.binary(max_size=4))
    assert read(tmp_path_factory.mktemp("feed"), bytes(feed))


def test_repeated_teaser_and_headline_are_left_out() -> None:
    """Only true repetitions are removed, not similar lines."""
    assert without_repeats(["A b c…", "own"], ["A b c d", "A b c d"]) == "own\n\nA b c d"
    assert without_repeats(["A b", "A b"], []) == "A b"
    assert without_repeats(["A"], ["Apple pie"]) == "A\n\nApple pie"
    assert headed(["T", "T", "U"], "T\nrest") == "U\n\nT\nrest"

"""JSON records of every kind: lines, arrays, lists inside objects, pretty-printed and concatenated objects."""

from __future__ import annotations

import io
import json
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.errors import ConfigError, DocumentError

CASES = Path(__file__).parents[1] / "data" / "documents" / "json"
Found = list[tuple[str, str]]


def read(path: Path, **more: Any) -> Found:
    """Return id and text of each document, or the reason why it has none."""
    config = InputConfig(uri=(InputSource(str(path)),), **more)
    collected = []
    for entry in load_entries(config, output=None, counts=ListingCounts()):
        try:
            text = decode(entry, entry.read(), text_field=config.text_field).text
        except DocumentError as problem:
            text = f"!{problem.reason}"
        collected.append((entry.id.partition("!/")[2] or entry.id, text))
    return collected


def put(folder: Path, name: str, data: bytes | str) -> Path:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


@pytest.mark.parametrize(
    ("case", "more", "expected"),
    [
        ("01_array_of_objects.json", {}, [("#1", "first"), ("#2", "second")]),
        ("02_jsonl_named_json.json", {}, [("#1", "first"), ("#2", "second")]),
        ("03_pretty_printed.jsonl", {}, [("#1", "first"), ("#4", "second")]),
        ("08_nested_text.jsonl", {"text_field": "article.body"}, [("#1", "first")]),
        ("09_text_list_of_paragraphs.jsonl", {}, [("#1", "para one\n\npara two")]),
        ("11_nan_value.jsonl", {}, [("#1", "first")]),
    ],
)
def test_json_case_has_all_its_records(case: str, more: dict[str, Any], expected: Found) -> None:
    """Each record is a document with its own text."""
    assert read(CASES / case, **more) == [(case + id, text) for id, text in expected]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.json", '{"text": "x"}', [("a.json", "x")]),
        ("a.json", '\ufeff  {"text": "x"},\n', [("a.json", "x")]),
        ("a.json", "[]", []),
        ("a.json", '[{"text": "x",}, {"text": "y"},]', [("a.json#1", "x"), ("a.json#2", "y")]),
        ("a.json", '{"text": "x"}{"text": "y"}', [("a.json#1", "x"), ("a.json#1.2", "y")]),
        ("a.json", '{"text": bad}\n{"text": "y"}', [("a.json#1", "!document_unreadable"), ("a.json#2", "y")]),
        ("a.json", '["secret"]', [("a.json", "!document_unreadable")]),
        ("a.json", '[{"text": "x"}', [("a.json#1", "x"), ("a.json", "!document_unreadable")]),
        ("a.json", '[{"text": "x"}, 5]', [("a.json#1", "x"), ("a.json#2", "!document_unreadable")]),
        ("a.jsonl", '[{"text": "x"},\n{"text": "y"}]', [("a.jsonl#1", "x"), ("a.jsonl#2", "y")]),
        ("a.jsonl", '{"text": "x"},\n{"text": "y"},\n', [("a.jsonl#1", "x"), ("a.jsonl#2", "y")]),
        ("a.jsonl", '{"text": "x",}\n', [("a.jsonl#1", "x")]),
        ("a.jsonl", '\x1e{"text": "x"}\n\x1e{"text": "y"}\n', [("a.jsonl#1", "x"), ("a.jsonl#2", "y")]),
        ("a.jsonl", '\x1e{\n"text": "x"\n}\n\x1e{"text": "y"}\n', [("a.jsonl#1", "x"), ("a.jsonl#4", "y")]),
        ("a.jsonl", '{"text": "x"} {"text": "y"}\n', [("a.jsonl#1", "x"), ("a.jsonl#1.2", "y")]),
        ("a.jsonl", '{\n"text": "x"\n}{\n"text": "y"\n}', [("a.jsonl#1", "x"), ("a.jsonl#3", "y")]),
        ("a.jsonl", '{"text": "}{"}\n', [("a.jsonl#1", "}{")]),
        ("a.jsonl", "one\ntwo\nthree\n", [("a.jsonl", "!document_unreadable")]),
        ("a.jsonl", "<html>\n<p>x</p>\n</html>", [("a.jsonl", "!document_unreadable")]),
        ("a.jsonl", '{"text": "cut of\n{"text": "y"}\n', [("a.jsonl#1", "!document_unreadable"), ("a.jsonl#2", "y")]),
        ("a.jsonl", '{"text": "x",\n{"text": "y"}\n', [("a.jsonl#1", "!document_unreadable"), ("a.jsonl#2", "y")]),
        (
            "a.jsonl",
            '{\n "text": "x\n",\n "n": 1\n}\n{\n "text": "y"\n}\n',
            [("a.jsonl#1", "!document_unreadable"), ("a.jsonl#6", "y")],
        ),
    ],
)
def test_json_records_of_every_style_are_found(tmp_path: Path, name: str, data: str, expected: Found) -> None:
    """A damaged record fails alone, and a file that is not JSON at all fails once."""
    assert read(put(tmp_path, name, data)) == expected


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ('{"id": 2, "text": "a "quoted" word"}', "!document_unreadable"),
        ('{"id": 2, "text": "never closed}', "!document_unreadable"),
        ('{"id": 2, "by": [{"name": "A"}, {"name": "B"}], "text": "a "q" b"}', "!document_unreadable"),
        ('{"id": 2, "text": "x" "more": 1}', "!document_unreadable"),
        ('{"id": 2, "text": "x", "by": [1, 2,],}', "x"),
        ('{"id": 2, "text": "x"', "!document_unreadable"),
    ],
)
def test_broken_element_fails_alone(tmp_path: Path, broken: str, expected: str) -> None:
    """Later elements are read under their own numbers, even many long ones."""
    behind = [{"id": n, "text": "y" * 3000} for n in range(3, 60)]
    data = f'[{{"id": 1, "text": "x"}}, {broken}, {json.dumps(behind)[1:-1]}]'
    documents = read(put(tmp_path, "a.json", data))
    assert documents[:2] == [("a.json#1", "x"), ("a.json#2", expected)]
    assert documents[2:] == [(f"a.json#{n}", "y" * 3000) for n in range(3, 60)]


def test_too_large_element_fails_alone(tmp_path: Path) -> None:
    """It may also be broken."""
    for large in ('{"text": "%s"}' % ("z" * 300_000), '{"text": "%s" "n": 1}' % ("z" * 300_000)):
        data = f'[{{"text": "x"}}, {large}, {{"text": "y"}}]'
        documents = read(put(tmp_path, "a.json", data), max_document_bytes=100_000)
        assert documents == [("a.json#1", "x"), ("a.json#2", "!document_too_large"), ("a.json#3", "y")]


def test_records_field_names_a_list_in_an_object(tmp_path: Path) -> None:
    """It is a dotted path; a file without such a list fails once."""
    articles = [{"text": "x", "n": 1}, {"text": "y"}]
    path = put(tmp_path, "a.json", json.dumps({"meta": {"n": [1, {}]}, "data": {"a.b": articles, "more": 1}}))
    assert read(path, records_field="data.a.b") == [("a.json#1", "x"), ("a.json#2", "y")]
    for field in ("data", "data.x", "x", "meta.n.y"):
        assert read(path, records_field=field) == [("a.json", "!document_unreadable")]
    assert read(put(tmp_path, "b.json", json.dumps(articles)), records_field="x") == [
        ("b.json#1", "x"),
        ("b.json#2", "y"),
    ]


def test_text_field_may_be_a_nested_path(tmp_path: Path) -> None:
    """A name with dots comes first; a path may lead through a list; fields beside the text are metadata."""
    record = {"a.b": "x", "a": {"b": "y", "c": {"d": ["p", "q"]}}, "ps": [{"t": "1", "n": 0}, {"t": "2"}, {"n": 3}]}
    path = put(tmp_path, "a.json", json.dumps(record))
    for field, text in (("a.b", "x"), ("a.c.d", "p\n\nq"), ("ps.t", "1\n\n2")):
        assert read(path, text_field=field) == [("a.json", text)]
    config = InputConfig(uri=(InputSource(str(path)),), text_field="ps.t")
    (entry,) = load_entries(config, output=None, counts=ListingCounts())
    decoded = decode(entry, entry.read(), text_field="ps.t")
    assert decoded.metadata == {"a.b": "x", "a": {"b": "y", "c": {"d": ["p", "q"]}}, "ps": [{"n": 0}, {"n": 3}]}
    path = put(tmp_path, "b.jsonl", '{"meta": {"id": "k1"}, "text": "x"}')
    assert read(path, id_field="meta.id") == [("k1", "x")]


def test_nan_and_infinite_numbers_become_null(tmp_path: Path) -> None:
    """No record can hold them; they are noted, as trailing commas are."""
    path = put(tmp_path, "a.json", '{"text": "x", "a": NaN, "b": [-Infinity, 1e999], "c": 1,}')
    config = InputConfig(uri=(InputSource(str(path)),))
    (entry,) = load_entries(config, output=None, counts=ListingCounts())
    decoded = decode(entry, entry.read(), text_field="text")
    assert decoded.metadata == {"a": None, "b": [None, None], "c": 1}
    assert decoded.notes == ("trailing_commas", "numbers_not_finite:3")


@pytest.mark.parametrize("size", [3, 3_000])
def test_array_in_an_archive_is_read(tmp_path: Path, size: int) -> None:
    """A tar member is read only once, so probed bytes must not be lost."""
    records = [{"text": f"{n} " + "x" * 100} for n in range(size)]
    data = json.dumps(records).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in (("a.json", data), ("b.json", b'{"text": "alone"}'), ("c.txt", b"c")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    expected = [(f"a.json#{n}", record["text"]) for n, record in enumerate(records, 1)]
    expected += [("b.json", "alone"), ("c.txt", "c")]
    assert read(put(tmp_path, "a.tar.gz", out.getvalue())) == expected
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.json", data)
    assert read(put(tmp_path, "a.zip", out.getvalue())) == expected[:-2]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(lambda text: f"t{text}")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(
    records=RECORDS,
    texts=st.data(),
    shape=st.sampled_from(["array", "lines", "list", "concatenated", "sequence"]),
    indent=st.sampled_from([None, 1, 4]),
    ascii=st.booleans(),
    suffix=st.sampled_from(["json", "jsonl"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_json_records_are_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[dict[str, Any]],
    texts: st.DataObject,
    shape: str,
    indent: int | None,
    ascii: bool,
    suffix: str,
    encoding: str,
) -> None:
    """Every record in every style is a document, in order."""
    if (suffix == "jsonl" and shape == "list") or (encoding == "utf-16" and suffix == "jsonl" and shape == "array"):
        return
    contents = [texts.draw(TEXTS) for _ in records]
    records = [{"text": text, **record} for text, record in zip(contents, records, strict=True)]
    dumped = [json.dumps(record, indent=indent, ensure_ascii=ascii) for record in records]
    whole: Any = {"n": {"m": []}, "list": records} if shape == "list" else records
    data = json.dumps(whole, indent=indent, ensure_ascii=ascii)
    joined = {"lines": "\n", "concatenated": "", "sequence": "\n\x1e"}
    if shape in joined:
        data = ("\x1e" if shape == "sequence" else "") + joined[shape].join(dumped) + "\n"
    path = put(tmp_path_factory.mktemp("a"), f"a.{suffix}", data.encode(encoding))
    assert [text for _, text in read(path, records_field="list" if shape == "list" else None)] == contents


@settings(deadline=None, max_examples=50)
@given(
    texts=st.lists(TEXTS, min_size=2, max_size=6), cut=st.data(), shape=st.sampled_from(["array", "lines", "pretty"])
)
def test_damage_to_one_record_costs_one_record(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut: st.DataObject, shape: str
) -> None:
    """A record that loses a character is read or fails; all others are read under the same numbers."""
    indent = 1 if shape == "pretty" else None
    texts = [f"{at}{text}" for at, text in enumerate(texts)]
    dumped = [json.dumps({"n": at, "text": text}, indent=indent) for at, text in enumerate(texts)]
    which = cut.draw(st.integers(0, len(texts) - 1))
    at = cut.draw(st.integers(10, len(dumped[which]) - 1))
    dumped[which] = dumped[which][:at] + dumped[which][at + 1 :]
    separator, before, after = (",", "[", "]") if shape == "array" else ("\n", "", "")
    suffix = "json" if shape == "array" else "jsonl"
    path = put(tmp_path_factory.mktemp("a"), f"a.{suffix}", before + separator.join(dumped) + after)
    result = [text for _, text in read(path)]
    others = [text for at, text in enumerate(texts) if at != which]
    if shape == "array" and which == 0 and len(result) == 1:
        return  # the first element shows the form of the others
    assert len(result) >= len(texts)
    assert [text for text in result if text in others][: len(others)] == others
    assert any(text.startswith("!") for text in result) or len(result) == len(texts)


def test_hostile_arrays_take_linear_time(tmp_path: Path) -> None:
    """Cases are endless elements, thousands of broken ones, deep ones, and white space."""
    for data in (
        "[" + '{"a":1,' * 300_000,
        "[" + '{"a":1 "b"},' * 100_000 + "]",
        '[{"a":"' + "x" * 1_000_000,
        '[{"a":1},' + "[" * 1_000_000,
        '[{"a":1}' + " " * 1_000_000 + "}",
        "[" + '{"a":[1,],},' * 100_000 + "]",
        '[{"a":"' + '\\"' * 500_000,
    ):
        started = time.process_time()
        documents = read(put(tmp_path, "a.json", data), max_document_bytes=200_000)
        assert documents
        assert time.process_time() - started < 8, data[:20]


def test_array_is_not_held_in_memory(tmp_path: Path) -> None:
    """Ten times the elements need no more memory."""
    import tracemalloc

    peaks = []
    for count in (3_000, 30_000):
        path = put(tmp_path, "a.json", json.dumps([{"text": f"{n} " + "x" * 100} for n in range(count)]))
        config = InputConfig(uri=(InputSource(str(path)),))
        tracemalloc.start()
        for entry in load_entries(config, output=None, counts=ListingCounts()):
            entry.read()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.3


def test_empty_records_field_is_refused() -> None:
    """Null means that the file itself is the list."""
    with pytest.raises(ConfigError, match="records_field"):
        InputConfig(records_field="")

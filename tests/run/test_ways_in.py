"""The same documents give the same results, whatever their input format and wherever the results go."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from conftest import Place
from document_files import OUTLOOK, PROFIT, mail, page, pdf
from s3_server import S3Server
from test_archives import packed

from pipeline.stores import RemoteStore

COUNT = 200
SAME = ("sha256", "output", "metadata", "document_chars", "notes", "fingerprint")


def _documents() -> dict[str, bytes]:
    """Return texts, objects, pages, PDFs and messages, each with its own marker."""
    texts = {}
    for n in range(COUNT):
        text = f"[[doc:{n:03}.txt]] {PROFIT} {OUTLOOK} {n}"
        kinds = {
            "txt": text.encode(),
            "json": json.dumps({"text": text}).encode(),
            "html": page(f"News {n}", text, OUTLOOK).encode(),
            "pdf": pdf([text]),
            "eml": mail(("text/plain", text)),
        }
        kind = list(kinds)[n % len(kinds)]
        texts[f"{n % 7}/{n:03}.{kind}"] = kinds[kind]
    return texts


@pytest.mark.slow
def test_all_input_formats_give_the_same_results(
    place: Place, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs are a folder, a zip, a tar.zst, S3 and a jsonl.gz; outputs are a folder and S3."""
    place.env.update(s3.env)
    documents = _documents()
    inbox = place.folder / "inbox"
    for name, data in documents.items():
        (inbox / name).parent.mkdir(exist_ok=True)
        (inbox / name).write_bytes(data)
    for key, value in s3.env.items():
        monkeypatch.setenv(key, value)
    store = RemoteStore.open(f"s3://{bucket}", storage={})
    for name, data in documents.items():
        store.put(name, data)
    for form in ("zip", "tar.zst"):
        (place.folder / f"all.{form}").write_bytes(packed(form, documents))
    collected = {}
    for at, uri in enumerate(("inbox", "all.zip", "all.tar.zst", f"s3://{bucket}")):
        for output in (f"out{at}", f"s3://{bucket}-out{at}"):
            place.run("--input", uri, "--output", output)
            lines = _lines(place, output)
            assert len(lines) == COUNT
            collected[uri, output] = {
                line["id"].rpartition("!/")[2]: tuple(line[key] for key in SAME) for line in lines
            }
    reference = collected["inbox", "out0"]
    assert all(value == reference for value in collected.values())
    texts = {name: data for name, data in documents.items() if name.endswith((".txt", ".json"))}
    rows = [{"id": name, "text": json.loads(data)["text"] if name.endswith("json") else data.decode()}
            for name, data in texts.items()]  # fmt: skip
    packed_lines = gzip.compress("\n".join(json.dumps(row) for row in rows).encode())
    (place.folder / "all.jsonl.gz").write_bytes(packed_lines)
    for output in ("out9", f"s3://{bucket}-out9"):
        place.run("--input", "all.jsonl.gz", "--output", output, "--set", "input.id_field=id")
        outputs = {line["id"]: line["output"] for line in _lines(place, output)}
        assert outputs == {name: reference[name][SAME.index("output")] for name in texts}


def _lines(place: Place, output: str) -> list[dict[str, Any]]:
    """Return the results of an output, local or remote."""
    if "://" not in output:
        return [json.loads(line) for line in (place.folder / output / "results.jsonl").read_bytes().splitlines()]
    store = RemoteStore.open(output, storage={})
    return [json.loads(line) for part in store.list("results") for line in store.get(part.key).splitlines()]


def test_run_logs_schema_weaknesses_in_one_line(place: Place) -> None:
    """It is the text of `check` and `try`: `{}` is valid, and a string has no limit."""
    place.documents(1)
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    place.configure({}, agent={"schema": schema})
    ran = place.run()
    (line,) = [line for line in ran.err.splitlines() if "the schema requires nothing" in line]
    assert " WARNING " in line
    assert "no limit at $.properties.text" in line

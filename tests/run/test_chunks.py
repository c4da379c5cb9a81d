"""Plans and chunks: the input is listed once, and each chunk processes its own documents under their usual ids."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import Place
from s3_server import S3Server

from pipeline.config.discovery import ConfigFile
from pipeline.config.loading import load_config
from pipeline.documents import ListingCounts
from pipeline.errors import ConfigError, TryLaterError
from pipeline.output import backend_of
from pipeline.output.chunk_plan import PlanHead, write_head
from pipeline.records import Entry
from pipeline.run.chunks.planning import make_plan
from pipeline.run.listing import InputListing, open_chunk
from pipeline.stores import RemoteStore


def plan(place: Place, *arguments: str, code: int = 0) -> str:
    """Return the output of `pipeline plan`."""
    ran = place.call("plan", *arguments)
    assert ran.code == code, f"{ran.out}\n{ran.err}"
    return ran.out


def chunks_of(place: Place) -> int:
    """Return the number of chunks in the plan."""
    return int(json.loads((place.folder / "out" / "plan.json").read_text(encoding="utf-8"))["chunks"])


def ids_of(place: Place, pattern: str = "results*.jsonl") -> Counter[str]:
    """Return the number of lines of each document in the files of this pattern."""
    paths = sorted((place.folder / "out").glob(pattern))
    return Counter(record["id"] for path in paths for record in place.lines(path.name))


def write_lines(place: Place, numbers: Iterable[int], *, before: str = "") -> None:
    """Write big.jsonl, with a document for each number."""
    lines = (json.dumps({"text": f"[[doc:{n}.txt]] Text {n}. " + "x" * 50}) + "\n" for n in numbers)
    (place.folder / "inbox" / "big.jsonl").write_text(before + "".join(lines), encoding="utf-8")


def test_chunks_process_each_document_once(place: Place) -> None:
    """Chunks are chosen by flag or by the scheduler's index; the last report covers all; a plain run then skips all."""
    place.documents({**{f"d{n}.txt": f"Plain text {n}." for n in range(9)}, "no.png": "x"})
    write_lines(place, range(40))
    output = plan(place, "--chunks", "4")
    assert "Planned 4 chunks: 49 documents" in output
    assert "PIPELINE_CHUNKS=4" in output
    for index in range(3):
        place.run("--chunk", str(index))
        assert place.report()["missing_shards"] == list(range(index + 1, 4))
    place.run(env={"JOB_COMPLETION_INDEX": "3", "PIPELINE_CHUNKS": "4"})
    assert len(ids_of(place)) == 49
    assert set(ids_of(place).values()) == {1}
    assert place.report()["run"]["counts"]["done"] == 49
    assert [row["shard"] for row in place.report()["shards"]] == [f"chunk {n}" for n in range(4)]
    assert sorted(path.name for path in (place.folder / "out").glob("results*")) == [
        f"results-chunk-{n:05d}.jsonl" for n in range(4)
    ]
    place.sent_documents()
    place.run()
    assert place.sent_documents() == []
    assert place.last_run()["counts"]["skipped"] == 49


def test_report_counts_files_ignored_by_each_chunk(place: Place) -> None:
    """Each chunk opens archives of its own, so the files it ignores in them are counted by no other chunk."""
    place.configure({"input.unsupported": "ignore"})
    for name in ("a", "b"):
        with zipfile.ZipFile(place.folder / "inbox" / f"{name}.zip", "w") as archive:
            archive.writestr("x.txt", f"[[doc:{name}.txt]] Plain {name}.")
            archive.writestr("y.bin", bytes(9))
    plan(place, "--chunks", "2")
    for index in range(2):
        place.run("--chunk", str(index))
    counts = place.report()["run"]["counts"]
    assert (counts["found"], counts["done"], counts["ignored"]) == (4, 2, 2)


def test_chunks_together_count_every_file(place: Place) -> None:
    """Chunk 0 reports what the plan ignored, so the chunks' counts add up to those of a run without a plan."""
    settings = {"input.unsupported": "ignore", "input.exclude": ["old/**"]}
    place.configure(settings)
    place.documents({f"d{n}.txt": f"[[doc:d{n}.txt]] Plain {n}." for n in range(6)})
    place.documents({".hidden.txt": "x", "a.png": "x"})
    (place.folder / "inbox" / "old").mkdir()
    (place.folder / "inbox" / "old" / "a.txt").write_text("x", encoding="utf-8")
    plan(place, "--chunks", "3")
    (place.folder / "inbox" / "b.png").write_bytes(b"x")
    assert "Nothing new" in plan(place)
    for index in range(3):
        place.run("--chunk", str(index))
        assert place.last_run()["counts"]["ignored"] == (0 if index else place.report()["run"]["counts"]["ignored"])
    chunks = place.report()["run"]
    place.configure({**settings, "output.uri": "other"})
    place.run()
    whole = json.loads((place.folder / "other" / "report.json").read_text(encoding="utf-8"))["run"]
    assert chunks["counts"] == whole["counts"]
    assert chunks["ignored"] == whole["ignored"] == {".png": 2, "(hidden)": 1, "(excluded folder)": 1}


def test_chunks_skip_documents_done_without_a_plan(place: Place) -> None:
    """This includes the rows of a divided file, whichever chunk holds them."""
    place.documents({"a.txt": "Plain."})
    write_lines(place, range(30))
    place.run()
    place.sent_documents()
    plan(place, "--chunks", "3")
    for index in range(3):
        place.run("--chunk", str(index))
        assert place.last_run()["counts"]["left"] == 0
    assert place.sent_documents() == []
    assert set(ids_of(place).values()) == {1}


@pytest.mark.slow
def test_new_plan_adds_chunks_for_new_files(place: Place) -> None:
    """Changed and removed files keep their chunk, which the plan names; a grown divided file gets new parts."""
    place.documents({"a.txt": "Plain a.", "b.txt": "Plain b."})
    write_lines(place, range(40))
    plan(place, "--chunks", "3")
    for index in range(3):
        place.run("--chunk", str(index))
    assert "Nothing new" in plan(place)
    assert chunks_of(place) == 3
    place.sent_documents()
    place.change("a.txt", "Another text.")
    place.change("c.txt", "New.")
    (place.folder / "inbox" / "b.txt").unlink()
    write_lines(place, range(60))
    output = plan(place)
    assert "Planned 1 chunk: 21 documents" in output
    assert "in 2 files" in output
    assert "--chunk 3" in output
    assert "run again 0, 1, 2" in output
    for index in range(4):
        place.run("--chunk", str(index))
    assert len(place.sent_documents()) == 22
    done = ids_of(place)
    assert done.pop("a.txt") == 2
    assert set(done.values()) == {1}
    assert done.keys() >= {f"big.jsonl#{n}" for n in range(1, 61)} | {"c.txt"}
    assert place.report()["missing_shards"] == []


@pytest.mark.slow
def test_chunk_handles_files_removed_or_changed_since_the_plan(place: Place) -> None:
    """A removed file is reported; a changed file is read in its current state."""
    place.documents({"a.txt": "Plain a.", "b.txt": "Plain b."})
    write_lines(place, range(40))
    plan(place, "--chunks", "1")
    place.change("a.txt", "Another text.")
    (place.folder / "inbox" / "b.txt").unlink()
    ran = place.run("--chunk", "0")
    assert "files of the plan no longer exist: b.txt" in ran.err
    chars = {line["id"]: line["document_chars"] for line in place.lines("results-chunk-00000.jsonl")}
    assert chars["a.txt"] == len("[[doc:a.txt]] Another text.")
    assert ids_of(place).keys() == {"a.txt", *(f"big.jsonl#{n}" for n in range(1, 41))}


@pytest.mark.slow
def test_changed_divided_file_needs_a_new_plan(place: Place) -> None:
    """The chunk exits with 3; after a new plan the chunks keep their numbers and each row is done once."""
    place.documents({"a.txt": "Plain a."})
    write_lines(place, range(40))
    plan(place, "--chunk-bytes", "1000")
    count = chunks_of(place)
    assert count > 2
    write_lines(place, [99, *range(1, 40)])
    ran = place.run("--chunk", "1", code=3)
    assert "divided files have changed since they were planned: big.jsonl" in ran.err
    plan(place)
    assert chunks_of(place) == count
    for index in range(count):
        place.run("--chunk", str(index))
    assert ids_of(place) == Counter(["a.txt", *(f"big.jsonl#{n}" for n in range(1, 41))])


def test_chunk_without_a_matching_plan_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan must exist and have the same settings; each message names the remedy."""
    place.documents({"a.txt": "Plain."})
    monkeypatch.chdir(place.folder)
    app = load_config(ConfigFile(Path("pipeline.yaml")), environ={}, overrides={"output.uri": "out"})
    with pytest.raises(ConfigError, match="`pipeline plan` writes one"):
        open_chunk(app, 0)
    assert make_plan(app, chunks=None, chunk_bytes=None).head.chunks == 1
    with pytest.raises(ConfigError, match="no such chunk, its chunks are 0 to 0"):
        open_chunk(app, 1)
    with pytest.raises(ConfigError, match=r"input\.text_field: differs from the plan"):
        open_chunk(replace(app, input=replace(app.input, text_field="body")), 0)
    with pytest.raises(ConfigError, match=r"input\.id_field"):
        make_plan(replace(app, input=replace(app.input, id_field="id")), chunks=None, chunk_bytes=None)


def test_killed_chunk_is_resumed(place: Place) -> None:
    """No document is lost, and no document with a record is sent again."""
    names = place.documents(60)
    plan(place, "--chunks", "2")
    child = place.start("run", "--chunk", "1", "--concurrency", "2")
    path = place.folder / "out" / "results-chunk-00001.jsonl"
    place.wait_for(lambda: path.exists() and path.read_bytes().count(b"\n") >= 5, "5 results")
    child.process.kill()  # on a fast machine the run may have finished already
    child.process.wait()
    place.run("--chunk", "0")
    place.run("--chunk", "1")
    assert ids_of(place) == Counter(names)


@pytest.mark.slow
def test_same_names_in_two_inputs_share_a_chunk(place: Place, tmp_path: Path) -> None:
    """The repeated id therefore fails as it does without a plan."""
    place.documents({f"d{n}.txt": f"Plain {n}." for n in range(6)})
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d0.txt").write_text("Other.", encoding="utf-8")
    both = ("--input", "inbox", "--input", "more")
    plan(place, *both, "--chunks", "3")
    codes = [place.call("run", *both, "--set", "runner.max_error_rate=1", "--chunk", str(n)).code for n in range(3)]
    assert codes == [0, 0, 0]
    assert ids_of(place) == Counter(f"d{n}.txt" for n in range(6))
    errors = [line for path in (place.folder / "out").glob("errors*") for line in place.lines(path.name)]
    assert [line["reason"] for line in errors] == ["duplicate_id"]


def test_chunks_of_a_bucket_have_the_entries_of_its_listing(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, URIs and versions are those of a listing; a changed object needs a new plan only if it is divided."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    store = RemoteStore.open(f"s3://{bucket}", storage={})
    store.put("in/a.txt", b"Plain.")
    store.put("in/big.jsonl", b"".join(b'{"text": "Text %d."}\n' % n for n in range(200)))
    overrides = {"input.uri": f"s3://{bucket}/in", "output.uri": f"s3://{bucket}/out"}
    app = load_config(None, environ={}, overrides=overrides)
    planned = make_plan(app, chunks=4, chunk_bytes=None)
    assert (planned.head.chunks, planned.documents) == (4, 201)

    def of_chunks() -> list[tuple[str, str, str | None, bytes]]:
        chunks = [open_chunk(app, index) for index in range(planned.head.chunks)]
        listings = [InputListing(app, chunk) for chunk in chunks]
        return [row_of(entry) for listing in listings for entry in listing(ListingCounts())]

    def row_of(entry: Entry) -> tuple[str, str, str | None, bytes]:
        return entry.id, entry.uri, entry.version, entry.read()

    assert of_chunks() == [row_of(entry) for entry in InputListing(app)(ListingCounts())]
    store.put("in/a.txt", b"Another.")
    store.put("in/big.jsonl", b"".join(b'{"text": "Words %d."}\n' % n for n in range(200)))
    with pytest.raises(TryLaterError, match=r"have changed since they were planned: big\.jsonl"):
        of_chunks()
    assert make_plan(app, chunks=None, chunk_bytes=None).changed == [0, 1, 2, 3]
    assert of_chunks() == [row_of(entry) for entry in InputListing(app)(ListingCounts())]
    store.delete("in/a.txt")
    assert make_plan(app, chunks=None, chunk_bytes=None).changed == [0]
    assert len(of_chunks()) == 200


def test_a_parquet_file_in_a_bucket_is_divided_by_row_groups(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part reads the footer, and only its own groups."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    data = io.BytesIO()
    texts = [f"Text {n}. {random.Random(n).random()}" for n in range(300)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), data, row_group_size=25)
    RemoteStore.open(f"s3://{bucket}", storage={}).put("in/rows.parquet", data.getvalue())
    overrides = {"input.uri": f"s3://{bucket}/in", "output.uri": f"s3://{bucket}/out"}
    app = load_config(None, environ={}, overrides=overrides)
    planned = make_plan(app, chunks=3, chunk_bytes=None)
    assert (planned.head.chunks, planned.documents) == (3, 300)
    listings = [InputListing(app, open_chunk(app, index)) for index in range(3)]
    result = [(entry.id, entry.read()) for listing in listings for entry in listing(ListingCounts())]
    assert result == [(entry.id, entry.read()) for entry in InputListing(app)(ListingCounts())]


def test_second_of_two_concurrent_plans_is_refused(tmp_path: Path) -> None:
    """The first plan to be written wins, because chunks may already be using it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x")
    overrides = {"input.uri": str(tmp_path / "in"), "output.uri": str(tmp_path / "out")}
    app = load_config(None, environ={}, overrides=overrides)
    make_plan(app, chunks=None, chunk_bytes=None)
    backend = backend_of(app.output)
    with pytest.raises(TryLaterError, match="another planning has ended meanwhile"):
        write_head(backend, PlanHead(), before=None)


def test_chunks_have_about_equal_bytes(tmp_path: Path) -> None:
    """This holds even when one file is as large as several chunks and the others are small."""
    (tmp_path / "in").mkdir()
    for n in range(300):
        (tmp_path / "in" / f"d{n:03}.txt").write_text("x" * 1000)
    with (tmp_path / "in" / "large.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": "x" * 500}) + "\n" for _ in range(2000))
    overrides = {"input.uri": str(tmp_path / "in"), "output.uri": str(tmp_path / "out")}
    app = load_config(None, environ={}, overrides=overrides)
    planned = make_plan(app, chunks=20, chunk_bytes=None)
    assert planned.head.chunks == 20
    assert planned.most_bytes < 1.1 * planned.bytes / 20
    assert planned.least_bytes > 0.9 * planned.bytes / 20

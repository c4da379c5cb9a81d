"""Two documents with one id: the first is done, the second fails under an id of its own in every run."""

from __future__ import annotations

import json

from conftest import Place

LENIENT = ("--set", "runner.max_error_rate=1")
BY_ID = ("--set", "input.id_field=id")


def lines(*ids: str) -> str:
    """Return JSON Lines with a document for each id."""
    return "".join(json.dumps({"id": id, "text": f"Text {n}."}) + "\n" for n, id in enumerate(ids)) or "\n"


def place_lines(place: Place, *ids: str) -> None:
    """Write the JSONL archive into the inbox."""
    inbox = place.folder / "inbox"
    inbox.mkdir(exist_ok=True)
    (inbox / "x.jsonl").write_text(lines(*ids), encoding="utf-8")


def test_file_listed_twice_fails_under_its_uri(place: Place) -> None:
    """The done document stays done in each later run; the duplicate is recorded under its whole URI."""
    place.documents({"d1.txt": "text", "d2.txt": "text"})
    inputs = ("--input", "inbox", "--input", "inbox/d1.txt")
    for _ in range(2):
        place.run(*LENIENT, *inputs)
        assert sorted(place.done()) == ["d1.txt", "d2.txt"]
        assert list(place.failed().values()) == ["duplicate_id"]
        assert next(iter(place.failed())).startswith("file:///")
    place.run(*LENIENT)
    assert place.last_run()["counts"]["skipped"] == 2
    assert place.report()["output"]["done"] == 2


def test_duplicate_of_a_recent_file_fails_once(place: Place) -> None:
    """The next run reads the recent file again, finds the same bytes under the same id, and sends nothing."""
    place.change("d1.txt", "text")
    inputs = ("--input", "inbox", "--input", "inbox/d1.txt")
    place.run(*LENIENT, *inputs)
    place.run(*LENIENT, *inputs)
    assert place.last_run()["counts"] == {
        "found": 2, "done": 0, "failed": 0, "skipped": 2, "ignored": 0, "left": 0
    }  # fmt: skip
    assert [(line["reason"], line["runs"]) for line in place.lines("errors.jsonl")] == [("duplicate_id", 1)]


def test_each_duplicate_has_its_own_id(place: Place) -> None:
    """With the same folder three times, every document is done once and fails twice, under four ids."""
    place.documents({"d1.txt": "text", "d2.txt": "text"})
    place.run(*LENIENT, "--input", "inbox", "--input", "inbox", "--input", "inbox")
    assert place.done() == {"d1.txt": 1, "d2.txt": 1}
    assert len(place.lines("errors.jsonl")) == len(place.failed()) == 4


def test_former_duplicate_is_sent_when_its_id_is_free(place: Place) -> None:
    """The failure does not stick to the document's bytes."""
    place_lines(place, "k", "k")
    place.run(*LENIENT, *BY_ID)
    assert place.failed() == {"x.jsonl#2": "duplicate_id"}
    place.run(*LENIENT)
    assert sorted(place.done()) == ["k", "x.jsonl#1", "x.jsonl#2"]
    assert place.failed() == {}


def test_shards_count_duplicates_once(place: Place) -> None:
    """However often the shards run, each errors file has its own duplicates once, and the report adds them up."""
    ids = [f"k{n}" for n in range(12)]
    place_lines(place, *ids, *ids)
    for _ in range(3):
        for shard in ("0/2", "1/2"):
            place.run(*LENIENT, *BY_ID, "--shard", shard)
        errors = [line["id"] for n in (0, 1) for line in place.lines(f"errors-0000{n}-of-00002.jsonl")]
        assert sorted(errors) == sorted(f"x.jsonl#{n}" for n in range(13, 25))
        output = place.report()["output"]
        assert (output["done"], output["failed"]) == (12, 12)

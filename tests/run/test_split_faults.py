"""A full disk, and kills with a remote output, within a document: no answered window is sent again."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.planted import counting, planted
from s3_server import S3Server
from test_disk import can_mount, no_larger_files, small_disk
from test_remote_output import configured, keys, store_of
from test_split import expected, items, killing, long_record, narrow, parts, prepared

__all__ = ["narrow", "parts"]


@pytest.mark.parametrize("how", ["limit", "disk"])
def test_full_disk_loses_only_windows_in_flight(place: Place, narrow: FakeLLM, parts: list[str], how: str) -> None:
    """The run exits with 3 and leaves whole lines; with more space the next run sends only the missing windows."""
    if how == "disk" and not can_mount():
        pytest.skip("needs root on Linux to mount a small filesystem")
    document = planted(seed=41, payments=500, chars=90_000, kinds="prose")
    place.documents({"long.txt": document.text})
    prepared(place, narrow, settings={"runner.concurrency": 2}, max_tokens=900, split={"window_tokens": 500})
    with small_disk(place.folder / "out") if how == "disk" else nullcontext(lambda: None) as give_room:
        ran = place.call("run", limits=no_larger_files if how == "limit" else None)
        assert ran.code == 3, ran.err
        assert "out/windows.jsonl: a line of" in ran.err
        assert "Traceback" not in ran.err
        answered = len(place.lines("windows.jsonl"))
        assert f"windows       {answered} answered, 0 long documents ended" in ran.out
        sent = set(parts)
        assert len(parts) == len(sent)
        assert 10 < len(sent) - 2 <= answered
        parts.clear()
        give_room()
        place.run()
        assert len(set(parts) & sent) <= len(sent) - answered
        assert items(long_record(place)) == expected(document)
        assert not (place.folder / "out" / "windows.jsonl").exists()


@pytest.mark.slow
def test_kill_with_a_remote_output_loses_only_unstored_answers(
    place: Place, narrow: FakeLLM, parts: list[str], s3: S3Server, bucket: str
) -> None:
    """With one part per answer these are the window in flight and the answer before it.

    Each next run waits for the lease of the killed one.
    """
    config = configured(s3, bucket)
    document = planted(seed=42, payments=16, chars=20_000)
    place.documents({"long.txt": document.text})
    output = {"output.uri": config.uri, "output.storage": dict(config.storage), "output.part_bytes": 1}
    settings = {"runner.concurrency": 1, "runner.lock_wait_s": 120, **output}
    prepared(place, narrow, settings=settings)
    narrow.answer = counting(killing(place, parts, {3, 9}), parts)
    kills = 0
    while (ran := place.call("run")).code != 0:
        assert ran.code == -9, ran.err
        kills += 1
        assert kills <= 2
    assert kills == 2
    assert len(parts) <= len(set(parts)) + 2 * kills
    (record,) = (json.loads(line) for key in keys(config, "results") for line in store_of(config).get(key).splitlines())
    assert items(record) == expected(document)
    assert record["windows"]["reused"] >= 2
    assert keys(config, "windows") == []
    parts.clear()
    place.run()
    assert parts == []

"""The promises of docs/guarantees.md, checked from the command line.

Each test fails without the line of code that gives what it says.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path

import pytest
from conftest import WAIT_S, Place, everything_below
from fake_llm import FakeLLM
from rival_runs import assert_one_run_gives_way

LENIENT = ("--set", "runner.max_error_rate=1")
JUMPING = """
import datetime, itertools, time
_count, _time = itertools.count(), time.time
def _now():
    number = next(_count)
    return _time() + (-7, 9, 0, -200, 5000)[number // 5 % 5] * 3600
class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(_now(), tz)
time.time, datetime.datetime = _now, Jumping
"""
"""A child with this as its sitecustomize has a wall clock that jumps by hours, forwards and backwards, all the time."""


def test_wall_clock_jumps_have_no_effect(place: Place, server: FakeLLM) -> None:
    """Run numbers, dated retries, lock waits and the skip decision do not depend on the wall clock."""
    names = place.documents({f"d{n}.txt": "[[fault:http_429_date*1]] text" if n % 2 else "text" for n in range(6)})
    (place.folder / "sitecustomize.py").write_text(JUMPING)
    jumping = {"PYTHONPATH": str(place.folder)}
    place.run("--limit", "3", env=jumping)
    server.latency_s = 0.3
    first = place.start("run", env=jumping)
    place.wait_for_results(4)
    second = place.start("run", "--set", "runner.lock_wait_s=30", env=jumping)
    assert [first.end().code, second.end().code] == [0, 0]
    place.change("d0.txt", "another text")
    place.run(env=jumping)
    assert place.done() == {**dict.fromkeys(names, 1), "d0.txt": 2}
    lines = place.lines("results.jsonl")
    assert [line["run"] for line in lines] == [1, 1, 1, 2, 2, 2, 4]
    assert len({line["finished_at"][:13] for line in lines}) > 1, "the clock did not jump"


def test_second_of_two_simultaneous_runs_gives_way(place: Place, server: FakeLLM) -> None:
    """The first run processes all documents; the second names it, and no document is sent twice."""
    names = place.documents(12)
    place.configure({"vllm.timeout": 600})
    one_run_ended = threading.Event()  # the first run cannot end before the second has begun

    def answer(*_: object) -> str:
        one_run_ended.wait(WAIT_S)
        return json.dumps({"summary": "A text."})

    server.answer = answer
    assert_one_run_gives_way(place, one_run_ended)
    assert sorted(place.sent_documents()) == names
    assert place.done() == dict.fromkeys(names, 1)


def test_only_documents_that_kill_their_server_are_left(place: Place, server: FakeLLM) -> None:
    """When only such documents are left, each fails after its losses, and the run ends without an outage."""
    server.restart_s = 0.2
    names = place.documents({f"k{n}.txt": "[[fault:kill]]" for n in range(2)})
    place.run(*LENIENT)
    assert place.failed() == dict.fromkeys(names, "connection_error")
    chats = place.sent_documents()
    # three losses and once alone, each perhaps sent again on a fresh connection
    assert max(chats.count(name) for name in names) <= 8
    assert {line["attempts"] for line in place.lines("errors.jsonl")} <= {1, 2, 3, 4}


LOSSY = """
import sys
from pipeline.cli import main
from pipeline.run import runner
class Lossy(runner.OutcomeWriter):
    def _count(self, outcome, **more):
        if self._runner.run_counts.done == 1 and not hasattr(Lossy, "lost"):
            Lossy.lost = outcome
        else:
            super()._count(outcome, **more)
runner.OutcomeWriter = Lossy
sys.exit(main(["run"]))
"""


def test_counts_that_do_not_add_up_exit_with_70(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that forgets to count one document is detected, in the message and in the report."""
    place.documents(4)
    monkeypatch.setattr("conftest.COMMAND", (sys.executable, "-c", LOSSY))
    ran = place.start().end()
    assert ran.code == 70, ran.err
    assert "do not add up" in ran.err and "INTERNAL ERROR" in ran.out
    assert place.last_run()["counts"] == {"found": 4, "done": 3, "failed": 0, "skipped": 0, "ignored": 0, "left": 0}
    assert len(place.done()) == 4


FAULTY = """
import sys
from pipeline import cli, documents
_decode = documents.decode
def decode(entry, data, **settings):
    if b"private" in data:
        raise ValueError(f"cannot do anything with {data}")
    return _decode(entry, data, **settings)
documents.decode = decode
sys.exit(cli.main(["run", "--set", "runner.max_error_rate=1"]))
"""


def test_internal_error_fails_its_document_without_quoting_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has the traceback without the exception's message, which may quote the document; the others are done."""
    names = place.documents({"a.txt": "a private text", "b.txt": "text", "c.txt": "text"})
    monkeypatch.setattr("conftest.COMMAND", (sys.executable, "-c", FAULTY))
    ran = place.start().end()
    assert ran.code == 0, ran.err
    assert place.failed() == {"a.txt": "internal_error"}
    assert sorted(place.done()) == names[1:]
    assert "Traceback" in ran.err and "InternalError: ValueError in decode line" in ran.err
    assert b"private" not in everything_below(place.folder / "out") + (ran.out + ran.err).encode()


def test_empty_valid_answers_are_reported(place: Place, server: FakeLLM) -> None:
    """The report compares each field's share of empty values and mean item count with the previous run."""
    fields = {"summary": {"type": "string"}, "tickers": {"type": "array", "items": {"type": "string"}}}
    place.configure(agent={"schema": {"type": "object", "properties": fields, "required": [*fields]}})
    place.documents(12)
    server.answer = lambda *_: json.dumps({"summary": "said", "tickers": ["A", "B", "C", "D"]})
    assert "Warnings" not in place.run().out
    server.answer = lambda *_: json.dumps({"summary": "", "tickers": ["A"]})
    ran = place.run("--redo", "all")
    output = " ".join(ran.out.split())
    assert "summary is filled in 0 % of the results; in the run before it was 100 %" in output
    assert "tickers has 1.0 items on average; in the run before it had 4.0" in output
    assert place.last_run()["stats"]["fields"]["summary"]["empty_share"] == 1.0
    assert place.report()["compared"]["fields"]["tickers"]["mean_items"] == 1.0
    assert "in the run before it was 100 %" in (place.folder / "out" / "report.html").read_text()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_key_is_in_no_process_list(place: Place, server: FakeLLM) -> None:
    """A key from the environment never reaches the command line, which every user can read."""
    place.documents(2)
    server.api_key, server.latency_s = "a-secret-key", 1.0
    child = place.start("run", env={"VLLM_API_KEY": "a-secret-key"})
    place.wait_for(lambda: len(server.chats()) > 0, "a request")
    assert b"a-secret-key" not in Path(f"/proc/{child.process.pid}/cmdline").read_bytes()
    assert child.end().code == 0


def written(place: Place) -> list[bytes]:
    """Return the content of the output's files."""
    result = [path.read_bytes() for path in (place.folder / "out").rglob("*") if path.is_file()]
    assert len(result) > 3
    return result


def test_key_in_a_request_field_is_in_no_file(place: Place) -> None:
    """It is in neither the settings nor the request that the run file keeps; other fields are kept."""
    place.documents(2)
    place.configure({"vllm.extra_body": {"gateway_token": "a-secret-key", "seed": 7}})
    place.run()
    assert all(b"a-secret-key" not in data for data in written(place))
    parameters = place.last_run()["config"]["question"]["default"]["parameters"]
    assert parameters == {"gateway_token": "***", "seed": 7}


def test_key_in_a_flag_is_in_no_file(place: Place) -> None:
    """The command that a report suggests lacks the key, wherever in the request fields it was."""
    place.documents(2)
    fields = ("vllm.extra_body.gateway_token=a-secret-key", "vllm.extra_body.seed=7")
    nested = 'vllm.extra_body.gateway={"secret": "a-secret-key"}'
    place.run(*(word for text in (*fields, nested) for word in ("--set", text)))
    assert all(b"a-secret-key" not in data for data in written(place))
    assert place.last_run()["command"].endswith(" --set vllm.extra_body.seed=7")


def test_document_id_cannot_write_outside_the_output(place: Place) -> None:
    """Any id of a row is only an id in a record, never a path."""
    inbox = place.folder / "inbox"
    ids = ["../../escaped", "/tmp/escaped", "a\u0000b", "\x1b[2J", "x" * 5000, "..", ""]
    lines = [json.dumps({"id": name, "text": f"[[doc:{n}.txt]] text"}) for n, name in enumerate(ids)]
    (inbox / "all.jsonl").write_text("\n".join(lines) + "\n")
    before = {path for path in place.folder.rglob("*") if "out" not in path.parts}
    ran = place.run(*LENIENT, "--set", "input.id_field=id")
    assert {path for path in place.folder.rglob("*") if "out" not in path.parts} == before
    paths = [path.relative_to(place.folder / "out") for path in (place.folder / "out").rglob("*")]
    visible_names = {path.name for path in paths if not any(part.startswith(".") for part in path.parts)}
    assert visible_names - {path.name for path in (place.folder / "out" / "runs").iterdir()} == {
        *("results.jsonl", "errors.jsonl", "report.json", "report.html", "runs")
    }
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f]", ran.out + ran.err) == []
    assert {"../../escaped", "/tmp/escaped", ".."} <= set(place.done())

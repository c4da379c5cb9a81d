"""No record holds the answer to another request, whatever the documents, the settings and the ends of the runs.

The server answers with the document's part of the prompt that it was sent, so that a wrong answer can be seen.
`PIPELINE_EXAMPLES=50` times the suite's number of examples looks longer. The runs are real processes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import EXAMPLES, HOUR_AGO, Place, Ran
from contract_model import whole_lines
from fake_llm import FakeLLM, ReceivedRequest
from fake_llm.faults import Fault
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCHEMA = {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}
TEXTS = ("alpha", "béta", "reject delta", "broken epsilon", "flaky zeta")
"""`reject`: the server refuses the document; `broken`: it answers 500; `flaky`: 500 to the first request of a run."""
TEMPLATES = ("«$document»", "«$title|$document»", "«$id|$document»")
QUESTION = re.compile("«(.*)»", re.DOTALL)
CODES = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143}


@dataclass(frozen=True)
class Doc:
    """A document with two texts; the settings choose which one is sent."""

    text: str
    body: str
    title: str

    def fields(self, key: str) -> dict[str, str]:
        """Return the fields of a table row."""
        return {"text": self.text, "body": self.body, "title": self.title, "key": key}


@dataclass(frozen=True)
class Case:
    """The settings of one run and the documents in its input."""

    files: Mapping[str, tuple[Doc, ...]]
    template: str
    text_field: str
    id_field: bool
    deep: bool
    shards: int
    redo: str | None
    ask: bool
    strike: tuple[int, str] | None

    def arguments(self) -> Iterator[str]:
        """Yield the command-line arguments of the run."""
        yield from ("--input", "inbox/sub" if self.deep else "inbox")
        yield from ("--set", f"input.text_field={self.text_field}")
        yield from ("--set", "input.id_field=key") if self.id_field else ()
        yield from ("--redo", self.redo) if self.redo else ()
        yield from ("--set", "runner.duplicates=ask") if self.ask else ()

    def questions(self) -> dict[str, str]:
        """Return the expected prompt of each document."""
        return dict(self._questions())

    def _questions(self) -> Iterator[tuple[str, str]]:
        root = "" if self.deep else "sub/"
        for name, docs in self.files.items():
            for number, doc in enumerate(docs, 1):
                document_id, is_row = f"{root}{name}", name.endswith((".jsonl", ".csv"))
                if is_row:
                    document_id = f"{name}:{number}" if self.id_field else f"{document_id}#{number}"
                elif name.endswith(".zip"):
                    document_id += f"!/m{number}.txt"
                text = getattr(doc, self.text_field) if is_row else doc.text
                values = {"document": text, "title": doc.title if is_row else "", "id": document_id}
                yield document_id, re.sub(r"\$(\w+)", lambda match, v=values: v[match[1]], self.template)[1:-1]


DOCS = st.builds(
    Doc, st.sampled_from(["alpha", *TEXTS]), st.sampled_from(["alpha", *TEXTS]), st.sampled_from(["one", "two"])
)
NAMES = st.sampled_from(["a.txt", "b.txt", "wide.txt", "c.jsonl", "d.jsonl", "e.csv", "f.zip"])
FILES = st.dictionaries(NAMES, st.lists(DOCS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=4).map(
    lambda files: {name: docs[:1] if name.endswith(".txt") else docs for name, docs in files.items()}
)
CASES = st.builds(
    Case,
    FILES,
    st.sampled_from([*TEMPLATES[:2], *TEMPLATES]),
    st.sampled_from(["text", "text", "body"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 1, 2]),
    st.sampled_from([None, None, None, "all", "none"]),
    st.sampled_from([False, False, False, True]),
    st.none() | st.none() | st.tuples(st.integers(1, 6), st.sampled_from([*CODES])),
)


def write(folder: Path, files: Mapping[str, tuple[Doc, ...]]) -> None:
    """Write the input as files with an mtime one hour ago."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, docs in files.items():
        path, rows = folder / name, [doc.fields(f"{name}:{number}") for number, doc in enumerate(docs, 1)]
        if name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        elif name.endswith(".csv"):
            stream = io.StringIO()
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
            path.write_text(stream.getvalue(), encoding="utf-8")
        elif name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as archive:
                for number, doc in enumerate(docs, 1):
                    archive.writestr(f"m{number}.txt", doc.text)
        else:
            path.write_text(docs[0].text, encoding="utf-16" if name == "wide.txt" else "utf-8")
        os.utime(path, (HOUR_AGO, HOUR_AGO))


class World:
    """A folder, a server, and the requests sent in the current run."""

    def __init__(self, folder: Path, server: FakeLLM) -> None:
        self.folder, self.server = folder, server
        self.sent = Counter[str]()
        self.templates: dict[str, str] = {}
        """The template of each fingerprint that was seen."""
        shutil.rmtree(folder / "out", ignore_errors=True)

    def run(self, case: Case) -> None:
        """Run once, or once per shard, and check the records however the run ended."""
        write(self.folder / "inbox" / "sub", case.files)
        agent = {"system_prompt": "Sum up.", "user_prompt": case.template, "schema": SCHEMA}
        (self.folder / "agents" / "small.yaml").write_text(json.dumps(agent), encoding="utf-8")
        for index in range(case.shards):
            shard = ["--shard", f"{index}/{case.shards}"] if case.shards > 1 else []
            before = self.lines()
            ran = self.start([*case.arguments(), *shard], strike=case.strike)
            code = ran.code
            log = (ran.err + ran.out)[-3000:]
            details = f"exit code {code}, {case}, {log}\n{json.dumps(self.lines(), indent=1)}"
            assert "Traceback" not in log, details
            assert code in (0, CODES.get(case.strike[1]) if case.strike else 0), details
            self.check(case, before, details, whole=code == 0, sharded=case.shards > 1)
        if case.strike is None:
            ids = {line["id"] for lines in self.lines().values() for line in lines}
            assert set(case.questions()) <= ids, "a document has no line"

    def check(self, case: Case, before: dict[str, list[Any]], output: str, *, whole: bool, sharded: bool) -> None:
        """Compare the lines and requests of a run with the expected prompts."""
        questions, old = case.questions(), {json.dumps(line) for lines in before.values() for line in lines}
        new = [line for lines in self.lines().values() for line in lines if json.dumps(line) not in old]
        assert len(new) == len({line["id"] for line in new}), f"a document has two lines: {output}"
        results = [line for line in new if "output" in line]
        for line in results:
            assert line["output"]["summary"] == questions[line["id"]], f"another question's answer: {output}"
        for line in new:
            assert self.templates.setdefault(line["fingerprint"], case.template) == case.template
            is_copy = any(note.startswith(("shared:", "reused:")) for note in line["notes"])
            assert is_copy == (line["attempts"] == 0), output
            assert not is_copy or line.get("reason") != "server_error", f"a server's failure was shared: {output}"
        if case.ask or case.redo == "all":
            assert not any(line["attempts"] == 0 for line in new), output
            return
        for question, times in self.sent.items():
            plain = not re.search("reject|broken|flaky", question)
            assert times == 1 or not plain, f"{question!r} was sent {times} times: {output}"
        if whole and not sharded:
            latest = {line["id"]: line for line in before["results"]}
            answered = Counter(
                line["output"]["summary"]
                for line in latest.values()
                if self.templates[line["fingerprint"]] == case.template
            )
            own = {line["id"]: line["output"]["summary"] for line in latest.values()}
            for line in results:
                others = answered[questions[line["id"]]] - (own.get(line["id"]) == questions[line["id"]])
                is_unique = "$id" in case.template
                # the table of answered questions keeps one document for each, which may be this one itself
                assert not line["attempts"] or is_unique or others <= 0 or line["id"] in own, f"asked again: {output}"

    def start(self, arguments: list[str], *, strike: tuple[int, str] | None) -> Ran:
        """Run the command and send it a signal while its n-th request is waiting."""
        self.sent.clear()
        is_known, pids, lock = threading.Event(), list[int](), threading.Lock()

        def fault(request: ReceivedRequest, _: int) -> Fault | None:
            match = QUESTION.search(str(request.body["messages"][-1]["content"]))
            if match is None or not match[1].strip("|"):
                return None  # a probe
            with lock:
                self.sent[match[1]] += 1
                is_it = strike is not None and self.sent.total() == strike[0]
                times = self.sent[match[1]]
            if is_it and strike is not None and is_known.wait(10):
                os.kill(pids[0], getattr(signal, strike[1]))
            if "reject" in match[1]:
                return Fault("http_400")
            return Fault("http_500") if "broken" in match[1] or ("flaky" in match[1] and times == 1) else None

        self.server.faults = fault
        child = Place(self.folder, self.server).start("run", *arguments)
        pids.append(child.process.pid)
        is_known.set()
        return child.end()

    def lines(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records of the output, of all shards, in the order of their runs."""
        collected: dict[str, list[dict[str, Any]]] = {"results": [], "errors": []}
        for path in sorted((self.folder / "out").glob("*.jsonl")):
            kind = "results" if path.name.startswith("results") else "errors"
            if path.name != "accepted.jsonl":
                collected[kind] += whole_lines(path)[0]
        return {kind: sorted(lines, key=lambda line: int(line["run"])) for kind, lines in collected.items()}


def answer(prompt: str, _schema: Mapping[str, Any] | None) -> str:
    """Return the document's part of the prompt."""
    match = QUESTION.search(prompt)
    return json.dumps({"summary": match[1] if match else ""})


@contextmanager
def worlds(folder: Path) -> Iterator[Any]:
    """Yield a function that makes worlds in one folder with one server."""
    (folder / "agents").mkdir()
    with FakeLLM(("small",), answer=answer) as server:
        provider = {"base_url": server.url, "model": "small", "max_retries": 0, "retry_base_delay": 0.01}
        config = {
            "provider": "vllm",
            "agent": "small",
            "agents_dir": "agents",
            "input": {"min_documents": 0},
            "output": {"uri": "out"},
            "fallback": [],
            "vllm": provider,
            "runner": {"concurrency": 3, "max_error_rate": 1, "fail_fast": 0, "abort_error_rate": 1, "lock_wait_s": 5},
        }
        (folder / "pipeline.yaml").write_text(json.dumps(config), encoding="utf-8")
        yield lambda: World(folder, server)


def play(folder: Path, *, examples: int) -> None:
    """Run this number of generated histories of two or three runs."""
    with worlds(folder) as new_world:

        @settings(max_examples=examples, deadline=None, suppress_health_check=[*HealthCheck], database=None)
        @given(st.lists(CASES, min_size=2, max_size=3))
        def history(cases: list[Case]) -> None:
            world = new_world()
            for case in cases:
                world.run(case)

        history()


def test_records_hold_the_answer_to_their_own_request(tmp_path: Path) -> None:
    """A few histories of runs with any settings, any documents, stops and kills."""
    play(tmp_path, examples=8)


@pytest.mark.slow
def test_records_hold_the_answer_to_their_own_request_in_many_histories(tmp_path: Path) -> None:
    """The same property over many histories."""
    play(tmp_path, examples=60 * EXAMPLES)

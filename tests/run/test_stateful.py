"""Any interleaving of runs, kills and changes leaves the results and errors that a model of the contract predicts.

`PIPELINE_EXAMPLES=50` times the suite's number of examples looks longer. The runs are real processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import EXAMPLES, Place, Ran
from contract_model import KINDS, NEVER_SENT, RETRY_RUNS, Doc, Flags, Model, whole_lines
from fake_llm import FakeLLM, ReceivedRequest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

STEPS = 16
CONCURRENCY = 3
DAY_S = 86400
NAMES = [f"{folder}d{number}.txt" for folder in ("", "sub/") for number in range(4)]
CODES = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}
SCHEMA = {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}
CONFIG = {
    "provider": "vllm",
    "agent": "small",
    "agents_dir": "agents",
    "input": {"uri": "inbox", "min_documents": 0},
    "output": {"uri": "out"},
    "fallback": [],
    "runner": {"concurrency": CONCURRENCY, "lock_wait_s": 5, "retry_runs": RETRY_RUNS, "max_error_rate": 1},
}


def answer(prompt: str, _schema: Mapping[str, Any] | None) -> str:
    """Return the revision and the prompt number, so that answers can be distinguished."""
    return json.dumps({"summary": " ".join(re.findall(r"(?:revision|question) (\d+)", prompt))})


class World(RuleBasedStateMachine):
    """An inbox, an output, a server, and the operations on them."""

    server: ClassVar[FakeLLM]
    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        for name in ("inbox", "out"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "inbox" / "sub").mkdir(parents=True)
        self.model, self.docs, self.questions = Model(), dict[str, Doc](), dict[str, int]()
        self.written = self.runs = 0
        self.is_tidy, self.is_wrong = True, False
        self.ask(0)

    # ---- what happens outside

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(["", "", "", *KINDS]), fresh=st.booleans())
    def put(self, name: str, kind: str, fresh: bool) -> None:
        """Add or change a document; a fresh one has an mtime too recent to rely on."""
        self.written += 1
        data = f"[[doc:{name}]] revision {self.written} {kind}".encode() if kind.strip() else b" " * self.written
        data = f"[[doc:{name}]] revision {self.written}".encode() if kind == "" else data
        # one NUL in a text is an invalid byte; this many are invalid in every encoding, at any position
        data = data + bytes(64) if kind == "\0" else data
        path = self.folder / "inbox" / name
        path.write_bytes(data)
        if not fresh:
            then = path.stat().st_mtime - DAY_S + self.written
            os.utime(path, (then, then))
        self.docs[name] = Doc(kind, self.written, data)

    @rule(data=st.data())
    @precondition(lambda self: self.docs)
    def touch(self, data: st.DataObject) -> None:
        """Rewrite a document with the same bytes."""
        name = data.draw(st.sampled_from(sorted(self.docs)))
        (self.folder / "inbox" / name).write_bytes(self.docs[name].data)

    @rule(data=st.data())
    @precondition(lambda self: self.docs)
    def delete(self, data: st.DataObject) -> None:
        """Delete a document; its lines remain."""
        name = data.draw(st.sampled_from(sorted(self.docs)))
        (self.folder / "inbox" / name).unlink()
        del self.docs[name]

    @rule(question=st.integers(0, 2))
    def ask(self, question: int) -> None:
        """Change the prompt to another or an earlier one."""
        self.question = question
        agent = {"system_prompt": f"question {question}", "user_prompt": "$document", "schema": SCHEMA}
        (self.folder / "agents" / "small.yaml").write_text(json.dumps(agent))

    @rule(kind=st.sampled_from(["results", "errors"]), size=st.integers(1, 3000))
    def cut_power(self, kind: str, size: int) -> None:
        """Truncate a file, as if its end had never reached the disk."""
        path = self.folder / "out" / f"{kind}.jsonl"
        if path.exists():
            os.truncate(path, max(0, path.stat().st_size - size))
            self.is_tidy = False
            self.model = Model.read(self.lines(), self.questions)

    # ---- runs

    @rule(
        redo=st.sampled_from([None, None, None, "none", "all", "changed"]),
        only=st.sampled_from([None, None, None, "", "rejected,timeout", "schema_invalid"]),
        retry=st.sampled_from([True, True, False]),
        limit=st.sampled_from([None, None, 1, 2, 5]),
        is_same_id=st.booleans(),
        strike=st.none() | st.tuples(st.integers(1, 9), st.sampled_from([*CODES])),
    )
    def run(
        self,
        redo: str | None,
        only: str | None,
        retry: bool,
        limit: int | None,
        is_same_id: bool,
        strike: tuple[int, str] | None,
    ) -> None:
        """Run the command and send it a signal while its n-th request is waiting."""
        self.runs += 1
        reasons = None if only is None else frozenset(filter(None, only.split(",")))
        run_id = "again" if is_same_id else f"run-{self.runs}"
        self.go(Flags(run_id, redo, reasons, retry, limit), strike)

    def go(self, flags: Flags, strike: tuple[int, str] | None = None) -> None:
        """Run the command and compare the outcome with the model."""
        self.is_wrong = True
        question, expected = self.question, self.expected_requests(flags)
        due, number = expected[: flags.limit], 1 + self.highest_run()
        ran = self.start(flags, strike)
        code = ran.code
        sent = {chat.document for chat in self.server.chats() if chat.document in NAMES}
        must_send = {name for name in due if self.docs[name].kind not in NEVER_SENT}
        new = [line for lines in self.lines().values() for line in lines if line["run"] >= number]
        recorded = [line["id"] for line in new]
        details = f"exit code {code}, {flags}, {strike}\n{(ran.err + ran.out)[-3000:]}"
        assert {(line["run"], line["run_id"]) for line in new} <= {(number, flags.run_id)}, details
        assert len(recorded) == len(set(recorded)), details
        assert "Traceback" not in details
        if code == 0:
            assert (sorted(recorded), sent) == (sorted(due), must_send), details
        else:
            assert strike is not None and code == CODES[strike[1]], details
            assert set(recorded) <= set(due) and sent <= must_send, details
            assert len(sent - set(recorded)) <= CONCURRENCY, details
            # retryable documents are left for the next run, as is a refusal that no other answer has confirmed
            unsettled = {self.docs[name].reason for name in sent - set(recorded)}
            assert code == -9 or unsettled <= {"server_error", "rejected"}, details
        for line in new:
            assert self.questions.setdefault(line["fingerprint"], question) == question, details
            self.model.note(line["id"], self.docs[line["id"]], question=question, flags=flags)
        self.is_tidy = code != -signal.SIGKILL
        if code == 0 and flags.limit is None:
            self.check_counts(expected, flags)
        self.is_wrong = False

    @invariant()
    def holds(self) -> None:
        """Results and errors equal the model; only a killed run may leave a broken end or an outdated error."""
        lines = self.lines()
        results = {name: [] for name in self.model.results} | {line["id"]: list[str]() for line in lines["results"]}
        for line in lines["results"]:
            results[line["id"]].append(line["sha256"])
        assert results == self.model.results
        newest = {line["id"]: line for line in lines["results"]}
        for name, last in self.model.last.items():
            if last.reason is None and name in self.docs and self.docs[name].sha256 == last.sha256:
                summary = f"{last.question} {self.docs[name].revision}"
                assert newest[name]["output"] == {"summary": summary}
        failures = {line["id"]: (line["reason"], line["runs"], line["sha256"]) for line in lines["errors"]}
        if self.is_tidy:
            assert failures == self.model.standing()
            assert len(failures) == len(lines["errors"])
        else:
            assert self.model.standing().items() <= failures.items()

    def teardown(self) -> None:
        """Two undisturbed runs end well after any history."""
        for number in () if self.is_wrong else (1, 2):
            self.go(Flags(f"peace-{number}"))
            self.holds()

    # ---- operations

    def expected_requests(self, flags: Flags) -> list[str]:
        """Return the documents that a run must try, in listing order."""
        tries = self.model.tries
        return [n for n in sorted(self.docs) if tries(n, self.docs[n], question=self.question, flags=flags)]

    def start(self, flags: Flags, strike: tuple[int, str] | None) -> Ran:
        """Start the command and return how it ended."""
        self.server.requests.clear()
        is_known, pids, lock, count = threading.Event(), list[int](), threading.Lock(), Counter[str]()

        def hook(request: ReceivedRequest, _n: int) -> None:
            with lock:
                count["asked"] += request.document in NAMES
                is_it = strike is not None and request.document in NAMES and count["asked"] == strike[0]
            if is_it and strike is not None and is_known.wait(10):
                os.kill(pids[0], getattr(signal, strike[1]))

        self.server.faults = hook
        child = Place(self.folder, self.server).start("run", *flags.arguments())
        pids.append(child.process.pid)
        is_known.set()
        return child.end()

    def lines(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records of the output."""
        collected = {}
        for kind in ("results", "errors"):
            collected[kind], is_broken = whole_lines(self.folder / "out" / f"{kind}.jsonl")
            assert not (is_broken and self.is_tidy), f"{kind}.jsonl holds a broken line"
        return collected

    def highest_run(self) -> int:
        """Return the highest run number in the output."""
        runs = [json.loads(path.read_text()) for path in (self.folder / "out" / "runs").glob("*.json")]
        lines = self.lines()
        return max((record["run"] for record in [*runs, *lines["results"], *lines["errors"]]), default=0)

    def check_counts(self, to_send: list[str], flags: Flags) -> None:
        """Check that the report of a finished run has the right counts of the run and of the output."""
        report = json.loads((self.folder / "out" / "report.json").read_text())
        failed = sum(self.docs[name].reason is not None for name in to_send)
        remaining = 0 if flags.only_failed is None else len(set(self.docs) - set(self.model.last))
        expected = {
            "found": len(self.docs),
            "done": len(to_send) - failed,
            "failed": failed,
            "ignored": 0,
            "left": remaining,
        }
        expected["skipped"] = len(self.docs) - len(to_send) - remaining
        assert report["run"]["counts"] == expected
        output = report["output"]
        assert (output["done"], output["failed"], output["stale"]) == self.model.output_counts()


@pytest.mark.slow
def test_any_interleaving_matches_the_model(tmp_path: Path) -> None:
    """Runs with any flags, kills, power cuts and changes of documents and prompt, in any order."""
    (tmp_path / "agents").mkdir()
    World.folder = tmp_path
    with FakeLLM(("small",), answer=answer) as World.server:
        provider = {"base_url": World.server.url, "model": "small", "max_retries": 1, "retry_base_delay": 0.01}
        (tmp_path / "pipeline.yaml").write_text(json.dumps({**CONFIG, "vllm": provider}))
        run_state_machine_as_test(
            World,
            settings=settings(
                max_examples=40 * EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )

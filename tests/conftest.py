"""Fixtures of the end-to-end tests: the installed command in a child process, a fake server, and a work folder.

A `Place` is what a user has: a folder with a config file, an agent, documents and an output. The server runs in this
process, the pipeline never does.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from fake_llm import FakeLLM
from fork_server import ForkedProcess, ForkServer, can_fork
from hypothesis import settings
from s3_server import S3Server, s3_server
from terminals import until_closed

from pipeline.logs import active_handler

# thousands of commands start below; without bytecode each would compile the program: four times the CPU of a start
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# no property depends on the machine's speed, even without settings of its own
settings.register_profile("project", parent=settings.default, deadline=None)
settings.load_profile("project")

_INSTALLED = Path(sys.executable).with_name("pipeline")
COMMAND = (str(_INSTALLED),) if _INSTALLED.exists() else (sys.executable, "-m", "pipeline")
PACKAGE_PARENT = Path(__file__).resolve().parent.parent
WAIT_S = 120.0
EXAMPLES = int(os.environ.get("PIPELINE_EXAMPLES", "1"))
"""How many times more examples the long tests of properties look at than in the suite."""
HOUR_AGO = time.time() - 3600

AGENT = {
    "description": "one sentence about a text",
    "system_prompt": "Sum the text up.\n",
    "user_prompt": "$document\n",
    "max_tokens": 200,
    "schema": {
        "type": "object",
        "properties": {"summary": {"type": "string", "minLength": 1}},
        "required": ["summary"],
        "additionalProperties": False,
    },
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many tests run side by side: they wait for servers and processes more than half of their time."""
    return 3 * (os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Leave the thousands of collected tests out of each garbage collection."""
    gc.freeze()


def is_interrupt_ignored() -> bool:
    """Return True in a background job of a shell, whose children would ignore SIGINT as well."""
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def _prepare(limits: Callable[[], None] | None) -> None:
    """Prepare a child: enable SIGINT and set its limits."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if limits is not None:
        limits()


@cache
def fork_server() -> ForkServer:
    """Return the fork server of this process, which ends with it."""
    return ForkServer()


@dataclass(frozen=True, slots=True)
class Ran:
    """The exit code and the output of a finished command."""

    code: int
    out: str
    err: str


@dataclass
class Child:
    """A running command."""

    process: subprocess.Popen[str] | ForkedProcess

    def end(self, signal_number: int | None = None) -> Ran:
        """Send the signal, if any, and return the finished command; fail if it hangs."""
        if signal_number is not None:
            self.process.send_signal(signal_number)
        out, err = self.process.communicate(timeout=WAIT_S)
        return Ran(self.process.returncode, out, err)


@dataclass
class Place:
    """A folder to work in, with its server. `settings` are dotted keys over what `configure` writes by itself."""

    folder: Path
    server: FakeLLM
    env: dict[str, str] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)

    def configure(self, settings: Mapping[str, Any] | None = None, *, agent: Mapping[str, Any] | None = None) -> None:
        """Write the config file (JSON is YAML), and the agent's file if it differs."""
        tree: dict[str, Any] = {}
        for key, value in {**self._usual(), **(settings or {})}.items():
            *parents, last = key.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        write_whole(self.folder / "pipeline.yaml", json.dumps(tree))
        path, text = self.folder / "agents" / "small.yaml", json.dumps({**AGENT, **(agent or {})})
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)

    def _usual(self) -> dict[str, Any]:
        quick = {"retry_base_delay": 0.01, "retry_max_delay": 0.1, "timeout": 20}
        return {
            "provider": "vllm",
            "agent": "small",
            "agents_dir": "agents",
            "input.uri": "inbox",
            "output.uri": "out",
            "vllm.base_url": self.server.url,
            "vllm.model": "llama3.1",
            **{f"vllm.{key}": value for key, value in quick.items()},
            "fallback": [],
            "runner.concurrency": 4,
            "runner.startup_wait_s": 10,
            "runner.lock_wait_s": 0,
        }

    def documents(self, texts: Mapping[str, str] | int) -> list[str]:
        """The names of the documents it writes, an hour old; a number: that many plain ones.

        Each names itself to the server. A document that was written just now would be read again by the next run.
        """
        plain = (
            {f"d{n:03}.txt": f"A plain text, number {n}." for n in range(texts)} if isinstance(texts, int) else texts
        )
        for name, text in plain.items():
            path = self.folder / "inbox" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"[[doc:{name}]] {text}", encoding="utf-8")
            os.utime(path, (HOUR_AGO, HOUR_AGO))
        return sorted(plain)

    def change(self, name: str, text: str) -> None:
        """Give a document another text, with the current time."""
        (self.folder / "inbox" / name).write_text(f"[[doc:{name}]] {text}", encoding="utf-8")

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        limits: Callable[[], None] | None = None,
        stdout: str | None = None,
    ) -> Child:
        """Start the command in the folder with the folder's config; `stdout`: a file instead of a pipe."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("VLLM_", "OLLAMA_", "PIPELINE_", "COLUMNS"))
        }
        environment = {**clean, "PIPELINE_CONFIG": "pipeline.yaml", **self.env, **(env or {})}
        if limits is None and len(COMMAND) == 1 and can_fork(environment):
            command = [COMMAND[0], *arguments]
            process = fork_server().start(command, cwd=self.folder, env=environment, stdout=stdout)
            self.children.append(Child(process))
            return self.children[-1]
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=Path(stdout).open("w") if stdout else subprocess.PIPE,  # noqa: SIM115
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            preexec_fn=partial(_prepare, limits) if limits or is_interrupt_ignored() else None,
        )
        self.children.append(Child(process))
        return self.children[-1]

    def call(
        self, *arguments: str, env: Mapping[str, str] | None = None, limits: Callable[[], None] | None = None
    ) -> Ran:
        """Run the command and return how it ended."""
        return self.start(*arguments, env=env, limits=limits).end()

    def on_terminal(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """Run the command with a terminal as its stdout, and return how it ended."""
        terminal, terminal_of_command = os.openpty()
        child = self.start(*arguments, env={"TERM": "xterm", **(env or {})}, stdout=os.ttyname(terminal_of_command))
        os.close(terminal_of_command)
        text = until_closed(terminal)
        ran = child.end()
        return Ran(ran.code, text, ran.err)

    def run(self, *arguments: str, code: int = 0, env: Mapping[str, str] | None = None) -> Ran:
        """Run `pipeline run`, which must end with this exit code."""
        ran = self.call("run", *arguments, env=env)
        assert ran.code == code, f"exit code {ran.code}, need {code}\n{ran.out}\n{ran.err}"
        return ran

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the records of a file of the output, in which every line must be whole JSON."""
        path = self.folder / "out" / name
        data = path.read_bytes() if path.exists() else b""
        assert data == b"" or data.endswith(b"\n"), f"{name} ends in a piece of a line"
        return [json.loads(line) for line in data.decode("utf-8").splitlines()]

    def done(self) -> Counter[str]:
        """Return the number of result lines of each document."""
        return Counter(line["id"] for line in self.lines("results.jsonl"))

    def failed(self) -> dict[str, str]:
        """Return the reason of each failed document."""
        return {line["id"]: line["reason"] for line in self.lines("errors.jsonl")}

    def report(self) -> Any:
        """Return the report of the output."""
        return json.loads((self.folder / "out" / "report.json").read_text(encoding="utf-8"))

    def last_run(self) -> Any:
        """Return the summary of the newest run."""
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in (self.folder / "out" / "runs").glob("*.json")]
        return max(runs, key=lambda run: int(run["run"]))

    def sent_documents(self) -> list[str]:
        """Return the documents sent in chats since the last call, in order, without probes."""
        chats = [chat.document for chat in self.server.chats() if chat.document.endswith((".txt", ".json", ".csv"))]
        self.server.requests.clear()
        return chats

    def wait_for(self, condition: Callable[[], bool], event: str) -> None:
        """Return as soon as the condition holds; fail if the running command has ended."""
        child, until = self.children[-1].process, time.monotonic() + WAIT_S
        while not condition():
            if child.poll() is not None and not condition():
                raise AssertionError(f"ended with {child.returncode} before {event}\n{child.communicate()[1]}")
            assert time.monotonic() < until, f"waited {WAIT_S:g} s for {event}"
            time.sleep(0.02)

    def wait_for_results(self, count: int) -> None:
        """Return when the output has at least this many results."""
        path = self.folder / "out" / "results.jsonl"
        self.wait_for(lambda: path.exists() and path.read_bytes().count(b"\n") >= count, f"{count} results")


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step, as configuration management does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def line_with(child: Child, text: str) -> str:
    """Return the next line of the command's log that has this text."""
    assert child.process.stderr is not None
    return next(line for line in child.process.stderr if text in line)


def json_log(text: str) -> list[dict[str, Any]]:
    """Return the lines of a JSON log."""
    return [json.loads(line) for line in text.splitlines()]


def everything_below(folder: Path, but: Sequence[str] = ()) -> bytes:
    """Return all bytes of all files of a folder, names included."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but]
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)


@pytest.fixture(autouse=True)
def _no_log_handler_left() -> Iterator[None]:
    """Remove the log handler of a command that ran in this process: its stream is closed when the test ends."""
    yield
    handler = active_handler()
    if handler is not None:
        logging.getLogger().removeHandler(handler)
        handler.close()


@pytest.fixture
def server() -> Iterator[FakeLLM]:
    """Yield a server with one model, as Ollama and as vLLM, that answers at once."""
    with FakeLLM(("llama3.1",), restart_s=0.5) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, server: FakeLLM) -> Iterator[Place]:
    """Yield a configured folder without documents; end commands that still run after the test."""
    new_place = Place(tmp_path, server)
    new_place.configure()
    (tmp_path / "inbox").mkdir()
    yield new_place
    for child in new_place.children:
        child.process.kill()
        child.process.communicate()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """Yield one S3 server for all tests; each test uses its own prefix."""
    with s3_server() as running:
        yield running


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """Return a bucket and an unused prefix in it; all share one bucket, because each takes seven of 50 volumes."""
    return f"tests/{secrets.token_hex(6)}"

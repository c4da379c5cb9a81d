"""Shared parts of the benchmarks: the stub server as a child, a site with documents and a config, costs, a table.

It must not judge a figure.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench.server import MODEL, schema

SCRIPTS = Path(__file__).resolve().parent
"""The folder of `python scripts/bench NAME`."""
COMMAND = (sys.executable, "-m", "pipeline")
AGENT = {
    "description": "a schema of twenty fields",
    "system_prompt": "You read one news text for investors and answer with one JSON object as the schema says.\n" * 6,
    "user_prompt": "<document>\n$document\n</document>\n",
    "max_tokens": 1024,
    "schema": schema(),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a child process: CPU seconds, and peak memory in megabytes."""

    cpu_s: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Stats:
    """The stub's counts of documents: times of the first request and the last answer, answers; and its own CPU.

    Times are of the monotonic clock. The requests of a preflight don't count.
    """

    first: float
    last: float
    answered: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table of all benchmarks: the quantity, its value, and its aim, if any."""

    quantity: str
    result: str
    aim: str = ""


class Stub:
    """The stub server, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self.url = f"http://127.0.0.1:{process.stdout.readline().strip()}"

    def stats(self) -> Stats:
        """Return the counts since the last call."""
        return self._ask("stats")

    def peek(self) -> Stats:
        """Return the counts without a reset."""
        return self._ask("peek")

    def _ask(self, page: str) -> Stats:
        with urllib.request.urlopen(f"{self.url}/{page}", timeout=10) as reply:
            stats = json.load(reply)
        return Stats(**stats)


@contextmanager
def stub_server(latency_s: float, *, answer: str | None = None) -> Iterator[Stub]:
    """Yield a stub that answers after this time, with this text if one is given; end it with the block."""
    command = [sys.executable, str(SCRIPTS), "server", "--latency", str(latency_s)]
    command += [] if answer is None else ["--answer", answer]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Stub(process)
        finally:
            process.kill()


def text_of(size: int, number: int) -> str:
    """Return a text of this many characters, a different one for each number."""
    return "".join(islice(cycle(f"In quarter {number} profits rose by a tenth, said the board. "), size))


def write_site(
    folder: Path, url: str, *, dialect: str, settings: Mapping[str, Any], agent: Mapping[str, Any] = AGENT
) -> None:
    """Write the config (dotted keys override the usual ones) and the agent."""
    usual = {
        "provider": dialect,
        "agent": "bench",
        "agents_dir": "agents",
        "fallback": [],
        "input.uri": "inbox",
        "output.uri": "out",
        f"{dialect}.base_url": url,
        f"{dialect}.model": MODEL,
    }
    tree: dict[str, Any] = {}
    for key, value in {**usual, **settings}.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    (folder / "agents").mkdir(parents=True, exist_ok=True)
    (folder / "agents" / "bench.yaml").write_text(json.dumps(agent), encoding="utf-8")
    (folder / "pipeline.yaml").write_text(json.dumps(tree), encoding="utf-8")


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of the pipeline except the config file's path."""
    prefixes = ("VLLM_", "OLLAMA_", "PIPELINE_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return {**clean, "PIPELINE_CONFIG": "pipeline.yaml"}


def measured(command: Sequence[str], folder: Path) -> Cost:
    """Run a child and return its cost; RuntimeError with the end of its log if it fails."""
    with (folder / "child.log").open("w", encoding="utf-8") as log:
        child = subprocess.Popen(
            command, cwd=folder, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        log_end = (folder / "child.log").read_text(encoding="utf-8")[-2000:]
        raise RuntimeError(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}\n{log_end}")
    return Cost(usage.ru_utime + usage.ru_stime, peak_mb_of(usage))


def peak_mb_of(usage: resource.struct_rusage) -> float:
    """Return the peak of the resident memory; Linux counts in kilobytes, macOS in bytes."""
    return usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def own_peak_mb() -> float:
    """Return this process's own peak; on some kernels it includes that of the parent at the start."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return peak_mb_of(resource.getrusage(resource.RUSAGE_SELF))
    return int(status.split("VmHWM:")[1].split()[0]) / (1 << 10)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with aligned columns."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])

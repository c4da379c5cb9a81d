"""Trial of a million documents in a thousand chunks: plan, run by a few slots with kills, check. About an hour.

    python scripts/million --keep /tmp/million                  1,000,000 documents, 1,000 chunks, 2 slots
    python scripts/million --documents 2000 --chunks 10         a minute

Each chunk is a real `pipeline run --chunk I`; some of them get a SIGKILL and run again, as under a scheduler. The model
server costs as little as possible. With --keep, the same command resumes after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.site import clean_environment
from fleet_site import disk_of

from million.server import MODEL_NAME, SCHEMA, started, stats

IN_FLIGHT = 8
FILE_DOCUMENTS = 10_000
_ID = re.compile(rb'"id":"(\d+)\.jsonl#(\d+)"')
_TEXT = "Profits rose by a tenth, while the supply chain held and interest rates fell. " * 2
_PIPELINE = str(Path(sys.executable).with_name("pipeline"))


@dataclass(frozen=True, slots=True)
class Run:
    """The end of one command. `tail_s`: seconds from the last answer to the exit. `disk`: most bytes in TMPDIR."""

    chunk: int
    code: int
    answers: int
    seconds: float
    cpu_s: float
    tail_s: float
    memory_mb: float
    disk: float


@dataclass(slots=True)
class Trial:
    """The folder of a trial, its size, and the commands that have ended."""

    root: Path
    documents: int
    chunks: int
    kills: set[int]
    ends: list[Run] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fill(self) -> None:
        """Write the input, the agent and the configuration, unless they exist."""
        if (self.root / "pipeline.yaml").exists():
            lines = (self.root / "ends.jsonl").read_text().splitlines()
            self.ends = [Run(**json.loads(line)) for line in lines]
            return
        (self.root / "in").mkdir(parents=True)
        (self.root / "agents").mkdir()
        agent = {"system_prompt": "Sum up.", "user_prompt": "$document", "max_tokens": 200, "schema": SCHEMA}
        (self.root / "agents" / "small.yaml").write_text(json.dumps(agent))
        for start in range(0, self.documents, FILE_DOCUMENTS):
            numbers = range(start, min(self.documents, start + FILE_DOCUMENTS))
            texts = (json.dumps({"text": f"[[doc:{number:08d}]] {_TEXT}"}) + "\n" for number in numbers)
            (self.root / "in" / f"{start // FILE_DOCUMENTS:05d}.jsonl").write_text("".join(texts))
        (self.root / "asked.bin").write_bytes(bytes(self.documents))
        (self.root / "ends.jsonl").touch()
        settings = {
            "provider": "vllm", "agent": "small", "agents_dir": "agents", "fallback": [],
            "input": {"uri": "in"}, "output": {"uri": "out"},
            "vllm": {"model": MODEL_NAME}, "runner": {"concurrency": IN_FLIGHT},
        }  # fmt: skip
        (self.root / "pipeline.yaml").write_text(json.dumps(settings))

    def run(self, chunk: int, port: int, *, is_killed: bool) -> Run:
        """Run a chunk, or kill it in the middle; return its costs."""
        stats(port, reset=True)
        end_at = random.Random(chunk).randrange(1, max(2, self.documents // self.chunks)) if is_killed else 0
        command = ["run", "--quiet", "--chunk", str(chunk)]
        end = self.command(*command, url=f"http://127.0.0.1:{port}", chunk=chunk, port=port, end_at=end_at)
        with self.lock, (self.root / "ends.jsonl").open("a") as stream:
            self.ends.append(end)
            stream.write(json.dumps(asdict(end)) + "\n")
        return end

    def command(self, *command: str, url: str = "", chunk: int = -1, port: int = 0, end_at: int = 0) -> Run:
        """Run a command; SIGKILL it after `end_at` answers, if that is not 0."""
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="million-") as scratch, (self.root / "log.txt").open("ab") as log:
            environ = {**clean_environment(), "TMPDIR": scratch, "VLLM_BASE_URL": url}
            child = subprocess.Popen([_PIPELINE, *command], cwd=self.root, env=environ, stdout=log, stderr=log)
            disk = 0
            while True:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    break
                disk = max(disk, disk_of(child.pid, scratch))
                if end_at and stats(port, reset=False)["answered"] >= end_at:
                    os.kill(child.pid, signal.SIGKILL)  # send_signal() would reap it, without its costs
                time.sleep(0.02 if end_at else 0.1)
        ended = time.monotonic()
        child.returncode = os.waitstatus_to_exitcode(status)
        server_stats: dict[str, Any] = stats(port, reset=True) if port else {"last": ended, "answered": 0}
        cpu_s = usage.ru_utime + usage.ru_stime
        tail_s = ended - server_stats["last"] if server_stats["answered"] else 0.0
        memory_mb = usage.ru_maxrss / 1024
        return Run(chunk, child.returncode, server_stats["answered"], ended - begun, cpu_s, tail_s, memory_mb, disk)

    def work(self, chunks: SimpleQueue[int], port: int) -> None:
        """Run chunks until none is left; a failed one is put back, at most twice."""
        while True:
            try:
                chunk = chunks.get_nowait()
            except Empty:
                return
            past = sum(end.chunk == chunk for end in self.ends)
            end = self.run(chunk, port, is_killed=chunk in self.kills and not past)
            if end.code and past < 2:
                chunks.put(chunk)

    def results(self) -> Iterator[int]:
        """Yield the document's number of each result line."""
        for path in sorted((self.root / "out").glob("results*.jsonl")):
            with path.open("rb") as stream:
                for line in stream:
                    match = _ID.search(line)
                    assert match is not None
                    yield int(match[1]) * FILE_DOCUMENTS + int(match[2]) - 1


def check(trial: Trial) -> list[str]:
    """Print counts and costs; return the faults."""
    lines = bytearray(trial.documents)
    for number in trial.results():
        lines[number] = min(255, lines[number] + 1)
    request_counts = (trial.root / "asked.bin").read_bytes()
    killed = [end for end in trial.ends if end.code == -signal.SIGKILL]
    failed = [end for end in trial.ends if end.code not in (0, -signal.SIGKILL)]
    finished = [end for end in trial.ends if end.code == 0]
    requests = sum(request_counts)
    print(f"{len(finished)} chunks ended with 0, {len(killed)} commands were killed, {len(failed)} failed", flush=True)
    print(f"{trial.documents:,} documents: {lines.count(0)} lost, {sum(n > 1 for n in lines)} doubled in the results")
    print(
        f"{requests:,} requests, {requests - trial.documents} more than documents; {request_counts.count(0)} never sent"
    )
    for name in ("seconds", "cpu_s", "tail_s", "memory_mb", "disk"):
        values = sorted(getattr(end, name) for end in finished)
        print(f"{name}: median {statistics.median(values):.2f}, most {values[-1]:.2f}, sum {sum(values):,.0f}")
    return [
        text
        for text, is_wrong in {
            f"{lines.count(0)} documents are lost": lines.count(0) > 0,
            "documents are doubled in the results": any(n > 1 for n in lines),
            f"{len(failed)} commands failed": bool(failed),
            "more documents were sent again than were in flight": requests - trial.documents > IN_FLIGHT * len(killed),
            "chunks did not end": len({end.chunk for end in finished}) != trial.chunks,
        }.items()
        if is_wrong
    ]


def measure_readers(trial: Trial) -> list[str]:
    """Measure the commands that read the whole output; return the faults."""
    wrong = []
    commands = (
        ("report", "out"),
        ("results", "out", "--format", "jsonl", "--save", "all.jsonl"),
        ("compact", "out"),
        ("report", "out"),
        ("run", "--quiet", "--chunk", "0"),
    )
    for command in commands:
        end = trial.command(*command, url="http://127.0.0.1:9")
        costs = f"{end.seconds:.1f} s, {end.cpu_s:.1f} s of CPU, {end.memory_mb:.0f} MB, TMPDIR {end.disk / 1e6:.1f} MB"
        print(f"pipeline {' '.join(command)}: exit {end.code}, {costs}", flush=True)
        wrong += [f"pipeline {command[0]} ended with {end.code}"] if end.code else []
    counts = json.loads((trial.root / "out" / "report.json").read_text())["run"]["counts"]
    print(f"report: {counts}")
    if counts["found"] != trial.documents or counts["done"] + counts["skipped"] != trial.documents:
        wrong.append("the report does not add up")
    return wrong


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000, help="documents (default: 1,000,000)")
    parser.add_argument("--chunks", type=int, default=1000, help="chunks of the plan (default: 1000)")
    parser.add_argument("--slots", type=int, default=2, help="commands at the same time")
    parser.add_argument("--kills", type=int, default=20, help="commands that get a SIGKILL")
    parser.add_argument("--seed", type=int, default=1, help="seed of the choice of killed commands")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep all files in this folder")
    return parser.parse_args(words)


def main() -> int:
    """Run the trial; return 0 if no fault was found, else 1."""
    options = arguments()
    with ExitStack() as stack:
        root = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="million-")))
        kills = set(random.Random(options.seed).sample(range(options.chunks), min(options.kills, options.chunks)))
        trial = Trial(root.resolve(), options.documents, options.chunks, kills)
        trial.fill()
        if not (trial.root / "out" / "plan.json").exists():
            end = trial.command("plan", "--chunks", str(options.chunks))
            print(f"plan: exit {end.code}, {end.seconds:.1f} s, {end.memory_mb:.0f} MB, TMPDIR {end.disk / 1e6:.1f} MB")
        finished_chunks = {end.chunk for end in trial.ends if end.code == 0}
        chunks: SimpleQueue[int] = SimpleQueue()
        for chunk in range(options.chunks):
            if chunk not in finished_chunks:
                chunks.put(chunk)
        begun = time.monotonic()
        ports = stack.enter_context(started(trial.root / "asked.bin", options.slots))
        slots = [threading.Thread(target=trial.work, args=(chunks, port)) for port in ports]
        for slot in slots:
            slot.start()
        for slot in slots:
            slot.join()
        print(f"all chunks by {options.slots} slots: {time.monotonic() - begun:.0f} s", flush=True)
        wrong = check(trial) + measure_readers(trial)
        print("\n".join(wrong) or "each document once, and the report adds up")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

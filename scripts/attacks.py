"""Attack suite: hostile documents and servers, each in its own run, with CPU time, memory and exit code.

    python scripts/attacks.py                 all attacks, three at a time, with a table
    python scripts/attacks.py html_attributes gzip_bomb_reply
    python scripts/attacks.py --stop-by SIGTERM       each is stopped while it works, and must end in time:
                                                      by SIGTERM, SIGINT or max-duration

Each attack is an evil document beside an ordinary one, or a server with an evil reply. The run must end by itself,
complete the ordinary document, fail the evil one with an expected reason, never write the key that it sends to the
server, and take at most 30 s of CPU and 300 MB in any process. The exit code is 1 when an attack succeeds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import evil_ollama
import evil_servers
from attack_cases import ATTACKS, Attack
from fake_llm import FakeLLM

ROOT = Path(__file__).resolve().parent.parent
MOST_CPU_S = 30.0
MOST_MB = 300.0
GRACE_S = 2.0
SLACK_S = 5.0
"""Seconds for the end of an interpreter on a busy machine."""

STARTED_S = 60.0
"""Seconds to wait for the start of the run, which takes long on a busy machine: an earlier signal tests nothing."""

CPU_S = 2.0
"""input.limits.cpu_s of the attacks, below the default of 20 s to keep the suite short."""

MAX_DURATION = "max-duration"
STOPPED_CODES = {
    "SIGTERM": (143, -signal.SIGTERM),
    "SIGINT": (130, -signal.SIGINT),
    MAX_DURATION: (0,),
}
"""The way to stop a run → its exit codes; a negative one is that of a run that has just removed its handlers."""

DURATION_S = 1.5
"""The --max-duration of stopped attacks: by then the run has started, and few attacks have ended."""

LAUNCHER = """
import json, os, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
silent = [(os.POSIX_SPAWN_OPEN, 1, "stdout.txt", os.O_WRONLY | os.O_CREAT, 0o600)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
print(pid, flush=True)
_, status, usage = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""
"""Start the run; print its process id, then exit code, CPU seconds and MB, including those of its helpers."""


@dataclass(frozen=True, slots=True)
class AttackResult:
    """The result of an attack; `wrong`: the fault of the run, empty if it resisted."""

    cpu_s: float
    peak_mb: float
    wall_s: float
    ending: str
    wrong: str


def run_attack(attack: Attack, server: FakeLLM, folder: Path, *, stop_by: str = "") -> AttackResult:
    """Run an attack in an empty folder and return its result; `server` answers if only the document is evil.

    `stop_by`: SIGTERM, SIGINT or max-duration stops the run; else it ends by itself.
    """
    if attack.reply is None:
        return _run(attack, server.url, folder, stop_by=stop_by)
    ordinary = evil_ollama.ordinary if attack.dialect == "ollama" else None
    with evil_servers.EvilServer(attack.reply, attack.page, ordinary=ordinary) as evil:
        ended = _run(attack, evil.url, folder, stop_by=stop_by, at_work=evil.at_work)
    if "/stolen" in evil.paths:
        return replace(ended, wrong="a redirect was followed")
    return ended if ended.wrong or evil.sent or stop_by else replace(ended, wrong="the evil reply was never requested")


def _run(
    attack: Attack, url: str, folder: Path, *, stop_by: str, at_work: threading.Event | None = None
) -> AttackResult:
    _prepare(attack, url, folder, patience_s=60.0 if stop_by else 2.0)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "OLLAMA_", "PIPELINE_"))}
    limit = ["--max-duration", f"{DURATION_S}s"] if stop_by == MAX_DURATION else []
    started = time.monotonic()
    # a process inherits the peak memory of its parent: hence a small one in between
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, sys.executable, "-m", "pipeline", "run", "--config", "pipeline.yaml", *limit],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    pid = int(process.stdout.readline())
    log = _Log(process.stderr)
    stopped = _stop_at_work(log, pid, at_work, stop_by) if stop_by else None
    code, cpu_s, peak_mb = json.loads(process.stdout.readline())
    ended_at = time.monotonic()
    process.communicate()
    (folder / "stderr.txt").write_bytes(log.text())
    ending, wrong = _verdict(attack, folder, code)
    if stopped is not None:
        ending = f"{code} after {ended_at - stopped:.1f} s"
        wrong = ""
        if code not in (*attack.codes, *STOPPED_CODES[stop_by]) or ended_at - stopped > GRACE_S + SLACK_S:
            wrong = f"{stop_by} did not end the run in time"
    if not wrong and (cpu_s > MOST_CPU_S or peak_mb > MOST_MB):
        wrong = "over the limits of the suite"
    return AttackResult(cpu_s, peak_mb, ended_at - started, ending, wrong or _leak(folder))


class _Log:
    """The standard error of a run, read in a thread; `is_at_work` is set when the run logs its start."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: list[bytes] = []
        self.is_at_work = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._lines.append(line)
            if b"run starts" in line:
                self.is_at_work.set()
        self.is_at_work.set()

    def text(self) -> bytes:
        """Return the whole log after the process has ended."""
        self._thread.join()
        return b"".join(self._lines)


def _prepare(attack: Attack, url: str, folder: Path, *, patience_s: float) -> None:
    inbox = folder / "inbox"
    inbox.mkdir(parents=True)
    (inbox / "good.txt").write_text("An ordinary document about rates.")
    (inbox / attack.file).write_bytes(attack.data())
    (folder / "agents").mkdir()
    summary = {"type": "string", **({"pattern": attack.pattern} if attack.pattern else {})}
    schema = {"type": "object", "properties": {"summary": summary}, "required": ["summary"]}
    agent = {"description": "A summary", "system_prompt": "Sum up.", "user_prompt": "$document", "schema": schema}
    (folder / "agents" / "evil.yaml").write_text(json.dumps(agent))
    server_settings = {"api_key": evil_servers.KEY, "max_retries": 1, "retry_base_delay": 0.1, "stream": attack.streams}
    if attack.reply is not None:
        server_settings |= {
            "timeout": patience_s,
            **({"load_timeout": patience_s} if attack.dialect == "ollama" else {}),
        }
    config = {
        "provider": attack.dialect,
        "fallback": [],
        "agent": "evil",
        "agents_dir": "agents",
        "input": {"uri": "inbox", "limits": {"cpu_s": CPU_S}, **attack.settings},
        attack.dialect: {"base_url": url, "model": "llama3.1", **server_settings},
        "runner": {
            "grace_s": GRACE_S,
            "max_error_rate": 1.0,
            "fail_fast": 0,
            "abort_error_rate": 1.0,
            "concurrency": "auto" if attack.page == "/metrics" else 4,
            "startup_wait_s": 0,
            "max_outage_s": 2,
            "config_grace_s": 1,
        },
    }
    (folder / "pipeline.yaml").write_text(json.dumps(config))


def _stop_at_work(log: _Log, pid: int, at_work: threading.Event | None, stop_by: str) -> float:
    """Stop the run and return the time: by a signal when the evil reply begins, or shortly after the start.

    With --max-duration, the run ends at most that long after its start was logged, as the duration began earlier.
    """
    log.is_at_work.wait(STARTED_S)
    if stop_by == MAX_DURATION:
        return time.monotonic() + DURATION_S
    if at_work is not None:
        at_work.wait(3.0)
    time.sleep(0.1 if at_work is not None else 0.4)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.Signals[stop_by])
    return time.monotonic()


def _verdict(attack: Attack, folder: Path, code: int) -> tuple[str, str]:
    """Return the exit code and reasons of the evil documents, and the fault in them."""
    done_ids = [record["id"] for record in _records(folder / "out" / "results.jsonl")]
    failed = [record for record in _records(folder / "out" / "errors.jsonl") if record["id"] != "good.txt"]
    reasons = sorted({record["reason"] for record in failed})
    ending = f"{code}: {', '.join(reasons) or ('done' if done_ids else 'nothing done')}"
    if code not in attack.codes:
        return ending, f"the exit code is none of {attack.codes}"
    if code in (0, 1) and "good.txt" not in done_ids:
        return ending, "the ordinary document is not done"
    odd = [reason for reason in reasons or [None] if reason not in attack.reasons]
    return ending, f"unexpected: {odd}" if odd and code in (0, 1) else ""


def _leak(folder: Path) -> str:
    """Return a sentence with the first file of this run that contains the key; empty when none does."""
    files = [folder / "stdout.txt", folder / "stderr.txt", *(folder / "out").rglob("*")]
    leaking = [path.name for path in files if path.is_file() and evil_servers.leaks(path.read_bytes())]
    return f"the key is in {leaking[0]}" if leaking else ""


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open("rb") as lines:
            yield from map(json.loads, lines)


def main() -> int:
    """Run the attacks and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="attacks to run (default: all)")
    parser.add_argument("--stop-by", choices=STOPPED_CODES, default="", help="stop each attack while it works")
    parser.add_argument("--jobs", type=int, default=3, help="attacks at a time (default: 3, as many attacks wait)")
    options = parser.parse_args()
    chosen = [attack for attack in ATTACKS if not options.names or attack.name in options.names]
    started = time.monotonic()
    succeeded: list[str] = []
    print(f"{'attack':<26}{'CPU s':>8}{'MB':>8}{'wall s':>8}  exit code and reasons")
    with FakeLLM(("llama3.1",)) as server, ThreadPoolExecutor(options.jobs) as threads:

        def run_one(attack: Attack) -> AttackResult:
            with tempfile.TemporaryDirectory() as folder:
                return run_attack(attack, server, Path(folder), stop_by=options.stop_by)

        for attack, ended in zip(chosen, threads.map(run_one, chosen), strict=True):
            succeeded += [attack.name] if ended.wrong else []
            figures = f"{ended.cpu_s:>8.1f}{ended.peak_mb:>8.0f}{ended.wall_s:>8.1f}"
            print(
                f"{attack.name:<26}{figures}  {ended.ending}{'  <- ' + ended.wrong if ended.wrong else ''}", flush=True
            )
    print(f"{len(chosen)} attacks in {time.monotonic() - started:.0f} s; successful: {', '.join(succeeded) or 'none'}")
    return 1 if succeeded else 0


if __name__ == "__main__":
    sys.exit(main())

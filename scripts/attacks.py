"""Attack suite: hostile documents and servers, each in a run of its own, with its CPU time, its memory and its end.

    python scripts/attacks.py                 all attacks, three at a time, with a table
    python scripts/attacks.py html_attributes gzip_bomb_reply
    python scripts/attacks.py --stop-by SIGTERM       each is stopped while it works, and must end within the grace:
                                                      by SIGTERM, SIGINT or max-duration

Each attack runs over an evil document beside an ordinary one, or asks a server whose reply is evil. The run must end by
itself, do the ordinary document, fail the evil one with an expected reason, write no byte of the key that it sends to
the server, and take at most 30 s of CPU and 300 MB in any process. The exit code is 1 when one attack gets through.
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
MOST_CPU_S, MOST_MB, GRACE_S = 30.0, 300.0, 2.0
SLACK_S = 5.0
"""For the end of an interpreter on a machine that has other work."""

STARTED_S = 60.0
"""A signal that comes before the run has begun tests nothing; a loaded machine takes seconds to begin."""

CPU_S = 2.0
"""input.limits.cpu_s of the attacks: the default of 20 s would only make the suite longer."""

MAX_DURATION = "max-duration"
STOPPED_CODES = {
    "SIGTERM": (143, -signal.SIGTERM),
    "SIGINT": (130, -signal.SIGINT),
    MAX_DURATION: (0,),
}
"""How a run is stopped → its exit codes; the signal itself ends one that has just released its handlers."""

DURATION_S = 1.5
"""The --max-duration that stops attacks: the run has begun by then, and few attacks have ended."""

LAUNCHER = """
import json, os, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
silent = [(os.POSIX_SPAWN_OPEN, 1, "stdout.txt", os.O_WRONLY | os.O_CREAT, 0o600)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
print(pid, flush=True)
_, status, usage = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""
"""Starts the run and tells its process id, then its exit code, CPU seconds and MB, those of its helpers included."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of an attack; `wrong` names what should not have happened."""

    cpu_s: float
    peak_mb: float
    wall_s: float
    how: str
    wrong: str


def run_attack(attack: Attack, server: FakeLLM, folder: Path, *, stop_by: str = "") -> Ended:
    """Return how the attack ended, run in an empty folder; `server` answers where only the document is evil.

    `stop_by`: SIGTERM, SIGINT or max-duration, which then ends the run; else it ends by itself.
    """
    if attack.reply is None:
        return _run(attack, server.url, folder, stop_by=stop_by)
    ordinary = evil_ollama.ordinary if attack.dialect == "ollama" else None
    with evil_servers.EvilServer(attack.reply, attack.page, ordinary=ordinary) as evil:
        ended = _run(attack, evil.url, folder, stop_by=stop_by, at_work=evil.at_work)
    if "/stolen" in evil.paths:
        return replace(ended, wrong="a redirect was followed")
    return ended if ended.wrong or evil.sent or stop_by else replace(ended, wrong="the evil reply was never requested")


def _run(attack: Attack, url: str, folder: Path, *, stop_by: str, at_work: threading.Event | None = None) -> Ended:
    _prepare(attack, url, folder, patience_s=60.0 if stop_by else 2.0)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "OLLAMA_", "PIPELINE_"))}
    limit = ["--max-duration", f"{DURATION_S}s"] if stop_by == MAX_DURATION else []
    started = time.monotonic()
    # a process takes over the peak of the one that starts it: hence a small one in between
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
    now = time.monotonic()
    process.communicate()
    (folder / "stderr.txt").write_bytes(log.text())
    how, wrong = _verdict(attack, folder, code)
    if stopped is not None:
        how = f"{code} after {now - stopped:.1f} s"
        wrong = ""
        if code not in (*attack.codes, *STOPPED_CODES[stop_by]) or now - stopped > GRACE_S + SLACK_S:
            wrong = f"{stop_by} did not end it in time"
    if not wrong and (cpu_s > MOST_CPU_S or peak_mb > MOST_MB):
        wrong = "over the limits of the suite"
    return Ended(cpu_s, peak_mb, now - started, how, wrong or _leak(folder))


class _Log:
    """The standard error of a run, read as it comes; `is_at_work` is set when the run says that it starts."""

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
        """Everything, once the process has ended."""
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
    of_server = {"api_key": evil_servers.KEY, "max_retries": 1, "retry_base_delay": 0.1, "stream": attack.streams}
    if attack.reply is not None:
        of_server |= {"timeout": patience_s, **({"load_timeout": patience_s} if attack.dialect == "ollama" else {})}
    config = {
        "provider": attack.dialect,
        "fallback": [],
        "agent": "evil",
        "agents_dir": "agents",
        "input": {"uri": "inbox", "limits": {"cpu_s": CPU_S}, **attack.settings},
        attack.dialect: {"base_url": url, "model": "llama3.1", **of_server},
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
    """Return when the run was stopped: by a signal as the evil reply begins, or shortly after the run has started.

    With --max-duration, it ends at most that duration after its message, because the duration began earlier.
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
    """How the evil documents ended, and what is wrong with that."""
    done = [record["id"] for record in _records(folder / "out" / "results.jsonl")]
    failed = [record for record in _records(folder / "out" / "errors.jsonl") if record["id"] != "good.txt"]
    reasons = sorted({record["reason"] for record in failed})
    how = f"{code}: {', '.join(reasons) or ('done' if done else 'nothing done')}"
    if code not in attack.codes:
        return how, f"the exit code is none of {attack.codes}"
    if code in (0, 1) and "good.txt" not in done:
        return how, "the ordinary document is not done"
    odd = [reason for reason in reasons or [None] if reason not in attack.reasons]
    return how, f"unexpected: {odd}" if odd and code in (0, 1) else ""


def _leak(folder: Path) -> str:
    """The first file that this run wrote with the key in it, in a sentence; empty when there is none."""
    written = [folder / "stdout.txt", folder / "stderr.txt", *(folder / "out").rglob("*")]
    leaking = [path.name for path in written if path.is_file() and evil_servers.leaks(path.read_bytes())]
    return f"the key is in {leaking[0]}" if leaking else ""


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open("rb") as lines:
            yield from map(json.loads, lines)


def main() -> int:
    """Run the attacks and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="attacks to run (default: all)")
    parser.add_argument("--stop-by", choices=STOPPED_CODES, default="", help="what stops each while it works")
    parser.add_argument("--jobs", type=int, default=3, help="attacks at a time (default: 3; many of them wait)")
    options = parser.parse_args()
    chosen = [attack for attack in ATTACKS if not options.names or attack.name in options.names]
    started, through = time.monotonic(), []
    print(f"{'attack':<26}{'CPU s':>8}{'MB':>8}{'wall s':>8}  how it ended")
    with FakeLLM(("llama3.1",)) as server, ThreadPoolExecutor(options.jobs) as threads:

        def one(attack: Attack) -> Ended:
            with tempfile.TemporaryDirectory() as folder:
                return run_attack(attack, server, Path(folder), stop_by=options.stop_by)

        for attack, ended in zip(chosen, threads.map(one, chosen), strict=True):
            through += [attack.name] if ended.wrong else []
            figures = f"{ended.cpu_s:>8.1f}{ended.peak_mb:>8.0f}{ended.wall_s:>8.1f}"
            print(f"{attack.name:<26}{figures}  {ended.how}{'  <- ' + ended.wrong if ended.wrong else ''}", flush=True)
    print(f"{len(chosen)} attacks in {time.monotonic() - started:.0f} s; got through: {', '.join(through) or 'none'}")
    return 1 if through else 0


if __name__ == "__main__":
    sys.exit(main())

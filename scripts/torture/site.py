"""The folders and the configuration of a torture run, and the installed command that runs in them.

It must not decide when a process ends: it starts processes and waits for them, each by its own id.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.corpus import RETRIES, TOO_LARGE_BYTES
from torture.inbox import Inbox
from torture.outbox import Outbox
from torture.server import MODEL, RUN_HEADER, SCHEMA

CONCURRENCY = 16
GRACE_S = 3.0
TIMEOUT_S = 1.5
RETRY_RUNS = 2
HANGS_AFTER_S = 120.0
PROVIDER: Mapping[str, Any] = {
    "model": MODEL,
    "timeout": TIMEOUT_S,
    "max_retries": RETRIES,
    "retry_base_delay": 0.02,
    "retry_max_delay": 0.2,
}
RUNNER: Mapping[str, Any] = {
    "concurrency": CONCURRENCY,
    "retry_runs": RETRY_RUNS,
    "max_error_rate": 1.0,
    "fail_fast": 0,
    "abort_error_rate": 1.0,
    "startup_wait_s": 20,
    "max_outage_s": 120,
    "lock_wait_s": 0.5,
    "grace_s": GRACE_S,
}
LIMITED = (
    "import os,resource,sys; n=int(sys.argv[2]); resource.setrlimit(int(sys.argv[1]),(n,n)); "
    "os.execv(sys.argv[3],sys.argv[3:])"
)


@dataclass(frozen=True, slots=True)
class Site:
    """The folders of one campaign, its input, its server, and the key."""

    root: Path
    inbox: Inbox
    outbox: Outbox
    dialect: str
    url: str
    key: str
    processes: int = 1
    splits: bool = False

    def log(self, label: str) -> Path:
        """Return the log file of a run."""
        return self.root / "logs" / f"{label}.log"

    def prepare(self) -> None:
        """Make the folders and the agent."""
        for name in ("agents", "logs", "tmp"):
            (self.root / name).mkdir(parents=True)
        agent: dict[str, Any] = {
            "system_prompt": "Read it.",
            "user_prompt": "$document",
            "schema": SCHEMA,
            "max_tokens": 700,
        }
        if self.splits:
            agent |= {"overflow": "split", "split": {"window_tokens": 256, "overlap_tokens": 20}}
        (self.root / "agents" / "torture.yaml").write_text(json.dumps(agent))

    def start(
        self, label: str, *more: str, limit_bytes: int | None = None, open_files: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the installed command; `limit_bytes`: the largest size of a file."""
        command = [*installed(), "run", "--config", str(self._config(label)), "--run-id", label, *more]
        for limit, value in ((resource.RLIMIT_FSIZE, limit_bytes), (resource.RLIMIT_NOFILE, open_files)):
            if value is not None:
                command = [sys.executable, "-c", LIMITED, str(limit), str(value), *command]
        with self.log(label).open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ())

    def _config(self, label: str) -> Path:
        settings = {
            "provider": self.dialect,
            "fallback": [],
            "agent": "torture",
            "agents_dir": str(self.root / "agents"),
            "input": {
                "uri": self.inbox.uri,
                "max_document_bytes": TOO_LARGE_BYTES,
                "storage": dict(self.inbox.storage),
            },
            "output": dict(self.outbox.settings),
            self.dialect: {
                **PROVIDER,
                "base_url": self.url,
                "headers": {RUN_HEADER: label},
                # in every other run: it must make no difference
                "stream": int(label.split("-")[1]) % 2 == 0,
            },
            "runner": {**RUNNER, "processes": self.processes},
        }
        path = self.root / f"config-{label}.yaml"
        path.write_text(json.dumps(settings))
        return path

    def _environ(self) -> dict[str, str]:
        """Return the environment with the key, and without variables that name other servers."""
        prefixes = ("VLLM_", "OLLAMA_", "PIPELINE_", "AWS_")
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(prefixes) and not k.lower().endswith("_proxy")
        }
        more = {f"{self.dialect.upper()}_API_KEY": self.key, "TMPDIR": str(self.root / "tmp")}
        return {**inherited, **more, **self.inbox.environ}


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a run; none where the kernel does not list them."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"run.workers.process" in (folder / "cmdline").read_bytes():
                pids.append(int(folder.name))
    return pids


def installed() -> list[str]:
    """Return the installed command beside this Python."""
    command = Path(sys.executable).with_name("pipeline")
    if not command.exists():
        raise SystemExit(f"torture: {command} does not exist; install the project first: pip install -e .")
    return [str(command)]


def exit_code_of(process: subprocess.Popen[bytes], timeout_s: float = HANGS_AFTER_S) -> int | None:
    """Return the exit code; None when it hung and had to be killed."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def exit_after_signal(process: subprocess.Popen[bytes], number: int, *, after_s: float) -> tuple[int | None, float]:
    """Return the exit code after a signal, and the seconds that the end took; no signal when it ended before."""
    try:
        return process.wait(after_s), 0.0
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    started = time.monotonic()
    code = exit_code_of(process, GRACE_S + 20.0 if number != signal.SIGKILL else 20.0)
    return code, time.monotonic() - started


def short_of_files(process: subprocess.Popen[bytes], *, spare: int, lasts_s: float) -> bool:
    """Let a process open only `spare` more files for a while (Linux); False when it had ended before."""
    try:
        usual = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        open_now = sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())
        hard = usual[1]
        soft = max(1, open_now + spare)  # a process that has just started has few files open
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        try:
            process.wait(lasts_s)
        except subprocess.TimeoutExpired:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, usual)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return True


def ended_in_startup(log: str) -> bool:
    """Return whether SIGINT met an interpreter that was still starting: the trace is Python's own."""
    interrupted = log.rstrip().endswith("KeyboardInterrupt") or "\nKeyboardInterrupt" in log
    return interrupted and "Z INFO " not in log and "Z ERROR " not in log

"""Attack suite: hostile inputs, each in a run of its own, with its CPU time, its memory and how it ended.

    python scripts/attacks.py                 all attacks, with a table
    python scripts/attacks.py html_attributes zip_overlap
    python scripts/attacks.py --sigterm       each is sent SIGTERM while it works, and must end within the grace

Each attack fills an input folder with a generated document beside an ordinary one. The run must end by itself, do the
ordinary document, fail the evil one with the expected reason, and take at most 30 s of CPU and 300 MB in any process.
The exit code is 1 when one attack gets through.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import evil_documents as evil
from fake_llm import FakeLLM

ROOT = Path(__file__).resolve().parent.parent
MOST_CPU_S, MOST_MB, GRACE_S = 30.0, 300.0, 2.0
CPU_S = 4.0
"""input.limits.cpu_s of the attacks: the default of 20 s would only make the suite longer."""

LAUNCHER = """
import json, os, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
print(pid, flush=True)
_, status, usage = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""
"""Starts the run and tells its process id, then its exit code, CPU seconds and MB, those of its helpers included."""

EXPENSIVE = "document_too_expensive"


@dataclass(frozen=True, slots=True)
class Attack:
    """The evil file and the reasons it may fail with (None: it may as well be done); further settings of the run."""

    name: str
    file: str
    data: Callable[[], bytes]
    reasons: tuple[str | None, ...]
    settings: Mapping[str, Any]


def _attack(name: str, file: str, data: Callable[[], bytes], *reasons: str | None, **settings: Any) -> Attack:
    return Attack(name, file, data, reasons, settings)


ATTACKS = (
    _attack("html_attributes", "evil.html", evil.attributes_page, EXPENSIVE, None),
    _attack("html_nested", "evil.html", evil.nested_page, EXPENSIVE, "document_empty", None),
    _attack("html_large", "evil.html", evil.large_page, EXPENSIVE, None),
    _attack("mail_parameters", "evil.eml", evil.parameters_mail, EXPENSIVE, None),
    _attack("mail_nested", "evil.eml", evil.nested_mail, EXPENSIVE, "document_empty", "document_unreadable"),
    _attack("mail_encoded_words", "evil.eml", evil.encoded_words_mail, EXPENSIVE, None),
    _attack(
        "pdf_shared_stream",
        "evil.pdf",
        evil.shared_pdf,
        EXPENSIVE,
        "document_empty",
        "document_too_large",
        "document_unreadable",
    ),
    _attack("pdf_exploding", "evil.pdf", evil.exploding_pdf, EXPENSIVE, "document_unreadable", "document_empty"),
    _attack("csv_columns", "evil.csv", lambda: evil.wide_table(1_000_000), EXPENSIVE),
    _attack("csv_header", "evil.csv", lambda: evil.wide_table(9000, 400, 1000), "document_too_large", EXPENSIVE, None),
    _attack("zip_overlap", "evil.zip", evil.overlapping_zip, "document_unreadable", "context_length"),
    _attack(
        "zip_long_names", "evil.zip", evil.long_names_zip, "document_unreadable", include=["**", "*a*a*a*a*a*a*.txt"]
    ),
    _attack("gzip_bomb", "evil.jsonl.gz", lambda: evil.gzip_of_zeros(1 << 30), EXPENSIVE),
    _attack(
        "tar_members",
        "evil.tar.gz",
        lambda: evil.tar_of_empty_members(400_000),
        EXPENSIVE,
        include=["good.txt", "*.md"],
    ),
    _attack("json_nested", "evil.json", lambda: b'{"text":' + b"[" * 5_000_000, "document_unreadable"),
)


@dataclass(frozen=True, slots=True)
class Ended:
    """What an attack came to; `wrong` says what should not have happened."""

    cpu_s: float
    peak_mb: float
    wall_s: float
    how: str
    wrong: str


def run_attack(attack: Attack, server: FakeLLM, folder: Path, *, sigterm: bool = False) -> Ended:
    """The attack in a run of its own, in an empty folder."""
    _prepare(attack, server, folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "OLLAMA_", "PIPELINE_"))}
    started = time.monotonic()
    # a process takes over the peak of the one that starts it: hence a small one in between
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, sys.executable, "-m", "pipeline", "run", "--config", "pipeline.yaml"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    pid = int(process.stdout.readline())
    sent = _signal_at_work(process.stderr, pid) if sigterm else None
    process.stderr.read()
    code, cpu_s, peak_mb = json.loads(process.stdout.readline())
    process.communicate()
    now = time.monotonic()
    how, wrong = _verdict(attack, folder, code)
    if sent is not None:
        how, wrong = f"{code} after {now - sent:.1f} s", ""
        if code not in (0, 1, 143) or now - sent > GRACE_S + 8:
            wrong = "SIGTERM did not end it in time"
    if not wrong and (cpu_s > MOST_CPU_S or peak_mb > MOST_MB):
        wrong = "over the limits of the suite"
    return Ended(cpu_s, peak_mb, now - started, how, wrong)


def _prepare(attack: Attack, server: FakeLLM, folder: Path) -> None:
    inbox = folder / "inbox"
    inbox.mkdir(parents=True)
    (inbox / "good.txt").write_text("An ordinary document about rates.")
    (inbox / attack.file).write_bytes(attack.data())
    config = {
        "provider": "vllm",
        "fallback": [],
        "input": {"uri": "inbox", "limits": {"cpu_s": CPU_S}, **attack.settings},
        "vllm": {"base_url": server.url, "model": "llama3.1"},
        "runner": {
            "grace_s": GRACE_S,
            "max_error_rate": 1.0,
            "fail_fast": 0,
            "abort_error_rate": 1.0,
            "concurrency": 4,
        },
    }
    (folder / "pipeline.yaml").write_text(json.dumps(config))


def _signal_at_work(log: IO[bytes], pid: int) -> float:
    """When SIGTERM was sent: a second after the run said that it starts."""
    for line in log:
        if b"run starts" in line:
            break
    time.sleep(1.0)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    return time.monotonic()


def _verdict(attack: Attack, folder: Path, code: int) -> tuple[str, str]:
    """How the evil documents ended, and what is wrong with that."""
    done = [record["id"] for record in _records(folder / "out" / "results.jsonl")]
    failed = [record for record in _records(folder / "out" / "errors.jsonl") if record["id"] != "good.txt"]
    reasons = sorted({record["reason"] for record in failed})
    how = f"{code}: {', '.join(reasons) or 'done'}"
    if code not in (0, 1):
        return how, "the run did not end by itself"
    if "good.txt" not in done:
        return how, "the ordinary document is not done"
    odd = [reason for reason in reasons or [None] if reason not in attack.reasons]
    return how, f"unexpected: {odd}" if odd else ""


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def main() -> int:
    """Run the attacks and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="attacks to run (default: all)")
    parser.add_argument("--sigterm", action="store_true", help="send SIGTERM to each while it works")
    options = parser.parse_args()
    chosen = [attack for attack in ATTACKS if not options.names or attack.name in options.names]
    through = 0
    print(f"{'attack':<20}{'CPU s':>8}{'MB':>8}{'wall s':>8}  how it ended")
    with FakeLLM(("llama3.1",)) as server:
        for attack in chosen:
            with tempfile.TemporaryDirectory() as folder:
                ended = run_attack(attack, server, Path(folder), sigterm=options.sigterm)
            through += bool(ended.wrong)
            figures = f"{ended.cpu_s:>8.1f}{ended.peak_mb:>8.0f}{ended.wall_s:>8.1f}"
            print(f"{attack.name:<20}{figures}  {ended.how}{'  <- ' + ended.wrong if ended.wrong else ''}", flush=True)
    return 1 if through else 0


if __name__ == "__main__":
    sys.exit(main())

"""The cost of one process of a fleet: a run on a real S3 server, behind a proxy that counts requests and bytes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from bench.site import clean_environment
from fake_llm import FakeLLM
from s3_faults import FaultProxy
from s3_server import s3_server

from pipeline.stores import RemoteStore

AGENT = {
    "system_prompt": "Sum the text up.",
    "user_prompt": "$document",
    "max_tokens": 200,
    "schema": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
}
LINE_BYTES = 2000
"""Bytes of a document, in the measured runs and in the extrapolated archive."""

_BUCKET = "s3://tests/scale"


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one process.

    `requests`: by method and area of the bucket, as `LIST in` or `PUT results`. `first_s`: from its start to its first
    request; `last_s`: from its last answer to its exit. `disk`: most bytes in TMPDIR. `answered`: documents.
    """

    requests: Counter[str]
    input_bytes: int
    memory_mb: float
    disk: int
    cpu_s: float
    first_s: float
    last_s: float
    answered: int


class Site:
    """A bucket with an input, an agent and a configuration; its requests go through a proxy that counts."""

    def __init__(self, folder: Path, llm: FakeLLM, proxy: FaultProxy, storage: Mapping[str, str]) -> None:
        self.folder = folder
        self.llm = llm
        self.proxy = proxy
        self.storage = {**storage, "endpoint": proxy.endpoint}
        (folder / "agents").mkdir()
        (folder / "agents" / "small.yaml").write_text(json.dumps(AGENT))

    def fill(self, name: str, *, files: int, documents: int) -> None:
        """Write an input with these numbers of files and documents, and the configuration of a run over it."""
        store = RemoteStore.open(f"{_BUCKET}/{name}/in", storage=self.storage)
        text = "A text. " * (LINE_BYTES // 8)
        for number in range(files):
            lines = (f"[[doc:{number}-{line}]] {text}" for line in range(documents // files))
            store.put(f"{number:05d}.jsonl", "".join(json.dumps({"text": line}) + "\n" for line in lines).encode())
        settings = {
            "provider": "vllm", "agent": "small", "agents_dir": "agents", "fallback": [],
            "input": {"uri": f"{_BUCKET}/{name}/in", "storage": self.storage, "min_documents": 0},
            "output": {"uri": f"{_BUCKET}/{name}/out", "storage": self.storage},
            "vllm": {"base_url": self.llm.url, "model": "llama3.1"},
        }  # fmt: skip
        (self.folder / "pipeline.yaml").write_text(json.dumps(settings))

    def cost(self, *command: str) -> Cost:
        """Return the cost of a command, which must end with exit code 0."""
        self.proxy.seen.clear()
        self.proxy.sent_bytes.clear()
        self.llm.requests.clear()
        arguments = [str(Path(sys.executable).with_name("pipeline")), *command]
        begun = time.time()
        with tempfile.TemporaryDirectory(prefix="scale-tmp-") as scratch:
            environ = {**clean_environment(), "TMPDIR": scratch}
            child = subprocess.Popen(arguments, cwd=self.folder, env=environ, stdout=subprocess.DEVNULL)
            disk = 0
            while True:
                disk = max(disk, disk_of(child.pid, scratch))
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    break
                time.sleep(0.02)
        ended = time.time()
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{' '.join(command)}: exit code {os.waitstatus_to_exitcode(status)}")
        times = [request.at for request in self.llm.chats() if request.document]
        return Cost(
            Counter(_kind(method, target) for method, target in self.proxy.seen),
            sum(size for target, size in self.proxy.sent_bytes.items() if "/in/" in target),
            usage.ru_maxrss / 1024,
            disk,
            usage.ru_utime + usage.ru_stime,
            times[0] - begun if times else math.nan,
            ended - times[-1] if times else math.nan,
            len(times),
        )


def disk_of(pid: int, folder: str) -> int:
    """Return the bytes of the open files of a process below a folder, which may be unlinked; 0 without /proc."""
    total = 0
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # closed meanwhile
            if str(descriptor.readlink()).startswith(folder):
                total += descriptor.stat().st_size
    return total


def _kind(method: str, target: str) -> str:
    """Return `LIST in`, `GET in`, `PUT results`, … of a request."""
    parts = urlsplit(target)
    query = parse_qs(parts.query)
    listing = "list-type" in query
    key = query.get("prefix", [""])[0] if listing else unquote(parts.path).removeprefix("/tests/")
    below = key.split("/")[2:]
    area = below[0] if below and below[0] == "in" else (below[1] if len(below) > 1 and below[1] else "out")
    if area in ("report.json", "report.html"):
        area = "report"
    return f"{'LIST' if listing else method} {area}"


@contextmanager
def site_on_s3() -> Iterator[Site]:
    """Yield a site on a fresh S3 server, with the fake model server."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-scale-") as name,
        s3_server() as s3,
        FaultProxy(s3.port) as proxy,
        FakeLLM(("llama3.1",)) as llm,
    ):
        keys = {"access_key_id": s3.env["AWS_ACCESS_KEY_ID"], "secret_access_key": s3.env["AWS_SECRET_ACCESS_KEY"]}
        yield Site(Path(name), llm, proxy, {"region": s3.env["AWS_REGION"], **keys})


def table_row(name: str, cost: Cost) -> str:
    """Return a row of the table of measurements."""
    methods: Counter[str] = Counter()
    for kind, count in cost.requests.items():
        methods[kind.split()[0]] += count
    counts = " | ".join(f"{methods[method]:,}" for method in ("LIST", "GET", "PUT"))
    further = sum(methods.values()) - sum(methods[method] for method in ("LIST", "GET", "PUT"))
    times = f"{cost.first_s:.1f} s | {cost.last_s:.1f} s" if cost.answered else "– | –"
    sizes = f"{cost.input_bytes / 1e6:.2f} MB | {cost.memory_mb:.0f} MB | {cost.disk / 1e3:.0f} kB"
    return f"| {name} | {cost.answered:,} | {counts} | {further} | {sizes} | {cost.cpu_s:.1f} s | {times} |"


HEAD = (
    "| process | answered | LIST | GET | PUT | other | input read | memory | TMPDIR | CPU | start to first request"
    " | last answer to exit |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)

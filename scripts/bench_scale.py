"""Measure the cost of a fleet: requests, bytes, memory, disk and time of one worker, extrapolated from small runs.

    python scripts/bench_scale.py                 about two minutes; prints tables in Markdown
    python scripts/bench_scale.py --documents 2000

Workers are real processes on a real S3 server (SeaweedFS), behind a proxy that counts requests and bytes. Each is run
at two sizes, so that growing costs show; the printed formulas extrapolate to 10 and 100 million documents and
1, 100 and 1,000 workers. Nothing else is modelled: no slow disk, no throttled store, no network.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fake_llm import FakeLLM
from s3_faults import FaultProxy
from s3_server import s3_server

from pipeline.output import Index
from pipeline.output.record_keys import RecordKey
from pipeline.stores import RemoteStore

AGENT = {
    "system_prompt": "Sum the text up.",
    "user_prompt": "$document",
    "max_tokens": 200,
    "schema": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
}
PAGE = 1000
"""Keys in one reply to a LIST, of S3."""

LINE_BYTES = 2000
FILE_DOCUMENTS = 10_000
"""Documents in a file of the extrapolated archive: JSON Lines of 2 kB each, 20 MB a file."""

PART_S = 60
"""Seconds between two parts of an output: output.part_seconds."""

RATE = 20.0
"""Documents a second that one worker's servers answer, for the number of parts; an assumption, not a measurement."""

_BUCKET = "s3://tests/scale"
_PLAN = "plan"
_IDLE_LINES = (4_000, 44_000)
_INDEXED = 400_000


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
            environ = {**os.environ, "PIPELINE_CONFIG": "pipeline.yaml", "TMPDIR": scratch}
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


@dataclass(frozen=True, slots=True)
class Fleet:
    """An archive and the workers that share it."""

    documents: int
    workers: int

    @property
    def files(self) -> int:
        """The number of JSON Lines files in the input."""
        return math.ceil(self.documents / FILE_DOCUMENTS)

    @property
    def parts(self) -> int:
        """The number of parts that all workers write: one a minute each."""
        return self.workers * math.ceil(self.documents / self.workers / RATE / PART_S)

    @property
    def input_bytes(self) -> int:
        """The number of bytes in the input."""
        return self.documents * LINE_BYTES


def pages(keys: float) -> int:
    """Return the number of LIST requests for this many keys."""
    return max(1, math.ceil(keys / PAGE))


@dataclass(frozen=True, slots=True)
class Law:
    """Growth of one worker's requests, from the two measured sizes.

    `fixed`: requests by kind, those of the small size. `list_in`, `list_out`: listings of the input, of the results and
    errors; their pages grow.
    """

    fixed: Mapping[str, int]
    list_in: int
    list_out: int
    per_part: int

    @classmethod
    def of(cls, cost: Cost) -> Law:
        """Return the law of a worker that wrote one part of results."""
        requests = cost.requests
        growing = ("LIST in", "GET in", "LIST results", "LIST errors", "PUT results", "PUT manifests")
        written_parts = requests["PUT results"] + requests["PUT manifests"]
        fixed = {kind: count for kind, count in requests.items() if kind not in growing}
        return cls(fixed, requests["LIST in"], requests["LIST results"] + requests["LIST errors"], written_parts)

    def requests(self, fleet: Fleet, *, reads_all: bool, own_files: float) -> Counter[str]:
        """Return LIST, GET, PUT and other requests of one worker."""
        own_parts = fleet.parts / fleet.workers
        total: Counter[str] = Counter()
        for kind, count in self.fixed.items():
            total[kind.split()[0]] += count
        total["LIST"] += self.list_in * (pages(fleet.files) if reads_all else 1)
        total["LIST"] += self.fixed.get("LIST .runs", 0) * (pages(fleet.workers) - 1)
        total["LIST"] += self.list_out * pages(fleet.parts)
        total["GET"] += math.ceil(fleet.files if reads_all else own_files)
        total["PUT"] += math.ceil(self.per_part * own_parts)
        return total


def measured(name: str, cost: Cost) -> str:
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


def hash_shards(site: Site, documents: int) -> tuple[list[str], Cost]:
    """Return a row for each of two sizes, and the cost of a shard of the smaller one."""
    rows = []
    costs = []
    for factor in (1, 2):
        site.fill(f"shards{factor}", files=2 * factor, documents=documents * factor)
        costs.append(site.cost("run", "--quiet", "--shard", "0/4"))
        rows.append(measured(f"shard 0/4 of {documents * factor:,} documents in {2 * factor} files", costs[-1]))
    return rows, costs[0]


def chunks(site: Site, documents: int) -> tuple[list[str], Cost, Cost] | None:
    """Return rows, and the costs of planning and of a chunk; None where the program has no plans."""
    help_text = subprocess.run(
        [str(Path(sys.executable).with_name("pipeline")), "help"], capture_output=True, text=True, check=False
    )
    if not any(line.split()[:1] == [_PLAN] for line in help_text.stdout.splitlines()):
        return None
    site.fill("chunks", files=4, documents=documents * 2)
    plan = site.cost(_PLAN, "--chunks", "8")
    chunk_cost = site.cost("run", "--quiet", "--chunk", "0")
    rows = [measured(f"plan of {documents * 2:,} documents in 4 files", plan), measured("chunk 0 of 8", chunk_cost)]
    return rows, plan, chunk_cost


def cpu_per_line(site: Site) -> float:
    """Return the CPU seconds that a line of another shard takes, from two sizes of an input."""
    costs = []
    for number, lines in enumerate(_IDLE_LINES):
        site.fill(f"idle{number}", files=4, documents=lines)
        costs.append(site.cost("run", "--quiet", "--shard", "99998/99999").cpu_s)
    return max(0.0, costs[1] - costs[0]) / (_IDLE_LINES[1] - _IDLE_LINES[0])


def disk_per_document() -> float:
    """Return the bytes of the index on disk for a document that is done."""
    keys = [
        RecordKey(f"2026/11/28/{number:08d}.jsonl#17", 1, "a" * 64, "small", "default", "f" * 64, None, None, 0, "r")
        for number in range(_INDEXED)
    ]
    with tempfile.TemporaryDirectory(prefix="scale-index-") as scratch:
        tempfile.tempdir = scratch
        try:
            with closing(Index()) as index:
                index.add("results", keys, where="bench", owns=lambda _: True)
                index.slim()
                index.counts()  # reads all of it, so that what was in memory goes to the file
                return disk_of(os.getpid(), scratch) / _INDEXED
        finally:
            tempfile.tempdir = None


def extrapolated(law: Law, *, line_cpu_s: float, disk_document: float, plan: Cost | None = None) -> Iterator[str]:
    """Yield rows for fleets that are too large to run here: with hash shards, or with the chunks of a plan.

    The plan reads the input once, to divide its files, and writes a file for each chunk; there is one for each worker.
    """
    reads_all = plan is None
    for documents in (10_000_000, 100_000_000):
        for workers in (1, 100, 1000):
            fleet = Fleet(documents, workers)
            own = documents / workers
            worker_requests = law.requests(fleet, reads_all=reads_all, own_files=fleet.files / workers)
            total = {name: worker_requests[name] * workers for name in ("LIST", "GET", "PUT")}
            read_bytes = fleet.input_bytes * (workers if reads_all else 2)
            if plan is not None:
                total["LIST"] += pages(fleet.files)
                total["GET"] += fleet.files
                total["PUT"] += workers
            cpu_h = (documents - own) * workers * line_cpu_s / 3600 if reads_all else 0.0
            counts = " | ".join(f"{count:,}" for count in total.values())
            disk = own * disk_document / 1e6
            yield (
                f"| {documents / 1e6:,.0f} M | {workers:,} | {counts} | {read_bytes / 1e12:.2f} TB | {cpu_h:,.0f} h"
                f" | {disk:,.0f} MB |"
            )


FLEET_HEAD = (
    "| documents | workers | LIST, all | GET, all | PUT, all | input read, all | CPU for others' lines | TMPDIR |",
    "|---|---|---|---|---|---|---|---|",
)


def formulas(law: Law, *, line_cpu_s: float, disk_document: float, chunk: Law | None) -> Iterator[str]:
    """Yield the formulas, with the measured numbers in them."""
    by_method: Counter[str] = Counter()
    for kind, count in law.fixed.items():
        by_method[kind.split()[0]] += count
    yield f"pages(n) = max(1, n / {PAGE:,}), rounded up: LIST requests for n keys"
    yield f"files = documents / {FILE_DOCUMENTS:,}, of {LINE_BYTES:,} bytes a document"
    yield f"parts = workers × (documents / workers / {RATE:g} per second / {PART_S} s, rounded up)"
    yield f"LIST of a worker = {by_method['LIST']} + {law.list_in} × pages(files) + {law.list_out} × pages(parts)"
    yield f"GET of a shard = {by_method['GET']} + files"
    yield f"PUT of a worker = {by_method['PUT']} + {law.per_part} × parts / workers"
    yield f"CPU of a shard for lines of other shards = {line_cpu_s * 1e6:.1f} µs × documents"
    if chunk is not None:
        own = sum(count for kind, count in chunk.fixed.items() if kind.startswith("GET"))
        yield f"GET of a chunk = {own} + files / workers; of the plan, once: files, and a PUT for each chunk"
        yield "input read by chunks = 2 × input: once by the plan, which divides files, and once by all chunks"
    yield f"TMPDIR of a worker = {disk_document:.0f} bytes × its documents"


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


def by_kind(cost: Cost) -> str:
    """Return the requests of a process by method and place."""
    return ", ".join(f"{kind} {count}" for kind, count in sorted(cost.requests.items()))


def show(title: str, lines: Sequence[str]) -> None:
    """Print a section."""
    print(f"\n### {title}\n")
    print("\n".join(lines), flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=4000, help="of the smaller size; the other one is twice this")
    documents = parser.parse_args().documents
    with site_on_s3() as site:
        rows, small = hash_shards(site, documents)
        line_cpu_s = cpu_per_line(site)
        planned = chunks(site, documents)
    show("Measured", [*HEAD, *rows, *(planned[0] if planned else ())])
    law = Law.of(small)
    disk_document = disk_per_document()
    show("Requests of the first shard by place", [by_kind(small)])
    chunk_law = Law.of(planned[2]) if planned else None
    lines = formulas(law, chunk=chunk_law, line_cpu_s=line_cpu_s, disk_document=disk_document)
    fleets = partial(extrapolated, line_cpu_s=line_cpu_s, disk_document=disk_document)
    show("Formulas", [f"- {line}" for line in lines])
    show("Hash shards, extrapolated", [*FLEET_HEAD, *fleets(law)])
    if planned and chunk_law:
        show("Plan and chunks, extrapolated", [*FLEET_HEAD, *fleets(chunk_law, plan=planned[1])])
    return 0


if __name__ == "__main__":
    sys.exit(main())

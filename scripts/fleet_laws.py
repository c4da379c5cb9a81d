"""The cost of a fleet, extrapolated from the measured cost of one worker; nothing is measured here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fleet_site import LINE_BYTES, Cost

PAGE = 1000
"""Keys in one reply to a LIST, of S3."""

FILE_DOCUMENTS = 10_000
"""Documents in a file of the extrapolated archive: JSON Lines of 2 kB each, 20 MB a file."""

PART_S = 60
"""Seconds between two parts of an output: output.part_seconds."""

RATE = 20.0
"""Documents a second that one worker's servers answer, for the number of parts; an assumption, not a measurement."""


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

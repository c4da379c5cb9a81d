"""Peak memory and CPU of a run with long documents of many windows, beside the same run without them.

The stub lists the same rows of each window at once, so that there is something to merge; the peak is the child's own,
as the kernel counts it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.site import COMMAND, Figure, Stub, measured, stub_server, table, text_of, write_site

SHORT = 200
"""Documents of one window's size in each run, so that the run without long ones has warmed up, too."""
IN_FLIGHT = 32
BYTES_PER_TOKEN = 4
STRIDE_SHARE = 0.945
"""Distance between the starts of two windows, as a share of a window's size: they end with a sentence, and overlap."""
LAW_MB = 150
ROWS = 4
_ROW = {"quarter": "Q1", "change": "a tenth", "amount": 1240.5, "quote": "profits rose by a tenth, said the board."}
ANSWER = json.dumps({"title": "Profits", "rows": [_ROW] * ROWS})
_TEXT = {"type": "string", "maxLength": 40}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {**_TEXT, "x-merge": "first"},
        "rows": {
            "type": "array",
            "x-window-items": 20,
            "x-merge": "concat",
            "items": {
                "type": "object",
                "properties": {
                    "quarter": _TEXT,
                    "change": _TEXT,
                    "amount": {"type": "number"},
                    "quote": {"type": "string", "maxLength": 100, "x-quote": True},
                },
                "required": list(_ROW),
                "additionalProperties": False,
            },
        },
    },
    "required": ["title", "rows"],
    "additionalProperties": False,
}
HEAD = ("long documents", "windows of each", "peak", "over none", "CPU", "CPU a window", "time")


@dataclass(frozen=True, slots=True)
class Point:
    """The costs of one run. `windows`: of all its long documents, by their records."""

    documents: int
    windows: int
    peak_mb: float
    cpu_s: float
    wall_s: float


def agent(window_tokens: int) -> dict[str, Any]:
    """Return an agent whose documents are cut into windows of this many tokens."""
    return {
        "system_prompt": "List the rows.\n",
        "user_prompt": "<document>\n$document\n</document>\n",
        "max_tokens": 1024,
        "overflow": "split",
        "split": {"window_tokens": window_tokens},
        "schema": SCHEMA,
    }


def measure(documents: int, windows: int, *, window_tokens: int, stub: Stub, folder: Path) -> Point:
    """Run some short documents and the given number of long ones, each of about this many windows."""
    site = folder / f"{documents}-{windows}"
    settings = {"runner.concurrency": IN_FLIGHT, "runner.duplicates": "ask", "input.max_document_bytes": 1 << 30}
    write_site(site, stub.url, dialect="vllm", settings=settings, agent=agent(window_tokens))
    (site / "inbox").mkdir()
    for number in range(SHORT):
        (site / "inbox" / f"a-{number:06}.txt").write_text(text_of(window_tokens, number), encoding="utf-8")
    size = int(windows * window_tokens * BYTES_PER_TOKEN * STRIDE_SHARE)
    for number in range(documents):
        (site / "inbox" / f"b-{number:06}.txt").write_text(text_of(size, number), encoding="utf-8")
    began = time.monotonic()
    cost = measured((*COMMAND, "run", "--quiet"), site)
    wall_s = time.monotonic() - began
    counts = list(window_counts(site / "out" / "results.jsonl"))
    if len(counts) != documents:
        raise RuntimeError(f"{len(counts)} of {documents} long documents have a result")
    return Point(documents, sum(counts), cost.peak_mb, cost.cpu_s, wall_s)


def window_counts(results: Path) -> Iterator[int]:
    """Yield the number of windows of each long document."""
    with results.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["windows"] is not None:
                yield len(record["windows"]["rows"])


def points(counts: Sequence[int], windows: int, *, window_tokens: int) -> Iterator[Point]:
    """Yield the costs of each number of long documents, first without any."""
    with stub_server(0.0, answer=ANSWER) as stub:
        for documents in (0, *counts):
            with tempfile.TemporaryDirectory(prefix="bench-long-") as name:
                yield measure(documents, windows, window_tokens=window_tokens, stub=stub, folder=Path(name))


def row(point: Point, none: Point) -> list[object]:
    """Return a row of the table."""
    windows_each = point.windows / point.documents if point.documents else 0
    cpu_ms = (point.cpu_s - none.cpu_s) / point.windows * 1000 if point.windows else 0
    return [
        point.documents,
        f"{windows_each:,.0f}",
        f"{point.peak_mb:.0f} MB",
        f"{point.peak_mb - none.peak_mb:+.0f} MB",
        f"{point.cpu_s:.1f} s",
        f"{cpu_ms:.2f} ms" if point.windows else "-",
        f"{point.wall_s:.1f} s",
    ]


def rows(counts: Sequence[int], windows: int, *, window_tokens: int) -> Iterator[list[object]]:
    """Yield the rows of the table, each as soon as it is measured."""
    none: Point | None = None
    for point in points(counts, windows, window_tokens=window_tokens):
        none = none or point
        cells = row(point, none)
        print("  ", *cells, file=sys.stderr, flush=True)
        yield cells


def short() -> Iterator[Figure]:
    """Ten long documents of 500 windows."""
    none, some = points([10], 500, window_tokens=256)
    result = f"{some.peak_mb:.0f} MB at most, {some.peak_mb - none.peak_mb:+.0f} MB over none"
    yield Figure(f"a run with 10 long documents of {some.windows / 10:,.0f} windows", result, f"+{LAW_MB} MB")


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[20, 200], help="long documents of each run")
    parser.add_argument("--windows", type=int, default=1000, help="of each long document")
    parser.add_argument("--window-tokens", type=int, default=256)
    options = parser.parse_args()
    print(table(HEAD, list(rows(options.documents, options.windows, window_tokens=options.window_tokens))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compare the CPU of a window with that of a short document of the same size, within one interleaved run.

A run with one document of many windows and a run with as many short documents take turns; the start-up, measured
with a run of one short document, is subtracted from both. The stub lists the same rows of each text at once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.long import ANSWER, BYTES_PER_TOKEN, IN_FLIGHT, agent, window_counts
from bench.ratios import load
from bench.site import COMMAND, Figure, Stub, measured, stub_server, table, text_of, write_site

AIM = 1.05
LONG = "one long document"
SHORT = "short documents"
START = "start-up"
HEAD = ("run", "texts", "CPU a text, median", "time a text, median")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU and time of one run, in seconds. `texts`: its windows, or its short documents."""

    texts: int
    cpu_s: float
    wall_s: float


def measure(name: str, texts: int, *, window_tokens: int, stub: Stub) -> Cost:
    """Run a long document of about this many windows, or this many short documents of a window's size each."""
    with tempfile.TemporaryDirectory(prefix="bench-windows-") as folder:
        site = Path(folder)
        settings = {"runner.concurrency": IN_FLIGHT, "runner.duplicates": "ask"}
        write_site(site, stub.url, dialect="vllm", settings=settings, agent=agent(window_tokens))
        (site / "inbox").mkdir()
        size = window_tokens * BYTES_PER_TOKEN
        if name == LONG:
            (site / "inbox" / "long.txt").write_text(text_of(texts * size, 0), encoding="utf-8")
        else:
            for number in range(texts):
                (site / "inbox" / f"{number:06}.txt").write_text(text_of(size, number), encoding="utf-8")
        began = time.monotonic()
        cpu_s = measured((*COMMAND, "run", "--quiet"), site).cpu_s
        wall_s = time.monotonic() - began
        return Cost(sum(window_counts(site / "out" / "results.jsonl")) or texts, cpu_s, wall_s)


def costs(rounds: int, windows: int, *, window_tokens: int) -> Iterator[tuple[str, Cost]]:
    """Yield the cost of each kind of run in each round; the order changes from round to round."""
    with stub_server(0.0, answer=ANSWER) as stub:
        for turn in range(rounds):
            runs = [(START, 1), (LONG, windows), (SHORT, windows)]
            for name, texts in runs[turn % 3 :] + runs[: turn % 3]:
                cost = measure(name, texts, window_tokens=window_tokens, stub=stub)
                print(f"  {name}: {cost.texts:,} in {cost.cpu_s:.2f} s of CPU", file=sys.stderr, flush=True)
                yield name, cost


def medians(rounds: int, windows: int, *, window_tokens: int) -> dict[str, tuple[int, float, float]]:
    """Return the texts of a run, and milliseconds of CPU and of time a text, for long and short documents."""
    by_name: dict[str, list[Cost]] = {}
    for name, cost in costs(rounds, windows, window_tokens=window_tokens):
        by_name.setdefault(name, []).append(cost)
    start_cpu_s = statistics.median(cost.cpu_s for cost in by_name[START])
    start_wall_s = statistics.median(cost.wall_s for cost in by_name[START])
    return {
        name: (
            by_name[name][0].texts,
            statistics.median((cost.cpu_s - start_cpu_s) / cost.texts for cost in by_name[name]) * 1000,
            statistics.median((cost.wall_s - start_wall_s) / cost.texts for cost in by_name[name]) * 1000,
        )
        for name in (LONG, SHORT)
    }


def short() -> Iterator[Figure]:
    """Measure three rounds of 1,000 windows."""
    result = medians(3, 1000, window_tokens=256)
    ratio = result[LONG][1] / result[SHORT][1]
    yield Figure("CPU a window, to that of a short document", f"{ratio:.2f} ({load()})", f"≤ {AIM}")


def main() -> int:
    """Print the table and the ratio; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--window-tokens", type=int, default=256)
    options = parser.parse_args()
    result = medians(options.rounds, options.windows, window_tokens=options.window_tokens)
    rows = [(name, f"{texts:,}", f"{cpu:.3f} ms", f"{wall:.3f} ms") for name, (texts, cpu, wall) in result.items()]
    print(table(HEAD, rows))
    print(f"\nCPU a window, to that of a short document: {result[LONG][1] / result[SHORT][1]:.2f} ({load()})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

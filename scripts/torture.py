"""The torture run: kills, outages and faults of every kind, and every document held against what it allows.

It must not need anything but this machine: the server is the fake one on 127.0.0.1, and all files are in one folder.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from torture_campaign import Campaign, Tally
from torture_corpus import make_corpus
from torture_server import Book, make_server
from torture_site import CONCURRENCY, Site

EXAMPLE = """example:
  python scripts/torture.py --seed 1 --documents 2000 --seconds 120
  python scripts/torture.py --seed 7 --dialect ollama --keep torture-7"""
DIALECTS = {"vllm": ("vllm",), "ollama": ("ollama",), "both": ("vllm", "ollama")}
SHOWN = 20


def arguments() -> argparse.Namespace:
    """Returns the command line."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=kind)
    parser.add_argument("--seed", type=int, default=1, help="all chance comes from it")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=120.0, help="of trouble, before the end in peace")
    parser.add_argument("--dialect", choices=sorted(DIALECTS), default="both")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep all files here")
    return parser.parse_args()


def main() -> int:
    """Tortures; returns 0 when nothing was wrong, else 1."""
    asked = arguments()
    # A shell's background jobs are started deaf to SIGINT, and so would be ours.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    root = asked.keep or Path(tempfile.mkdtemp(prefix="torture-"))
    dialects = DIALECTS[asked.dialect]
    met: Counter[str] = Counter()
    tallies, requests, documents = [], 0, asked.documents // len(dialects)
    try:
        for dialect in dialects:
            book, tally = campaign(
                root / dialect, dialect, seed=asked.seed, documents=documents, seconds=asked.seconds / len(dialects)
            )
            tallies.append(tally)
            met += book.met
            requests += book.total
    finally:
        if asked.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    print(f"\nseed {asked.seed}, {time.monotonic() - started:.0f} s")
    return told(tallies, documents=documents * len(dialects), requests=requests, met=met)


def campaign(root: Path, dialect: str, *, seed: int, documents: int, seconds: float) -> tuple[Book, Tally]:
    """Returns what one dialect's campaign met and what happened in it."""
    rng = random.Random(f"{seed} {dialect}")
    corpus = make_corpus(root / "inbox", documents, rng)
    book, key = Book(corpus), f"torture-key-{rng.getrandbits(64):016x}"
    # Slow enough that there is work for the whole time.
    latency_s = min(0.4, CONCURRENCY * seconds * 0.4 / documents)
    with make_server(book, key=key, dialect=dialect, latency_s=latency_s) as server:
        site = Site(root, dialect, server.url, key)
        site.prepare()
        ran = Campaign(
            site, corpus, server=server, book=book, rng=rng, say=lambda text: print(f"{dialect} {text}", flush=True)
        )
        return book, ran.run(seconds)


def told(tallies: list[Tally], *, documents: int, requests: int, met: Counter[str]) -> int:
    """Prints the table and what is wrong; returns the exit code."""
    kills, happened, wrong = Counter[str](), Counter[str](), dict[str, list[str]]()
    for tally in tallies:
        kills += tally.kills
        happened += tally.happened
        for name, found in tally.findings.rows().items():
            wrong.setdefault(name, []).extend(found)
    rows: dict[str, object] = {"documents": documents, "runs": sum(tally.runs for tally in tallies)}
    rows |= {f"kills by {name}": count for name, count in sorted(kills.items())}
    rows |= dict(sorted(happened.items()))
    rows |= {"requests": requests, "faults met": sum(met.values())}
    rows |= {name: len(found) for name, found in wrong.items()}
    for name, value in rows.items():
        print(f"  {name:<24}{value:>8}")
    print("faults met by kind: " + ", ".join(f"{name} {count}" for name, count in sorted(met.items())))
    for name, found in wrong.items():
        for sentence in found[:SHOWN]:
            print(f"{name}: {sentence}")
        if len(found) > SHOWN:
            print(f"{name}: and {len(found) - SHOWN} more")
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

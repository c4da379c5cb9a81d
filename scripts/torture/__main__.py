"""The torture run: kills, outages and faults of every kind, and every document held against what it allows.

It must not need anything but this machine: the server is the fake one on 127.0.0.1, and all files are in one folder.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path[0] = str(
    Path(__file__).resolve().parents[1]
)  # run as `python scripts/torture`: find the packages beside this one

from torture.campaign import Campaign, RunCounts
from torture.corpus import make_corpus
from torture.inbox import Inbox, bucket_inbox, folder_inbox
from torture.server import Book, make_server
from torture.site import CONCURRENCY, Site

EXAMPLE = """example:
  python scripts/torture --seed 1 --documents 2000 --seconds 120
  python scripts/torture --minutes 30
  python scripts/torture --seed 7 --dialect ollama --keep torture-7"""
DIALECTS = {"vllm": ("vllm",), "ollama": ("ollama",), "both": ("vllm", "ollama")}
INPUTS = ("folder", "bucket", "both")
SHOWN = 20


@dataclass(slots=True)
class Total:
    """What all rounds came to."""

    rounds: int = 0
    documents: int = 0
    requests: int = 0
    met: Counter[str] = field(default_factory=Counter)
    tallies: list[RunCounts] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Returns whether nothing was wrong."""
        return not any(found for tally in self.tallies for found in tally.findings.rows().values())


def arguments() -> argparse.Namespace:
    """Returns the command line."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=kind)
    parser.add_argument("--seed", type=int, default=None, help="all chance comes from it; default: a random one")
    parser.add_argument("--documents", type=int, default=1000, help="of each round")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of trouble in each round, before its end in peace"
    )
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="more rounds, each with the next seed, for this long"
    )
    parser.add_argument("--dialect", choices=sorted(DIALECTS), default="both")
    parser.add_argument(
        "--input",
        choices=INPUTS,
        default="both",
        help="where documents lie; both: in each round one dialect's in a bucket",
    )
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep all files here")
    return parser.parse_args()


def main() -> int:
    """Tortures; returns 0 when nothing was wrong, else 1."""
    asked = arguments()
    # A shell's background jobs are started deaf to SIGINT, and so would be ours.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started, total = time.monotonic(), Total()
    first = random.randrange(10**6) if asked.seed is None else asked.seed
    root = asked.keep or Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        for seed in itertools.count(first):
            one_round(total, asked, seed=seed, root=root / str(seed))
            if time.monotonic() - started >= asked.minutes * 60:
                break
    finally:
        if asked.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    seeds = f"seed {first}" if total.rounds == 1 else f"seeds {first} to {first + total.rounds - 1}"
    print(f"\n{seeds}, {time.monotonic() - started:.0f} s")
    return told(total)


def one_round(total: Total, asked: argparse.Namespace, *, seed: int, root: Path) -> None:
    """Adds the campaigns of one seed to the total, half of the documents and the time for each dialect."""
    dialects = DIALECTS[asked.dialect]
    share = len(dialects)
    for number, dialect in enumerate(dialects):
        folder, kind = root / dialect, asked.input
        in_bucket = kind == "bucket" or (kind == "both" and (seed + number) % 2 == 0)
        documents, seconds = asked.documents // share, asked.seconds / share
        with inbox_in(folder, in_bucket=in_bucket) as inbox:
            book, tally = campaign(folder, dialect, inbox, seed=seed, documents=documents, seconds=seconds)
        total.tallies.append(tally)
        total.met += book.met
        total.requests += book.total
        total.documents += asked.documents // share
    total.rounds += 1
    if total.is_clean and asked.minutes:
        shutil.rmtree(root)


@contextmanager
def inbox_in(folder: Path, *, in_bucket: bool) -> Iterator[Inbox]:
    """Yields the input of a campaign."""
    if not in_bucket:
        yield folder_inbox(folder / "inbox")
        return
    with bucket_inbox("inbox") as inbox:
        yield inbox


def campaign(
    root: Path, dialect: str, inbox: Inbox, *, seed: int, documents: int, seconds: float
) -> tuple[Book, RunCounts]:
    """Returns what one dialect's campaign met and what happened in it."""
    rng = random.Random(f"{seed} {dialect}")
    corpus = make_corpus(inbox, documents, rng)
    book, key = Book(corpus), f"torture-key-{rng.getrandbits(64):016x}"
    # Slow enough that there is work for the whole time.
    latency_s = min(0.4, CONCURRENCY * seconds * 0.4 / documents)
    with make_server(book, key=key, dialect=dialect, latency_s=latency_s) as server:
        site = Site(root, inbox, dialect, server.url, key)
        site.prepare()
        ran = Campaign(
            site, corpus, server=server, book=book, rng=rng, say=lambda text: print(f"{dialect} {text}", flush=True)
        )
        return book, ran.run(seconds)


def told(total: Total) -> int:
    """Prints the table and what is wrong; returns the exit code."""
    kills, happened, wrong = Counter[str](), Counter[str](), dict[str, list[str]]()
    for tally in total.tallies:
        kills += tally.kills
        happened += tally.happened
        for name, found in tally.findings.rows().items():
            wrong.setdefault(name, []).extend(found)
    rows: dict[str, object] = {"documents": total.documents, "runs": sum(tally.runs for tally in total.tallies)}
    rows |= {f"kills by {name}": count for name, count in sorted(kills.items())}
    rows |= dict(sorted(happened.items()))
    rows |= {"requests": total.requests, "faults met": sum(total.met.values())}
    rows |= {name: len(found) for name, found in wrong.items()}
    for name, value in rows.items():
        print(f"  {name:<24}{value:>8}")
    print("faults met by kind: " + ", ".join(f"{name} {count}" for name, count in sorted(total.met.items())))
    for name, found in wrong.items():
        for sentence in found[:SHOWN]:
            print(f"{name}: {sentence}")
        if len(found) > SHOWN:
            print(f"{name}: and {len(found) - SHOWN} more")
    return 0 if total.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())

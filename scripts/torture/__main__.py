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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path[0] = str(
    Path(__file__).resolve().parents[1]
)  # run as `python scripts/torture`: find the packages beside this one

from s3_faults import FaultProxy
from s3_server import s3_server

from torture.campaign import Campaign, RunCounts
from torture.corpus import make_corpus
from torture.inbox import Inbox, bucket_inbox, folder_inbox
from torture.outbox import Outbox, bucket_outbox, folder_outbox
from torture.server import Book, make_server
from torture.site import CONCURRENCY, Site

EXAMPLE = """example:
  python scripts/torture --seed 1 --documents 2000 --seconds 120
  python scripts/torture --minutes 30
  python scripts/torture --seed 7 --dialect ollama --keep torture-7"""
DIALECTS = {"vllm": ("vllm",), "ollama": ("ollama",), "both": ("vllm", "ollama")}
PLACES = ("folder", "bucket", "both")
BUCKET = "tests"
SHOWN = 20
LONG = 0.1
"""The share of long documents: each takes about ten requests, so half of the requests are for windows."""


@dataclass(slots=True)
class Total:
    """What all rounds came to."""

    rounds: int = 0
    documents: int = 0
    requests: int = 0
    windows: int = 0
    met: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    tallies: list[RunCounts] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Return whether nothing was wrong."""
        return not any(found for tally in self.tallies for found in tally.findings.rows().values())


def arguments() -> argparse.Namespace:
    """Return the command line."""
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
        choices=PLACES,
        default="both",
        help="where documents lie; both: in each round one dialect's in a bucket",
    )
    parser.add_argument(
        "--output",
        choices=PLACES,
        default="both",
        help="where runs write; both: a bucket in every other round, so that two rounds see all four combinations",
    )
    parser.add_argument("--processes", type=int, default=1, help="runner.processes; with more than 1, some are killed")
    parser.add_argument(
        "--long",
        type=float,
        default=LONG,
        metavar="SHARE",
        help=f"of long documents, which are cut into windows; default: {LONG}",
    )
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep all files here")
    return parser.parse_args()


def main() -> int:
    """Tortures and return 0 when nothing was wrong, else 1."""
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
    """Add the campaigns of one seed to the total, half of the documents and the time for each dialect.

    Of both places, the input alternates by round and dialect, the output by pairs of rounds and dialect.
    """
    dialects = DIALECTS[asked.dialect]
    share = len(dialects)
    for number, dialect in enumerate(dialects):
        folder = root / dialect
        reads = asked.input == "bucket" or (asked.input == "both" and (seed + number) % 2 == 0)
        writes = asked.output == "bucket" or (asked.output == "both" and (seed // 2 + number) % 2 == 0)
        documents, seconds = asked.documents // share, asked.seconds / share
        with places(folder, reads=reads, writes=writes) as (inbox, outbox):
            size = {"documents": documents, "seconds": seconds, "processes": asked.processes}
            book, tally = campaign(folder, dialect, inbox, outbox, seed=seed, long=asked.long, **size)
        way = f"from a {'bucket' if reads else 'folder'} into a {'bucket' if writes else 'folder'}"
        total.places[way] += 1
        total.tallies.append(tally)
        total.met += book.met
        total.requests += book.total
        total.windows += book.windows
        total.documents += asked.documents // share
    total.rounds += 1
    if total.is_clean and asked.minutes:
        shutil.rmtree(root)


@contextmanager
def places(folder: Path, *, reads: bool, writes: bool) -> Iterator[tuple[Inbox, Outbox]]:
    """Yield input and output of a campaign; each bucket is behind a proxy of its own, so that one can fail alone."""
    if not (reads or writes):
        yield folder_inbox(folder / "inbox"), folder_outbox(folder / "out")
        return
    with s3_server() as server, FaultProxy(server.port) as source, FaultProxy(server.port) as target:
        yield (
            bucket_inbox(BUCKET, "inbox", proxy=source, environ=server.env)
            if reads
            else folder_inbox(folder / "inbox"),
            bucket_outbox(BUCKET, "out", proxy=target, environ=server.env) if writes else folder_outbox(folder / "out"),
        )


def campaign(
    root: Path,
    dialect: str,
    inbox: Inbox,
    outbox: Outbox,
    *,
    seed: int,
    documents: int,
    seconds: float,
    processes: int,
    long: float,
) -> tuple[Book, RunCounts]:
    """Return what one dialect's campaign met and what happened in it."""
    rng = random.Random(f"{seed} {dialect}")
    corpus = make_corpus(inbox, documents, rng, long=long)
    book, key = Book(corpus), f"torture-key-{rng.getrandbits(64):016x}"
    # Slow enough that there is work for the whole time.
    latency_s = min(0.4, CONCURRENCY * seconds * 0.4 / (documents * (1 + 10 * long)))
    with make_server(book, key=key, dialect=dialect, latency_s=latency_s) as server:
        site = Site(root, inbox, outbox, dialect, server.url, key, processes, splits=long > 0)
        site.prepare()
        ran = Campaign(
            site, corpus, server=server, book=book, rng=rng, say=lambda text: print(f"{dialect} {text}", flush=True)
        )
        return book, ran.run(seconds)


def told(total: Total) -> int:
    """Print the table and what is wrong and return the exit code."""
    kills, happened, wrong = Counter[str](), Counter[str](), dict[str, list[str]]()
    for tally in total.tallies:
        kills += tally.kills
        happened += tally.happened
        for name, found in tally.findings.rows().items():
            wrong.setdefault(name, []).extend(found)
    for name, found in wrong.items():
        for sentence in found[:SHOWN]:
            print(f"{name}: {sentence}")
        if len(found) > SHOWN:
            print(f"{name}: and {len(found) - SHOWN} more")
    _print_rows("FAULTS OF THE SERVER, by document and request", dict(sorted(total.met.items())))
    rows = {f"campaigns {name}": count for name, count in sorted(total.places.items())}
    rows |= {"documents": total.documents, "runs": sum(tally.runs for tally in total.tallies)}
    rows |= {f"kills by {name}": count for name, count in sorted(kills.items())}
    rows |= dict(sorted(happened.items()))
    rows |= {"requests": total.requests, "requests about windows": total.windows, "faults met": sum(total.met.values())}
    _print_rows("WHAT HAPPENED", rows)
    _print_rows("WHAT WENT WRONG", {name: len(found) for name, found in wrong.items()})
    print("CLEAN: nothing went wrong" if total.is_clean else "NOT CLEAN: see the sentences above")
    return 0 if total.is_clean else 1


def _print_rows(title: str, rows: Mapping[str, int]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<44}{value:>8}")


if __name__ == "__main__":
    sys.exit(main())

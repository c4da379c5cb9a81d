"""Torture run: kill runs, cause outages and faults of every kind, and check that each document ends as it must.

It needs only this machine: the server is the fake one on 127.0.0.1, and all files are in one folder.
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

from torture.campaign import Campaign
from torture.corpus import make_corpus
from torture.counts import RunCounts
from torture.inbox import Inbox, bucket_inbox, folder_inbox
from torture.outbox import Outbox, bucket_outbox, folder_outbox
from torture.server import RequestLedger, make_server
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
    """The totals of all rounds."""

    rounds: int = 0
    documents: int = 0
    requests: int = 0
    windows: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    campaigns: list[RunCounts] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Return whether no fault was found."""
        return not any(sentences for counts in self.campaigns for sentences in counts.findings.rows().values())


def arguments() -> argparse.Namespace:
    """Return the command line."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=kind)
    parser.add_argument("--seed", type=int, default=None, help="seed of all random choices (default: a random one)")
    parser.add_argument("--documents", type=int, default=1000, help="documents of each round (default: 1000)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=120.0,
        help="seconds of trouble in each round, before its quiet end (default: 120)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=0.0,
        help="start further rounds, each with the next seed, for this many minutes",
    )
    parser.add_argument("--dialect", choices=sorted(DIALECTS), default="both")
    parser.add_argument(
        "--input",
        choices=PLACES,
        default="both",
        help="where the documents are; both: in each round one dialect reads from a bucket",
    )
    parser.add_argument(
        "--output",
        choices=PLACES,
        default="both",
        help="where runs write; both: a bucket in every other round, so that two rounds cover all four combinations",
    )
    parser.add_argument("--processes", type=int, default=1, help="runner.processes; with more than 1, some are killed")
    parser.add_argument(
        "--long",
        type=float,
        default=LONG,
        metavar="SHARE",
        help=f"share of long documents, which are split into windows (default: {LONG})",
    )
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep all files in this folder")
    return parser.parse_args()


def main() -> int:
    """Run the rounds; return 0 if no fault was found, else 1."""
    options = arguments()
    # A shell starts background jobs with SIGINT ignored, which child processes would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    total = Total()
    first = random.randrange(10**6) if options.seed is None else options.seed
    root = options.keep or Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        for seed in itertools.count(first):
            one_round(total, options, seed=seed, root=root / str(seed))
            if time.monotonic() - started >= options.minutes * 60:
                break
    finally:
        if options.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    seeds = f"seed {first}" if total.rounds == 1 else f"seeds {first} to {first + total.rounds - 1}"
    print(f"\n{seeds}, {time.monotonic() - started:.0f} s")
    return print_report(total)


def one_round(total: Total, options: argparse.Namespace, *, seed: int, root: Path) -> None:
    """Run a campaign per dialect and add it to the total; documents and time are divided among the dialects.

    With both places, the input alternates every round, the output every two rounds; the dialects take opposite places.
    """
    dialects = DIALECTS[options.dialect]
    share = len(dialects)
    for number, dialect in enumerate(dialects):
        folder = root / dialect
        reads = options.input == "bucket" or (options.input == "both" and (seed + number) % 2 == 0)
        writes = options.output == "bucket" or (options.output == "both" and (seed // 2 + number) % 2 == 0)
        documents = options.documents // share
        seconds = options.seconds / share
        with places(folder, reads=reads, writes=writes) as (inbox, outbox):
            size = {"documents": documents, "seconds": seconds, "processes": options.processes}
            ledger, counts = campaign(folder, dialect, inbox, outbox, seed=seed, long=options.long, **size)
        way = f"from a {'bucket' if reads else 'folder'} into a {'bucket' if writes else 'folder'}"
        total.places[way] += 1
        total.campaigns.append(counts)
        total.faults += ledger.faults
        total.requests += ledger.total
        total.windows += ledger.windows
        total.documents += options.documents // share
    total.rounds += 1
    if total.is_clean and options.minutes:
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
) -> tuple[RequestLedger, RunCounts]:
    """Run one dialect's campaign; return its requests and its counts."""
    rng = random.Random(f"{seed} {dialect}")
    corpus = make_corpus(inbox, documents, rng, long=long)
    ledger = RequestLedger(corpus)
    key = f"torture-key-{rng.getrandbits(64):016x}"
    # Slow enough that there is work for the whole time.
    latency_s = min(0.4, CONCURRENCY * seconds * 0.4 / (documents * (1 + 10 * long)))
    with make_server(ledger, key=key, dialect=dialect, latency_s=latency_s) as server:
        site = Site(root, inbox, outbox, dialect, server.url, key, processes, splits=long > 0)
        site.prepare()
        ran = Campaign(
            site, corpus, server=server, ledger=ledger, rng=rng, say=lambda text: print(f"{dialect} {text}", flush=True)
        )
        return ledger, ran.run(seconds)


def print_report(total: Total) -> int:
    """Print the faults and the tables; return the exit code."""
    kills = Counter[str]()
    happened = Counter[str]()
    wrong: dict[str, list[str]] = {}
    for counts in total.campaigns:
        kills += counts.kills
        happened += counts.happened
        for name, sentences in counts.findings.rows().items():
            wrong.setdefault(name, []).extend(sentences)
    for name, sentences in wrong.items():
        for sentence in sentences[:SHOWN]:
            print(f"{name}: {sentence}")
        if len(sentences) > SHOWN:
            print(f"{name}: and {len(sentences) - SHOWN} more")
    _print_rows("FAULTS OF THE SERVER, by document and request", dict(sorted(total.faults.items())))
    rows = {f"campaigns {name}": count for name, count in sorted(total.places.items())}
    rows |= {"documents": total.documents, "runs": sum(counts.runs for counts in total.campaigns)}
    rows |= {f"kills by {name}": count for name, count in sorted(kills.items())}
    rows |= dict(sorted(happened.items()))
    rows |= {
        "requests": total.requests,
        "requests about windows": total.windows,
        "faults met": sum(total.faults.values()),
    }
    _print_rows("WHAT HAPPENED", rows)
    _print_rows("WHAT WENT WRONG", {name: len(sentences) for name, sentences in wrong.items()})
    print("CLEAN: nothing went wrong" if total.is_clean else "NOT CLEAN: see the sentences above")
    return 0 if total.is_clean else 1


def _print_rows(title: str, rows: Mapping[str, int]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<44}{value:>8}")


if __name__ == "__main__":
    sys.exit(main())

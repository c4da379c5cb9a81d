"""Count the verification requests that an honest server gets in a run, by kind of corpus.

    python scripts/verification_requests.py [--documents 300]   # each order of lengths, two context lengths
    python scripts/verification_requests.py --posts 100000      # short posts in several scripts; takes some minutes

Runs the installed `pipeline` on one JSONL file against a server that reports its token counts (cutting_llm.py). Exits
with 1 if a run sends more than 40 verification requests, or a record has the note `prompt_length_unverified`.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.site import clean_environment
from cutting_llm import MODEL, WAYS, CuttingLLM

WORDS = ("profit", "rose", "the", "company", "12", "per", "cent", "said,")
POSTS = (
    ("profit ", "rose ", "the ", "company ", "12 ", "said, ", "https://t.example/ab3 ", "#news "),
    ("прибыль ", "выросла ", "компания ", "в ", "2025 "),
    ("利润", "上升", "公司", "百分之", "，"),
    ("κέρδη ", "εταιρεία ", "😀", "👩‍👩‍👧 ", "🇩🇪", "é"),
    ("QmFzZTY0", "Zm9v", "YmFy", "0123", "+/"),
)
ORDERS = ("ascending", "descending", "random", "one long among short")
MOST_REQUESTS = 40
UNVERIFIED = "prompt_length_unverified"
CONFIG = {
    "provider": "vllm",
    "agent": "small",
    "agents_dir": ".",
    "input": {"uri": "inbox.jsonl"},
    "vllm": {"type": "openai", "model": MODEL},
    "runner": {"max_error_rate": 1, "concurrency": 4, "fail_fast": 0, "abort_error_rate": 1},
}
SENTENCE = "Sum the text up. "
POST_SENTENCES = 120
"""Sentences of the system prompt for posts: with them a post has more than 512 tokens, and must be verified."""


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Counts of one run: verification requests, records and records with the note."""

    requests: int
    done: int
    failed: int
    noted: int
    elapsed_s: float

    @property
    def is_within_limits(self) -> bool:
        """Return whether the verification cost little and raised no false alarm."""
        return self.requests <= MOST_REQUESTS and self.noted == 0

    def __str__(self) -> str:
        """Return a row of the table."""
        counts = f"{self.requests:>3} verification requests, {self.done} done, {self.failed} failed, {self.noted} noted"
        return f"{counts}, {self.elapsed_s:.0f} s"


def agent(sentences: int) -> dict[str, object]:
    """Return an agent whose system prompt has this many sentences."""
    return {
        "description": "one sentence about a text",
        "system_prompt": SENTENCE * sentences,
        "user_prompt": "$document",
        "schema": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
    }


def lengths(order: str, documents: int) -> list[int]:
    """Return the number of words of each document."""
    rng = random.Random(3)
    if order == "one long among short":
        return [60_000 if number == documents // 2 else 300 for number in range(documents)]
    sizes = [int(10 ** rng.uniform(1, 4.3)) for _ in range(documents)]
    return sizes if order == "random" else sorted(sizes, reverse=order == "descending")


def articles(order: str, documents: int) -> Iterator[str]:
    """Yield texts whose lengths follow an order."""
    rng = random.Random(5)
    return (" ".join(rng.choices(WORDS, k=words)) for words in lengths(order, documents))


def posts(documents: int) -> Iterator[str]:
    """Yield short posts in several scripts, with emoji and base64, some without white space, some of several lines."""
    rng = random.Random(5)
    for _ in range(documents):
        yield "".join(rng.choices(rng.choice(POSTS), k=rng.randrange(3, 60))) + rng.choice(("", "\n\n", "."))


def run(texts: Iterable[str], *, context: int, way: str, sentences: int = 30) -> RunCounts:
    """Run the pipeline over the texts and return its counts."""
    with tempfile.TemporaryDirectory() as folder, CuttingLLM(way, context=context) as server:
        place = Path(folder)
        with (place / "inbox.jsonl").open("w", encoding="utf-8") as inbox:
            inbox.writelines(
                f"{json.dumps({'text': f'[[doc:{number}]] {text}'})}\n" for number, text in enumerate(texts)
            )
        (place / "small.yaml").write_text(json.dumps(agent(sentences)), encoding="utf-8")
        (place / "config.yaml").write_text(json.dumps(CONFIG), encoding="utf-8")
        address = ["--set", f"vllm.base_url={server.url}"]
        command = [sys.executable, "-m", "pipeline", "run", "--quiet", "--config", "config.yaml", *address]
        began = time.monotonic()
        ended = subprocess.run(command, cwd=place, env=clean_environment(), capture_output=True, text=True, check=False)
        if ended.returncode not in (0, 1):
            raise SystemExit(f"exit code {ended.returncode}: {ended.stderr[-500:]}")
        elapsed_s = time.monotonic() - began
        counts = json.loads((place / "out" / "report.json").read_text(encoding="utf-8"))["run"]["counts"]
        with (place / "out" / "results.jsonl").open(encoding="utf-8") as results:
            noted = sum(UNVERIFIED in json.loads(line)["notes"] for line in results)
        return RunCounts(server.verification_requests, counts["done"], counts["failed"], noted, elapsed_s)


def main() -> int:
    """Print a row for each run; return 1 if one exceeds the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=300, help="documents per run (default: 300)")
    parser.add_argument("--posts", type=int, help="number of short posts to send instead of documents")
    parser.add_argument("--way", choices=WAYS, default="refuse", help="how the server treats a longer prompt")
    flags = parser.parse_args()
    runs = []
    if flags.posts:
        runs.append(run(posts(flags.posts), context=8192, way=flags.way, sentences=POST_SENTENCES))
        print(f"{flags.posts} posts: {runs[-1]}", flush=True)
        return 0 if runs[-1].is_within_limits else 1
    for context in (8192, 131_072):
        for order in ORDERS:
            runs.append(run(articles(order, flags.documents), context=context, way=flags.way))
            print(f"context {context:>7,}  {order:<21} {runs[-1]}", flush=True)
    return 0 if all(counts.is_within_limits for counts in runs) else 1


if __name__ == "__main__":
    sys.exit(main())

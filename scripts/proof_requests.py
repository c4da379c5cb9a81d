"""Print how many proof requests an honest server gets in a run, and how many records are noted, by kind of corpus.

    python scripts/proof_requests.py [--documents 300]          # each order of lengths, two contexts
    python scripts/proof_requests.py --posts 100000             # short posts of several scripts, some minutes

It runs the installed `pipeline` against a server that counts (cutting_llm.py); the input is one JSONL file. At most 40
proof requests and no note are right; the exit code is 1 otherwise.
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
"""Sentences of the system prompt of posts: with them a post has more than 512 tokens, and needs a proof."""


@dataclass(frozen=True, slots=True)
class Ran:
    """Results of one run: proof requests, records and notes."""

    proofs: int
    done: int
    failed: int
    noted: int
    elapsed_s: float

    @property
    def is_right(self) -> bool:
        """Return whether the proofs cost little and raised no false alarm."""
        return self.proofs <= MOST_REQUESTS and self.noted == 0

    def __str__(self) -> str:
        """Return the line of the table."""
        counts = f"{self.proofs:>3} proof requests, {self.done} done, {self.failed} failed, {self.noted} noted"
        return f"{counts}, {self.elapsed_s:.0f} s"


def agent(sentences: int) -> dict[str, object]:
    """Return an agent whose system prompt has so many sentences."""
    return {
        "description": "one sentence about a text",
        "system_prompt": SENTENCE * sentences,
        "user_prompt": "$document",
        "schema": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
    }


def lengths(order: str, documents: int) -> list[int]:
    """Return the words of each document."""
    rng = random.Random(3)
    if order == "one long among short":
        return [60_000 if number == documents // 2 else 300 for number in range(documents)]
    found = [int(10 ** rng.uniform(1, 4.3)) for _ in range(documents)]
    return found if order == "random" else sorted(found, reverse=order == "descending")


def articles(order: str, documents: int) -> Iterator[str]:
    """Yield texts of the lengths of an order."""
    rng = random.Random(5)
    return (" ".join(rng.choices(WORDS, k=words)) for words in lengths(order, documents))


def posts(documents: int) -> Iterator[str]:
    """Yield short posts: several scripts, emoji, base64, some without white space, some with several lines."""
    rng = random.Random(5)
    for _ in range(documents):
        yield "".join(rng.choices(rng.choice(POSTS), k=rng.randrange(3, 60))) + rng.choice(("", "\n\n", "."))


def run(texts: Iterable[str], *, context: int, way: str, sentences: int = 30) -> Ran:
    """Return what a run over the texts showed."""
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
        subprocess.run(command, cwd=place, check=False, stderr=subprocess.DEVNULL)
        elapsed_s = time.monotonic() - began
        counts = json.loads((place / "out" / "report.json").read_text(encoding="utf-8"))["run"]["counts"]
        with (place / "out" / "results.jsonl").open(encoding="utf-8") as results:
            noted = sum(UNVERIFIED in json.loads(line)["notes"] for line in results)
        return Ran(server.proofs, counts["done"], counts["failed"], noted, elapsed_s)


def main() -> int:
    """Print a line for each run; return 1 when one needed too many requests, or noted a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--posts", type=int, help="so many short posts instead")
    parser.add_argument("--way", choices=WAYS, default="refuse", help="what the server does beyond its context")
    flags = parser.parse_args()
    runs = []
    if flags.posts:
        runs.append(run(posts(flags.posts), context=8192, way=flags.way, sentences=POST_SENTENCES))
        print(f"{flags.posts} posts: {runs[-1]}", flush=True)
        return 0 if runs[-1].is_right else 1
    for context in (8192, 131_072):
        for order in ORDERS:
            runs.append(run(articles(order, flags.documents), context=context, way=flags.way))
            print(f"context {context:>7,}  {order:<21} {runs[-1]}", flush=True)
    return 0 if all(each.is_right for each in runs) else 1


if __name__ == "__main__":
    sys.exit(main())

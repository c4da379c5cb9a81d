"""Measure recall and cost of long documents: one-shot, `head` and `split` over planted payments.

    python scripts/bench_long.py                  with the fake server, a perfect reader; some seconds
    python scripts/bench_long.py --model          also with the real small model of scripts/local_llm.py; minutes
    python scripts/bench_long.py --fair           a long document among short ones; a minute

Prints tables in Markdown. A document that fails finds nothing; an equal payment listed
twice is doubled, not wrong. Tokens are those of all requests, also of refused answers.
The perfect reader shows what cutting and merging lose; only a real model shows what reading loses.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_llm import FakeLLM
from fake_llm.planted import AGENT, Planted, planted
from local_llm import serving

CONTEXT = 8192
MODEL_CONTEXT = 2048
WAYS = {"one-shot": "fail", "head": "head", "split": "split"}
ITEM: Mapping[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string", "maxLength": 30} for name in ("id", "payer", "amount")},
    "required": ["id", "payer", "amount"],
    "additionalProperties": False,
}
SMALL: Mapping[str, Any] = {
    "system_prompt": "You copy the number, the payer and the amount of a payment from a text.\n",
    "user_prompt": "<document>\n$document\n</document>\n",
    "examples": [
        {
            "document": "The clerks counted. Payment P71604: Ito Ltd pays 12,410.50 EUR on 2021-04-09. It rained.",
            "output": {"payments": [{"id": "P71604", "payer": "Ito Ltd", "amount": "12,410.50"}]},
        },
        {
            "document": "Nobody kept a ledger.\nPayment P93450: Moss Ltd pays 87.00 EUR on 2019-11-23.\nIt was wet.",
            "output": {"payments": [{"id": "P93450", "payer": "Moss Ltd", "amount": "87.00"}]},
        },
    ],
    "max_tokens": 300,
    "temperature": 0,
    "split": {"window_tokens": 256, "overlap_tokens": 48, "lead_chars": 0},
    "schema": {
        "type": "object",
        "properties": {
            "payments": {"type": "array", "maxItems": 500, "x-window-items": 8, "x-key": "id", "items": ITEM}
        },
        "required": ["payments"],
        "additionalProperties": False,
    },
}
"""A task with examples for a model of 135 million parameters; without quotes, so that wrong answers count."""


@dataclass(frozen=True, slots=True)
class Server:
    """A model's server."""

    url: str
    model: str
    type: str


@dataclass(slots=True)
class Score:
    """The findings of one way in some documents, and their cost."""

    documents: int = 0
    failed: int = 0
    planted: int = 0
    listed: int = 0
    right: int = 0
    doubled: int = 0
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, document: Planted, record: Mapping[str, Any], *, is_result: bool) -> None:
        """Count one record."""
        expected = {fact(item) for item in document.payments}
        listed = [fact(item) for item in record["output"]["payments"]] if is_result else []
        self.documents += 1
        self.failed += not is_result
        self.planted += len(expected)
        self.listed += len(set(listed))
        self.right += len(expected & set(listed))
        self.doubled += len(listed) - len({id for id, _, _ in listed})
        self.requests += record["attempts"]
        self.tokens_in += (record["usage"] or {}).get("prompt_tokens") or 0
        self.tokens_out += (record["usage"] or {}).get("completion_tokens") or 0

    def cells(self) -> list[str]:
        """Return the cells of its row."""
        precision = f"{self.right / self.listed:.2f}" if self.listed else "-"
        costs = (self.requests, self.tokens_in, self.tokens_out)
        return [
            f"{self.failed} of {self.documents}",
            f"{self.right / self.planted:.2f}",
            precision,
            str(self.doubled),
            *(f"{cost:,}" for cost in costs),
        ]


FAIR = ("in flight", "documents", "windows", "others", "share of windows", "last window", "last other", "slots busy")
LONG = "long.txt"
LATENCY_S = 0.1
HEAD = ("document", "way", "failed", "recall", "precision", "doubled", "requests", "tokens in", "tokens out")


def fact(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the graded values of a payment, in one form for both agents."""
    amount = item["amount"]
    return item["id"], item["payer"], amount if isinstance(amount, str) else f"{amount:,.2f}"


def measure(
    documents: Mapping[str, Planted], agent: Mapping[str, Any], *, server: Server, overflow: str, concurrency: int
) -> Score:
    """Run one way over the documents and return its score."""
    with tempfile.TemporaryDirectory(prefix="bench-long-") as folder:
        root = Path(folder)
        for name in ("in", "agents"):
            (root / name).mkdir()
        for name, document in documents.items():
            (root / "in" / name).write_text(document.text, encoding="utf-8")
        own = {**agent, "overflow": overflow}
        if overflow != "split":
            own.pop("split", None)
        (root / "agents" / "payments.yaml").write_text(json.dumps(own))
        settings = {
            "provider": "vllm",
            "fallback": [],
            "agent": "payments",
            "agents_dir": str(root / "agents"),
            "input": {"uri": str(root / "in")},
            "output": {"uri": str(root / "out")},
            "vllm": {"type": server.type, "base_url": server.url, "model": server.model},
            "runner": {"concurrency": concurrency, "max_error_rate": 1.0, "fail_fast": 0, "abort_error_rate": 1.0},
        }
        (root / "pipeline.yaml").write_text(json.dumps(settings))
        run(root / "pipeline.yaml")
        score = Score()
        for kind in ("results", "errors"):
            for record in lines(root / "out" / f"{kind}.jsonl"):
                score.add(documents[record["id"]], record, is_result=kind == "results")
        return score


def run(config: Path) -> None:
    """Run the pipeline; exit code 1 is fine, as failed documents are counted, too."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "PIPELINE_"))}
    command = [sys.executable, "-m", "pipeline", "run", "--config", str(config), "--quiet"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode not in (0, 1):
        raise SystemExit(f"bench_long: the run ended with {ended.returncode}: {ended.stderr[-2000:]}")


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file, none if it does not exist."""
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def fake_rows(sizes: Sequence[int], count: int) -> Iterator[list[str]]:
    """Yield the rows of a perfect reader with a context of 8,192 tokens."""
    with FakeLLM(("planted",), CONTEXT, planted=True, keep_requests=False) as server:
        for chars in sizes:
            payments = max(1, chars // 1500)
            repeats = [number for number in (1, 2, 5) if number < payments]
            documents = {
                f"{seed}.txt": planted(seed=seed, payments=payments, chars=chars, repeats=repeats)
                for seed in range(count)
            }
            for way, overflow in WAYS.items():
                own = Server(server.url, "planted", "vllm")
                agent = {**AGENT, "max_tokens": 3000}
                score = measure(documents, agent, server=own, overflow=overflow, concurrency=16)
                yield [f"{chars:,} characters", way, *score.cells()]


def model_rows(sizes: Sequence[int], count: int) -> Iterator[list[str]]:
    """Yield the rows of the real small model with a context of 2,048 tokens."""
    with serving(context=MODEL_CONTEXT) as server:
        for chars in sizes:
            documents = {
                f"{seed}.txt": planted(seed=seed, payments=max(1, chars // 600), chars=chars, kinds="prose")
                for seed in range(count)
            }
            for way, overflow in WAYS.items():
                own = Server(server.base_url, server.model, "openai")
                score = measure(documents, SMALL, server=own, overflow=overflow, concurrency=2)
                yield [f"{chars:,} characters", way, *score.cells()]


def shares(documents: Mapping[str, str], *, concurrency: int) -> tuple[list[bool], float]:
    """Return which requests, in the order of their arrival, were windows, and the share of slots kept busy."""
    long = {**AGENT, "split": {"window_tokens": 256, "overlap_tokens": 0}}
    with FakeLLM(("planted",), CONTEXT, planted=True, latency_s=LATENCY_S) as server:
        texts = {name: Planted(f"[[doc:{name}]] {text}", ()) for name, text in documents.items()}
        own = Server(server.url, "planted", "vllm")
        score = measure(texts, long, server=own, overflow="split", concurrency=concurrency)
        if score.failed or score.documents != len(documents):
            raise SystemExit(f"bench_long: {score.failed} of {score.documents} documents failed, expected none")
        chats = [request for request in server.chats() if request.document in documents]
    spent_s = chats[-1].at - chats[0].at + LATENCY_S
    return [request.document == LONG for request in chats], len(chats) * LATENCY_S / spent_s / concurrency


def fair_rows(concurrency: int, *, windows: int, shorts: int) -> Iterator[list[str]]:
    """Yield one row for a long document among short ones, then for either alone."""
    short = {f"short-{number:05}.txt": f"Nothing was paid on day {number}." for number in range(shorts)}
    long = planted(seed=1, payments=windows // 2, chars=windows * 690, kinds="prose").text
    for name, documents in {
        "together": {**dict(list(short.items())[: shorts // 2]), LONG: long, **short},
        "the long one alone": {LONG: long},
        "short ones alone": short,
    }.items():
        order, busy = shares(documents, concurrency=concurrency)
        count = sum(order)
        overlap_end = min(_last(order, True), _last(order, False)) + 1
        begun = order.index(True) if count else 0
        share = f"{sum(order[begun:overlap_end]) / (overlap_end - begun):.2f}" if 0 < count < len(order) else "-"
        last = [f"{_last(order, kind) + 1:,}" if kind in order else "-" for kind in (True, False)]
        yield [str(concurrency), name, f"{count:,}", f"{len(order) - count:,}", share, *last, f"{busy:.2f}"]


def _last(order: Sequence[bool], kind: bool) -> int:
    """Return the place of the last request of a kind, -1 for none."""
    return max((place for place, is_long in enumerate(order) if is_long is kind), default=-1)


def show(title: str, rows: Iterator[list[str]], *, head: Sequence[str] = HEAD) -> None:
    """Print a table, each row as soon as it is measured."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chars", type=int, nargs="+", default=[15_000, 60_000, 300_000], help="of each fake document")
    parser.add_argument("--documents", type=int, default=5, help="of each size")
    parser.add_argument("--model", action="store_true", help="also with the real small model")
    parser.add_argument("--model-chars", type=int, nargs="+", default=[3_000, 9_000], help="of each real document")
    parser.add_argument("--model-documents", type=int, default=2, help="of each size for the model")
    parser.add_argument("--fair", action="store_true", help="only a long document among short ones")
    parser.add_argument("--windows", type=int, default=1000, help="of the long document")
    parser.add_argument("--shorts", type=int, default=2000, help="documents beside it")
    options = parser.parse_args(arguments)
    if options.fair:
        each = [fair_rows(limit, windows=options.windows, shorts=options.shorts) for limit in (4, 16)]
        show("A long document among short ones", itertools.chain(*each), head=FAIR)
        return 0
    show("A perfect reader, context 8,192 tokens", fake_rows(options.chars, options.documents))
    if options.model:
        rows = model_rows(options.model_chars, options.model_documents)
        show("smollm2-135m-instruct, context 2,048 tokens", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

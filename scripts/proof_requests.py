"""Print how many proof requests an honest server gets in a run, for each order of its documents.

    python scripts/proof_requests.py [--documents 300]

It runs the installed `pipeline` against a server that counts (cutting_llm.py).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from cutting_llm import MODEL, WAYS, CuttingLLM

WORDS = ("profit", "rose", "the", "company", "12", "per", "cent", "said,")
ORDERS = ("ascending", "descending", "random", "one long among short")
CONFIG = {
    "provider": "vllm",
    "agent": "small",
    "agents_dir": ".",
    "input": {"uri": "inbox.jsonl"},
    "vllm": {"type": "openai", "model": MODEL},
    "runner": {"max_error_rate": 1, "concurrency": 4, "fail_fast": 0, "abort_error_rate": 1},
}
AGENT = {
    "description": "one sentence about a text",
    "system_prompt": "Sum the text up. " * 30,
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


def proofs(order: str, documents: int, *, context: int, way: str) -> tuple[int, int, int]:
    """Return the proof requests, results and failures of a run."""
    rng = random.Random(5)
    with tempfile.TemporaryDirectory() as folder, CuttingLLM(way, context=context) as server:
        place = Path(folder)
        texts = (" ".join(rng.choices(WORDS, k=words)) for words in lengths(order, documents))
        lines = (json.dumps({"text": f"[[doc:{number}]] {text}"}) for number, text in enumerate(texts))
        (place / "inbox.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (place / "small.yaml").write_text(json.dumps(AGENT), encoding="utf-8")
        (place / "config.yaml").write_text(json.dumps(CONFIG), encoding="utf-8")
        address = ["--set", f"vllm.base_url={server.url}"]
        command = [sys.executable, "-m", "pipeline", "run", "--quiet", "--config", "config.yaml", *address]
        subprocess.run(command, cwd=place, check=False, stderr=subprocess.DEVNULL)
        counts = json.loads((place / "out" / "report.json").read_text(encoding="utf-8"))["run"]["counts"]
        return server.proofs, counts["done"], counts["failed"]


def main() -> None:
    """Print a line for each order and context."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--way", choices=WAYS, default="refuse", help="what the server does beyond its context")
    flags = parser.parse_args()
    for context in (8192, 131_072):
        for order in ORDERS:
            sent, done, failed = proofs(order, flags.documents, context=context, way=flags.way)
            print(f"context {context:>7,}  {order:<21} {sent:>3} proof requests, {done} done, {failed} failed")


if __name__ == "__main__":
    main()

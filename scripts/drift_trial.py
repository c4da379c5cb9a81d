"""Measure the cost of the profile of values, and whether it marks drift and only drift.

    python scripts/drift_trial.py

Simulates 1,000 pairs of runs without drift, and 300 in which the model answers USD from the middle on; then measures
CPU and memory of the profile over a million records, and the CPU of a run per document with a fake server.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from pipeline.agents import load_agent
from pipeline.values.drift import drift
from pipeline.values.profiling import ProfileBuilder
from pipeline.values.value_profile import ValueProfile, merged

CURRENCIES = ["USD", "EUR", "GBP", "CHF", "JPY", "SEK"]
WEIGHTS = [48, 30, 12, 6, 3, 1]
SCHEMA = {
    "properties": {
        "currency": {"enum": CURRENCIES},
        "topic": {"enum": list("abcdefgh")},
        "supplier": {"type": "string"},
        "paid": {"type": ["boolean", "null"]},
        "tags": {"type": "array", "items": {"enum": ["x", "y", "z"]}},
    }
}
RECORDS = 1_000_000
DOCUMENTS = 3000


def run_of(rng: random.Random, documents: int, *, drifts_from: int | None = None) -> ValueProfile:
    """Return the profile of a simulated run whose model answers USD from the document `drifts_from` on."""
    builder = ProfileBuilder(SCHEMA, random=rng.random)
    for number in range(documents):
        drifts = drifts_from is not None and number >= drifts_from
        output = {
            "currency": "USD" if drifts else rng.choices(CURRENCIES, WEIGHTS)[0],
            "topic": rng.choice("abcdefgh"),
            "supplier": rng.choice(["Acme", "Orrin", "Halverton", ""]),
            "paid": rng.choice([True, False, None]),
            "tags": rng.sample(["x", "y", "z"], rng.randrange(3)),
        }
        builder.add(output, variant="default", fingerprint="f")
    return merged(builder.profiles().values())


def simulate() -> None:
    """Print the number of marked pairs of runs, without and with simulated drift."""
    rng = random.Random(1)
    sizes = [20, 50, 120, 300]
    marked = sum(bool(drift(run_of(rng, rng.choice(sizes)), run_of(rng, rng.choice(sizes))).moves) for _ in range(1000))
    print(f"without drift: {marked} of 1,000 pairs marked")
    for size in (60, 120, 300):
        marks = [drift(run_of(rng, size, drifts_from=size // 2), run_of(rng, size)).moves for _ in range(100)]
        right = sum(any((move.field, move.value) == ("currency", '"USD"') for move in moves) for moves in marks)
        print(f"USD from the middle on, {size} documents: {right} of 100 marked")


def instance(schema: Any, root: Any, rng: random.Random) -> Any:
    """Return a value of the built-in agent's schema."""
    if "$ref" in schema:
        return instance(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root, rng)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    kind = rng.choice(kind) if isinstance(kind, list) else kind
    if kind == "object":
        return {name: instance(sub, root, rng) for name, sub in schema["properties"].items()}
    if kind == "array":
        return [instance(schema["items"], root, rng) for _ in range(rng.randrange(4))]
    drawn = {"string": f"word {rng.randrange(10**6)}", "integer": rng.randrange(100), "number": rng.random()}
    return drawn.get(str(kind), rng.random() < 0.5 if kind == "boolean" else None)


def measure() -> float:
    """Print CPU and memory of the profile of a million records of a built-in agent; return microseconds per record."""
    schema = load_agent("extractor").schema
    rng = random.Random(2)
    outputs = [instance(schema, schema, rng) for _ in range(20_000)]
    builder = ProfileBuilder(schema, random=rng.random)
    began = time.process_time()
    for number in range(RECORDS):
        builder.add(outputs[number % len(outputs)], variant="default", fingerprint="f")
    cost_us = (time.process_time() - began) / RECORDS * 1e6
    tracemalloc.start()
    traced = ProfileBuilder(schema, random=rng.random)
    for output in outputs:
        traced.add(output, variant="default", fingerprint="f")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"profile: {cost_us:.1f} us per record over {RECORDS:,} records, {peak / 1e6:.1f} MB at most")
    return cost_us


def run_cpu_us() -> float:
    """Return the CPU of `pipeline run` for one document with the built-in agent, in microseconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(DOCUMENTS + 1):
            (folder / f"{number}.txt").write_text(f"Text {number} about Halverton. " * 40, encoding="utf-8")
        command = [sys.executable, str(Path(__file__).parent / "fake_llm"), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            spent = [_cpu_s(folder, url, limit) for limit in (1, DOCUMENTS)]
            server.terminate()
    return (spent[1] - spent[0]) / (DOCUMENTS - 1) * 1e6


def _cpu_s(folder: Path, url: str, limit: int) -> float:
    command = [sys.executable, "-m", "pipeline", "run", "--input", str(folder), "--output", f"{folder}-out-{limit}"]
    command += ["--set", "provider=vllm", "--set", f"vllm.base_url={url}", "--limit", str(limit), "--quiet"]
    command += ["--progress", "none", "--log-level", "error"]
    child = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Simulate, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate-only", action="store_true", help="simulate only, without measurements")
    arguments = parser.parse_args()
    simulate()
    if arguments.simulate_only:
        return
    profile_us = measure()
    document_us = run_cpu_us()
    print(f"a run: {document_us:.0f} us of CPU per document; the profile is {profile_us / document_us:.1%} of it")


if __name__ == "__main__":
    main()

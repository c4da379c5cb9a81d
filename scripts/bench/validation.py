"""The saving of the fast check of an answer: its time and that of jsonschema alone, for built-in agents.

A run validates each answer in its own process while requests wait: requests cannot use this CPU time.
"""

from __future__ import annotations

import argparse
import json
import sys
import timeit
from collections.abc import Callable, Iterator

from fake_llm.schema import answer_for

from bench.site import Figure, table
from pipeline.agents import load_agent
from pipeline.answers.schema import CompiledSchema, compile_schema

AGENTS = ("extractor", "event_classifier")
ROUNDS = 5
AIM = 5.0


def measured(schema: CompiledSchema) -> tuple[float, float]:
    """Return the microseconds of the fast check and of jsonschema for one valid answer, each in its best round."""
    answer = json.loads(answer_for("A short text about a harbour.", schema.for_server))
    keeps = schema.surely_keeps
    assert keeps is not None
    assert keeps(answer)
    return _us(lambda: keeps(answer)), _us(lambda: schema.validator.is_valid(answer))


def _us(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call)
    number = max(1, timer.autorange()[0] // 5)
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def short() -> Iterator[Figure]:
    """Yield a row for each built-in agent."""
    for name in AGENTS:
        fast_us, whole_us = measured(compile_schema(load_agent(name).schema, where=name))
        result = f"{fast_us:.0f} us, jsonschema alone {whole_us:.0f} us: {whole_us / fast_us:.0f} times"
        yield Figure(f"validation of an answer of {name}", result, f"{AIM:g} times or more")


def main() -> int:
    """Print the rows; return the exit code."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = [(figure.quantity, figure.result, figure.aim) for figure in short()]
    print(table(("quantity", "result", "aim"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

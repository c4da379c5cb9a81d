"""Rows of tables without quotes between sentences that name the same payers: each is kept once, equal ones as well."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest

from pipeline.answers.schema import compile_schema
from pipeline.long.merging import Part, merge
from pipeline.long.windows import cut, divide

ROW = re.compile(r"^(\w+ \d{3})\t(\d+\.\d\d)\t", re.MULTILINE)
NAMES = ("Ames", "Brandt", "Cole", "Duarte", "Sato", "Ito", "Moss")
WORDS = [
    "the",
    "first",
    "two",
    "were",
    "unloaded",
    "before",
    "noon",
    "and",
    "nobody",
    "counted",
    "what",
    "was",
    "left",
    "on",
    "the",
    "quay",
]
COMPILED = compile_schema(
    {
        "type": "object",
        "properties": {
            "rows": {
                "type": "array",
                "x-merge": "concat",
                "items": {
                    "type": "object",
                    "properties": {"payer": {"type": "string"}, "amount": {"type": "number"}},
                    "required": ["payer", "amount"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["rows"],
        "additionalProperties": False,
    },
    where="planted tables",
)


def read(text: str) -> list[dict[str, Any]]:
    """Return the rows of a text, as a perfect reader gives them."""
    return [{"payer": row[1], "amount": float(row[2])} for row in ROW.finditer(text)]


def document(rng: random.Random, *, kinds: int, chars: int = 20_000) -> str:
    """Return tables of rows of this many kinds, between prose and sentences that name their payers."""
    payers = [f"{NAMES[kind % len(NAMES)]} {kind:03}" for kind in range(kinds)]
    text = ""
    while len(text) < chars:
        share = rng.random()
        if share < 0.45:
            rows = rng.choices(range(kinds), k=rng.randrange(1, 12))
            piece = "".join(f"{payers[kind]}\t{5 + kind}.00\tcosts of the bank\n" for kind in rows)
            piece = f"\nPayer\tFee\tFor\n{piece}\n"
        elif share < 0.8:
            piece = " ".join(rng.choices(WORDS, k=rng.randrange(5, 40))).capitalize() + ". "
        else:
            piece = f"So {' and '.join(rng.choices(payers, k=rng.randrange(1, 4)))} agree. "
        text += piece + rng.choice(["", "", "\n\n"])
    return text


@pytest.mark.parametrize("seed", range(60))
def test_rows_between_sentences_with_the_same_names_are_kept(seed: int) -> None:
    """Windows and overlaps of random sizes, some of the windows divided."""
    rng = random.Random(seed)
    text = document(rng, kinds=rng.randint(3, 20))
    budget = rng.choice((600, 1200, 2000, 3000, 4500))
    overlap = rng.randint(60, budget // 4)
    spans = cut(text, budget, overlap)
    for span in list(spans):
        if rng.random() < 0.1 and (halves := divide(text, span, overlap)):
            spans.remove(span)
            spans += halves
    parts = [Part(start, end, {"rows": read(text[start:end])}) for start, end in spans]
    rows = merge(COMPILED.merge_rules, parts, text=text).value["rows"]
    assert Counter(map(str, rows)) == Counter(map(str, read(text)))

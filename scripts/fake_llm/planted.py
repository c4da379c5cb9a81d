"""Long documents with planted payments, and a perfect reader of one prompt, for tests of `overflow: split`.

document = planted(seed=3, payments=40, chars=60_000)
FakeLLM(planted=True)          # lists exactly the payments that are complete in the part in its prompt

The reader must not know the document: it sees one prompt, as a model does.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PART = "[The part:]\n"
PAYERS = ("Halden Ltd", "Brenner Ltd", "Okafor Ltd", "Lindqvist Ltd", "Duarte Ltd", "Sato Ltd")
_PAYMENT = re.compile(
    r"Payment\s+(P\d{5}):\s+([A-Z][a-z]+\s+Ltd)\s+pays\s+([\d,]+\.\d\d)\s+EUR\s+on\s+(\d{4}-\d{2}-\d{2})\."
)
_TEXT = (
    "the shipment left harbour before noon while clerks counted crates of grain and copper wire under heavy rain "
    "that had begun at dawn near the old customs house where nobody kept a ledger of what was said"
)
_WORDS = _TEXT.split()
_CJK = "今日は港で穀物と銅線の箱が数えられた。税関の古い建物の近くで雨が降り始めた。"

AGENT: Mapping[str, Any] = {
    "system_prompt": "List all payments.\n",
    "user_prompt": "$document\n",
    "max_tokens": 400,
    "overflow": "split",
    "schema": {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 80},
            "payments": {
                "type": "array",
                "maxItems": 5000,
                "x-window-items": 60,
                "x-merge": "union",
                "x-key": "id",
                "items": {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string", "maxLength": 10},
                        "payer": {"type": "string", "maxLength": 40},
                        "amount": {"type": "number"},
                        "quote": {"type": "string", "maxLength": 200, "x-quote": True},
                    },
                    "required": ["id", "payer", "amount", "quote"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["title", "payments"],
        "additionalProperties": False,
    },
}


@dataclass(frozen=True, slots=True)
class Planted:
    """A document, and the payments in it in their order, with repetitions."""

    text: str
    payments: tuple[dict[str, Any], ...]


def sentence(number: int, rng: random.Random) -> tuple[str, dict[str, Any]]:
    """Return one payment as a sentence, and as the item that a reader extracts from it."""
    payer = rng.choice(PAYERS)
    cents = rng.randint(100, 9_999_999)
    day = f"20{rng.randint(10, 25)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    text = f"Payment P{number:05}: {payer} pays {cents / 100:,.2f} EUR on {day}."
    return text, {"id": f"P{number:05}", "payer": payer, "amount": cents / 100, "quote": text}


def planted(
    *, seed: int, payments: int, chars: int, repeats: Sequence[int] = (), kinds: str = "prose table cjk blank"
) -> Planted:
    """Return a document of about this many characters; `repeats`: numbers of payments that occur in it once more."""
    rng = random.Random(seed)
    sentences = [sentence(number, rng) for number in range(payments)]
    sentences += [sentences[number] for number in repeats]
    gap = max(1, chars // (len(sentences) + 1))
    pieces = []
    for text, _ in sentences:
        pieces += [_filler(rng, gap, kinds.split()), text]
    pieces.append(_filler(rng, gap, kinds.split()))
    return Planted("TITLE of the report\n\n" + "".join(pieces), tuple(item for _, item in sentences))


def _filler(rng: random.Random, chars: int, kinds: Sequence[str]) -> str:
    """Return text without payments, of one kind, with white space at its ends."""
    kind = rng.choice(kinds)
    parts: list[str] = []
    size = 0
    while size < chars:
        if kind == "prose":
            part = " ".join(rng.choices(_WORDS, k=rng.randint(5, 15))).capitalize() + rng.choice((". ", ".\n", ".\n\n"))
        elif kind == "table":
            part = "\t".join(str(rng.randint(0, 99999)) for _ in range(6)) + "\n"
        elif kind == "cjk":
            part = _CJK[: rng.randint(5, len(_CJK))] + rng.choice(("", "\n"))
        else:
            part = rng.choice(("\n\n", " " * 20, "\f"))
        parts.append(part)
        size += len(part)
    return f"\n{''.join(parts)}\n"


def found_in(text: str) -> list[dict[str, Any]]:
    """Return the payments that a text contains completely, in order."""
    return [
        {"id": id, "payer": " ".join(payer.split()), "amount": float(amount.replace(",", "")), "quote": match[0]}
        for match in _PAYMENT.finditer(text)
        for id, payer, amount, _ in [match.groups()]
    ]


def part_of(prompt: str) -> str:
    """Return the part of a document in a prompt."""
    return prompt.rpartition(PART)[2] if PART in prompt else prompt


def reader(prompt: str, schema: Mapping[str, Any] | None) -> str:
    """Return the answer of a perfect reader of one prompt."""
    if not schema or "payments" not in schema.get("properties", {}):
        return '{"answer": "ok"}'
    part = part_of(prompt)
    title = "TITLE of the report" if "TITLE of the report" in part else None
    if title is None and "null" not in str(schema["properties"]["title"].get("type")):
        title = "unknown"
    return json.dumps({"title": title, "payments": found_in(part)}, ensure_ascii=False)


def counting(answer: Callable[[str, Any], str], parts: list[str]) -> Callable[[str, Any], str]:
    """Return the answer function, extended to add the part in each prompt to `parts`."""

    def recording(prompt: str, schema: Mapping[str, Any] | None) -> str:
        if PART in prompt:
            parts.append(part_of(prompt))
        return answer(prompt, schema)

    return recording

"""Long documents with planted facts, and a perfect reader of any part of them.

    document = plant(seed, chars=50_000, cuts=range(0, 50_000, 3000))
    answer = read(document.text[start:end])         # what a model without fault says about that part

A payment has a number, which is its key, and may be stated again far away. A fee has none: each sentence about a fee
is a row of its own, also where two of them are equal. Sentences stand around nominal cuts, across page breaks and
hyphenated at line ends, between prose, tables of numbers, Chinese text, base64 and a line without an end.
"""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.long.folding import folded

_STRING = {"type": "string"}
_QUOTE = {"type": "string", "x-quote": True}


def _rows(properties: dict[str, Any], *, quotes: bool, **rules: Any) -> dict[str, Any]:
    own = {**properties, "quote": _QUOTE} if quotes else properties
    items = {"type": "object", "properties": own, "required": list(own), "additionalProperties": False}
    return {"type": "array", "items": items, **rules}


def schema(*, quotes: bool = True) -> dict[str, Any]:
    """Return the schema of the planted facts. `quotes`: each row has its source sentence."""
    payment = {"number": _STRING, "payer": _STRING, "amount": {"type": "number"}, "date": _STRING}
    fee = {"payer": _STRING, "amount": {"type": "number"}}
    properties = {
        "contract": {**_STRING, "x-merge": "same"},
        "place": {"type": ["string", "null"], "x-merge": "first"},
        "due": {"type": ["string", "null"], "x-merge": "max"},
        "payments": _rows(payment, quotes=quotes, **{"x-key": "number"}),
        "fees": _rows(fee, quotes=quotes, **{"x-merge": "concat"}),
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@dataclass
class Planted:
    """A document with what is in it: payments by number, and the fees in their order."""

    text: str
    contract: str
    place: str
    due: str
    payments: dict[str, dict[str, Any]] = field(default_factory=dict)
    fees: list[dict[str, Any]] = field(default_factory=list)


_PAYMENT = re.compile(r"Payment (P\d{5}): (\w+ \w+) pays ([\d,]+\.\d\d) EUR on (\d{4}-\d\d-\d\d)\.")
_FEE = re.compile(r"A fee of ([\d,]+\.\d\d) EUR is borne by (\w+ \w+)\.")
_CONTRACT = re.compile(r"The contract is (C\d{4})\.")
_PLACE = re.compile(r"It was signed in (\w+)\.")
_DUE = re.compile(r"It is due on (\d{4}-\d\d-\d\d)\.")
_PAYERS = ("Halden Ltd", "Norvik AS", "Bo Partners", "Quist GmbH")
_BEARERS = ("Ames", "Brandt", "Cole")
_PROSE = "the first two were unloaded before noon and nobody counted what was left on the quay"


def read(text: str, *, quotes: bool = True) -> dict[str, Any]:
    """Return the answer of a perfect reader about a part of a document."""
    folded_text = folded(text)

    def first(pattern: re.Pattern[str]) -> str | None:
        match = pattern.search(folded_text)
        return match[1] if match else None

    def row(match: re.Match[str], **values: Any) -> dict[str, Any]:
        return {**values, "quote": match[0]} if quotes else values

    return {
        "contract": first(_CONTRACT),
        "place": first(_PLACE),
        "due": max(_DUE.findall(folded_text), default=None),
        "payments": [
            row(
                match_of_row,
                number=match_of_row[1],
                payer=match_of_row[2],
                amount=_number(match_of_row[3]),
                date=match_of_row[4],
            )
            for match_of_row in _PAYMENT.finditer(folded_text)
        ],
        "fees": [
            row(match_of_row, payer=match_of_row[2], amount=_number(match_of_row[1]))
            for match_of_row in _FEE.finditer(folded_text)
        ],
    }


def plant(
    seed: int,
    *,
    chars: int = 30_000,
    cuts: Iterable[int] = (),
    breaks: bool = True,
    kinds: Sequence[str] = ("prose", "table", "chinese", "base64", "endless"),
    fee_kinds: int = 3,
) -> Planted:
    """Return a document of about so many characters.

    `cuts`: where windows may end; a sentence stands around each, at another offset each time. `breaks`: some sentences
    are broken by a page, or hyphenated at a line end. `fee_kinds`: how many different fees there are.
    """
    rng = random.Random(seed)
    places = sorted({*cuts, *(rng.randrange(chars) for _ in range(chars // 700))})
    document = Planted("", f"C{rng.randrange(10_000):04}", rng.choice(["Bergen", "Riga"]), "2024-03-07")
    scalars = [
        f"The contract is {document.contract}.",
        f"It was signed in {document.place}.",
        f"It is due on {document.due}.",
        f"The contract is {document.contract}.",
        "It is due on 2023-01-09.",
    ]
    size = 0
    pieces: list[str] = []
    for number, place in enumerate(places):
        sentence = scalars.pop() if scalars and number % 7 == 3 else _sentence(rng, document, fee_kinds)
        gap = place - number % (len(sentence) + 1) - size
        filler = _filler(rng, rng.choice(kinds), max(gap, 1))
        broken = _broken(rng, sentence) if breaks and rng.random() < 0.2 else sentence
        pieces += [filler, broken, " "]
        size += len(filler) + len(broken) + 1
    pieces += [f"{sentence} " for sentence in scalars]
    document.text = "".join(pieces)
    return document


def _sentence(rng: random.Random, document: Planted, fee_kinds: int) -> str:
    """Return a new payment, one that was stated before, or a fee; also, at times, a fee twice in a row."""
    if rng.random() < 0.4:
        kind = rng.randrange(fee_kinds)
        # no payment names the payer of a fee, so that only the text of a row without quotes shows how often it occurs
        fee = {"payer": f"{_BEARERS[kind % len(_BEARERS)]} {kind:03}", "amount": 5.0 + kind}
        times = 2 if rng.random() < 0.2 else 1
        document.fees += [fee] * times
        return " ".join([f"A fee of {fee['amount']:,.2f} EUR is borne by {fee['payer']}."] * times)
    if document.payments and rng.random() < 0.2:
        number = rng.choice(list(document.payments))
    else:
        number = f"P{len(document.payments) + 17:05}"
        amount = rng.randrange(100, 200_000) / 100
        date = f"2024-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
        payer = rng.choice(_PAYERS)
        document.payments[number] = {"number": number, "payer": payer, "amount": amount, "date": date}
    payment = document.payments[number]
    return f"Payment {number}: {payment['payer']} pays {payment['amount']:,.2f} EUR on {payment['date']}."


def _broken(rng: random.Random, sentence: str) -> str:
    """Return a sentence with a page break in place of a space, or with a word hyphenated at a line end."""
    inside = [match.start() + 2 for match in re.finditer(r"[a-z]{4,}", sentence)]
    if not inside or rng.random() < 0.5:
        at = rng.choice([place for place, char in enumerate(sentence) if char == " "])
        return f"{sentence[:at]}\f{sentence[at + 1 :]}"
    at = rng.choice(inside)
    return f"{sentence[:at]}-\n{sentence[at:]}"


def _filler(rng: random.Random, kind: str, chars: int) -> str:
    """Return exactly this many characters of filler text, with white space at its end."""
    pieces: list[str] = []
    size = 0
    while size < chars:
        pieces.append(_FILLERS[kind](rng))
        size += len(pieces[-1])
    return "".join(pieces)[: chars - 1] + " "


def _prose(rng: random.Random) -> str:
    words = rng.choices(_PROSE.split(), k=rng.randrange(5, 14))
    return " ".join(words).capitalize() + "." + rng.choice([" ", " ", "\n", "\n\n"])


_FILLERS = {
    "prose": _prose,
    "table": lambda rng: "\t".join(str(rng.randrange(10**6)) for _ in range(6)) + "\n",
    "chinese": lambda rng: "".join(rng.choices("船在中午之前卸下了前两批货物", k=20)) + "。",
    "base64": lambda rng: base64.b64encode(rng.randbytes(57)).decode() + "\n",
    "endless": lambda rng: base64.b64encode(rng.randbytes(57)).decode(),
}


def _number(text: str) -> float:
    return float(text.replace(",", ""))

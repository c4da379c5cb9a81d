"""Servers in memory that count, refuse or truncate prompts, with several tokenizers, for tests of prompt lengths."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache

from pipeline.llm.prompt_length.repetition import Probe
from pipeline.llm.prompt_length.verification_case import VerificationCase

Tokenizer = Callable[[str], list[str]]
Kind = Callable[[random.Random, int], str]

_PIECES = re.compile(r" ?[A-Za-zА-яα-ω]{1,6}|\d{1,3}|\s{1,16}|.", re.DOTALL)


def pieces(text: str) -> list[str]:
    """Split words into pieces of six letters, digits by three, white space by sixteen, all else singly."""
    return _PIECES.findall(text)


def greedy(text: str) -> list[str]:
    """Tokenize without words: two characters start a token of one to six characters, even across white space."""
    result, place = [], 0
    lengths = _lengths()
    while place < len(text):
        size = lengths[zlib.crc32(text[place : place + 2].encode("utf-8", "replace")) % 64]
        result.append(text[place : place + size])
        place += size
    return result


@lru_cache(maxsize=1)
def _lengths() -> tuple[int, ...]:
    return tuple(random.Random(5).choice((1, 1, 2, 3, 4, 6)) for _ in range(64))


def characters(text: str) -> list[str]:
    """Return one token per character."""
    return list(text)


class Server:
    """Counts what it reads of messages; `way` is what it does with more than `context` tokens.

    refuse, head, tail, middle (keeps both ends), half (keeps half of the window), oldest (drops messages).
    `keeps_room`: the answer's tokens are taken off the context.
    """

    def __init__(
        self, way: str, *, context: int = 4096, tokenizer: Tokenizer = pieces, keeps_room: bool = True
    ) -> None:
        self.way, self.context, self.tokenizer, self.keeps_room = way, context, tokenizer, keeps_room
        self.requests = 0

    def count(self, messages: Sequence[str]) -> int:
        """The honest count: four tokens around each message."""
        return sum(len(self.tokenizer(text)) + 4 for text in messages) + 3

    def ask(self, messages: Sequence[str], max_tokens: int) -> Probe:
        """The reply to a chat: what was read of it."""
        total = self.count(messages)
        most = self.context - (max_tokens if self.keeps_room else 0)
        if total <= most:
            return Probe(total)
        if self.way == "refuse":
            return Probe(None, refused=True)
        if self.way == "half":
            return Probe(self.context - (self.context - 4) // 2)
        if self.way.startswith("oldest"):
            remaining = list(messages)
            while len(remaining) > 1 and self.count(remaining) > most:
                del remaining[0]
            total = self.count(remaining)
            if total > most:
                return Probe(None, refused=True) if self.way == "oldest_refuse" else Probe(most)
            return Probe(total)
        return Probe(most)


class Balanced:
    """A small and a large server behind one address: each request by turns, or by chance, to one of them.

    `verified_by`: the number of the server that gets all requests for one token.
    """

    def __init__(self, *servers: Server, how: str, rng: random.Random, verified_by: int | None = None) -> None:
        self.servers, self.how, self.rng, self.verified_by = servers, how, rng, verified_by
        self.requests, self._turn = 0, 0

    def count(self, messages: Sequence[str]) -> int:
        """The honest count."""
        return self.servers[0].count(messages)

    def ask(self, messages: Sequence[str], max_tokens: int) -> Probe:
        """The reply of the server whose turn it is."""
        self._turn += 1
        number = self._turn % len(self.servers) if self.how == "robin" else self.rng.randrange(len(self.servers))
        if max_tokens == 1 and self.verified_by is not None:
            number = self.verified_by
        return self.servers[number].ask(messages, max_tokens)


def case_of(
    server: Server | Balanced,
    text: str,
    *,
    around: Sequence[str] = ("You extract facts. " * 40,),
    user: str = "Title: $title\n\n$document\n",
    title: str = "A title",
    complaint: str = "",
    max_tokens: int = 256,
) -> tuple[VerificationCase, int]:
    """Send a document to a server; return it with the number of prompt tokens that were cut off."""

    def prompt(part: str, whole: bool) -> list[str]:
        filled = user.replace("$title", title).replace("$document", part)
        return [*around, filled + (complaint if whole else "")]

    def send(part: str, most: int, whole: bool) -> Probe:
        server.requests += 1
        return server.ask(prompt(part, whole), most)

    def tiny() -> Probe:
        server.requests += 1
        return server.ask(["Say ok."], 1)

    messages = prompt(text, True)
    outcome = server.ask(messages, max_tokens)
    places = user.count("$document")
    size_bytes = sum(len(message.encode("utf-8", "replace")) for message in messages)
    base = server.count(prompt("", True))
    case = VerificationCase(text, outcome.tokens, size_bytes, max_tokens, send, tiny, places=places, base=base)
    return case, server.count(messages) - outcome.tokens if outcome.tokens else 0


def article(rng: random.Random, words: int) -> str:
    """Return a news text."""
    vocabulary = ("profit", "rose", "the", "company", "12", "per", "cent", "said,")
    return " ".join(rng.choice(vocabulary) for _ in range(words))


def table(rng: random.Random, words: int) -> str:
    """Return numbers in columns, with much white space."""
    rows = ("".join(f"{rng.randrange(10**6):>{rng.choice((8, 14))}}" for _ in range(8)) for _ in range(words // 8 + 1))
    return "\n".join(rows)


def base64(rng: random.Random, words: int) -> str:
    """Return one line without white space."""
    return "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=words * 5))


def blanks(rng: random.Random, words: int) -> str:
    """Return mostly white space."""
    return "".join(rng.choice(("word", " " * 30, "\n\n\n", "\t\t")) for _ in range(words))


def chinese(rng: random.Random, words: int) -> str:
    """Return text in a script without white space."""
    return "".join(chr(rng.randrange(0x4E00, 0x4F00)) for _ in range(words * 2))


def mixed(rng: random.Random, words: int) -> str:
    """Return Cyrillic, Greek, combining accents, and emoji of several parts."""
    parts = ("прибыль ", "κέρδη ", "café́ ", "👩‍👩‍👧 ", "🇩🇪🇫🇷", "한국어 ", "naïve ")
    return "".join(rng.choice(parts) for _ in range(words))


KINDS: tuple[Kind, ...] = (article, table, base64, blanks, chinese, mixed)
TOKENIZERS = (pieces, greedy, characters)

"""The forms in which a server may repeat a secret: as it is, escaped, percent-encoded, in base64, in hexadecimal.

It must not know where a secret comes from. Whole secrets are masked everywhere. In texts of servers the remains of a
truncated secret are masked as well, because a message may end in the middle of one.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

MASK = "***"
MIN_CHARS = 6
"""A shorter secret occurs in ordinary messages by chance; masking it would protect little and garble them."""

_CHUNK_CHARS = 48
_HEAD_CHARS = 8
_PART_CHARS = 12
"""The length of a part of a secret that no text has by chance; a head that is not like a word may be shorter."""
_MOST_PARTS = 16
"""Parts looked for in each form; more of them would only find shorter pieces of a very long secret."""

_BOUNDARY = re.compile(r"[\s;,=]")
_ENTITIES = {'"': "&quot;", "&": "&amp;", "'": "&apos;", "<": "&lt;", ">": "&gt;"}
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=")
_HEX = frozenset("0123456789abcdefABCDEF: ")


@dataclass(frozen=True)
class SecretForms:
    """One secret in all forms in which a text may contain it; rarely needed forms are built on demand."""

    text: str

    def redact(self, text: str, *, parts: bool) -> str:
        """Return the text with every form of this secret masked; `parts`: the remains of a truncated one as well."""
        if self.text in text:
            text = text.replace(self.text, MASK)
        if any(mark in text for mark in "\\%&+"):
            for pattern in self._heads if parts else self._wholes:
                text = pattern.sub(MASK, text)
        for needle, alphabet in self._encoded_parts if parts else self._encoded:
            text = _without_runs(text, needle, alphabet)
        return self._without_parts(text) if parts else text

    def is_in(self, text: str, *, part_chars: int) -> bool:
        """Return True for a text with a form of this secret, or a part of it that is long and not a word."""
        if self.redact(text, parts=False) != text:
            return True
        starts = ((text.find(part), part) for part in self._raw_parts)
        extents = (self._extent(text, at, part) for at, part in starts if at >= 0)
        shared_parts = [text[start:end] for start, end in extents if end - start >= part_chars]
        return any(any(char.isdigit() for char in part) for part in shared_parts)

    @cached_property
    def _wholes(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile("".join(_forms_of(chunk))) for chunk in self._chunks)

    @cached_property
    def _heads(self) -> tuple[re.Pattern[str], ...]:
        """Patterns for the beginning of each chunk, and as much of the rest as follows."""
        return tuple(re.compile(_head_pattern(chunk)) for chunk in self._chunks)

    @cached_property
    def _chunks(self) -> tuple[str, ...]:
        """Pieces of about _CHUNK_CHARS: one pattern for all characters of a long key would be huge."""
        count = max(1, len(self.text) // _CHUNK_CHARS)
        size = -(-len(self.text) // count)
        return tuple(self.text[at : at + size] for at in range(0, len(self.text), size))

    @cached_property
    def _encoded(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """The secret in base64 and hexadecimal, with the alphabet of the run around it that is masked with it."""
        return (*((core, _BASE64) for core in _cores(self.text)), *((text, _HEX) for text in _hex_forms(self.text)))

    @cached_property
    def _encoded_parts(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """Parts of these, as an encoded text may be cut, or broken into lines."""
        if not self._words:
            return self._encoded
        cores = [(part, _BASE64) for core in _cores(self.text) for part in _parts(core, _PART_CHARS, step=4)]
        hexed = [(part, _HEX) for word in self._words for part in _hex_forms(word[:_PART_CHARS])]
        return tuple(dict.fromkeys((*cores, *hexed)))

    @cached_property
    def _words(self) -> tuple[str, ...]:
        """The words of the secret that are long enough to be no ordinary ones; none for a short secret."""
        if len(self.text) < 2 * _HEAD_CHARS:
            return ()
        return tuple(word for word in _BOUNDARY.split(self.text) if len(word) >= _PART_CHARS)

    @cached_property
    def _raw_parts(self) -> tuple[str, ...]:
        heads = [_head(word) for word in self._words]
        return tuple(dict.fromkeys((*heads, *(part for word in self._words for part in _parts(word, _PART_CHARS)))))

    def _without_parts(self, text: str) -> str:
        """Mask the parts of the secret, each with as much of it as is there, and a beginning of it at the end."""
        for part in self._raw_parts:
            while (at := text.find(part)) >= 0:
                start, end = self._extent(text, at, part)
                text = text[:start] + MASK + text[end:]
        for size in range(min(len(self.text) - 1, len(text)), MIN_CHARS - 1, -1):
            if text.endswith(self.text[:size]):
                return text[:-size] + MASK
        return text

    def _extent(self, text: str, at: int, part: str) -> tuple[int, int]:
        """Return from where to where the text is the same as the secret around its part at `at`."""
        first = self.text.index(part)
        last = first + len(part)
        start = at
        end = at + len(part)
        while first > 0 and start > 0 and text[start - 1] == self.text[first - 1]:
            first = first - 1
            start = start - 1
        while last < len(self.text) and end < len(text) and text[end] == self.text[last]:
            last = last + 1
            end = end + 1
        return start, end


def _head(word: str) -> str:
    """Return the beginning that is looked for: it has a digit or letters of both cases, or is longer."""
    for size in range(_HEAD_CHARS, _PART_CHARS):
        head = word[:size]
        if any(char.isdigit() for char in head) or not (head.islower() or head.isupper()):
            return head
    return word[:_PART_CHARS]


def _parts(text: str, size: int, *, step: int = 1) -> Iterator[str]:
    """Yield at most about _MOST_PARTS pieces of this size, the first and the last among them."""
    step = max(step, (len(text) - size) // _MOST_PARTS)
    for at in range(0, max(len(text) - size, 0), step):
        yield text[at : at + size]
    yield text[-size:]


def _head_pattern(chunk: str) -> str:
    """Return a pattern for the head of the chunk, and for as much of its rest as follows."""
    forms = list(_forms_of(chunk))
    size = len(_head(chunk)) if len(chunk) >= 2 * _HEAD_CHARS else len(chunk)
    optional = forms[size:]
    return "".join(forms[:size]) + "".join(f"(?:{form}" for form in optional) + ")?" * len(optional)


def _forms_of(text: str) -> Iterator[str]:
    return (f"(?:{'|'.join(_forms(char))})" for char in text)


def _forms(char: str) -> Iterable[str]:
    """Yield patterns for the encodings of a character; each quantifier is bounded."""
    code = ord(char)
    yield r"\\{1,16}" if char == "\\" else r"\\{0,8}" + re.escape(char)
    yield rf"\\{{1,8}}[uU]{_any_case(f'{code:04x}')}"
    yield "".join(f"%(?:25){{0,3}}{_any_case(f'{byte:02x}')}" for byte in char.encode("utf-8"))
    yield "".join(rf"\\{{1,8}}x{_any_case(f'{byte:02x}')}" for byte in char.encode("utf-8"))
    yield f"&(?:amp;)?#0{{0,6}}{code};|&(?:amp;)?#[xX]0{{0,6}}{_any_case(f'{code:x}')};"
    if char in _ENTITIES:
        yield re.escape(html.escape(char)) + "|" + _ENTITIES[char]
    if char == " ":
        yield r"\+"


def _any_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _cores(text: str) -> Iterator[str]:
    """Yield the parts of base64 texts that encode only this secret, for each of its three possible alignments."""
    data = text.encode("utf-8")
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode()
        first = -(-before * 8 // 6)  # characters that also encode bits of the preceding byte
        last = (before + len(data)) * 8 // 6  # those after it also encode bits of the following byte
        core = encoded[first:last]
        yield core
        yield core.replace("+", "-").replace("/", "_")


def _hex_forms(text: str) -> Iterator[str]:
    """Yield the text in hexadecimal, as programs print it."""
    for between in ("", " ", ":"):
        digits = between.join(f"{byte:02x}" for byte in text.encode("utf-8"))
        yield digits
        yield digits.upper()


def _without_runs(text: str, needle: str, alphabet: frozenset[str]) -> str:
    """Return the text with each run of the alphabet's characters that holds the needle masked."""
    while (at := text.find(needle)) >= 0:
        start = at
        end = at + len(needle)
        while start > 0 and text[start - 1] in alphabet:
            start -= 1
        while end < len(text) and text[end] in alphabet:
            end += 1
        text = text[:start] + MASK + text[end:]
    return text

"""Secrets of this process, and the one place where they are removed from whatever leaves it.

Everything that knows a secret registers it in SECRETS; everything that writes (log lines, records, runs, reports,
metrics, the terminal) passes its text through `SECRETS.redact`. It must not read a file or the environment.

A server may repeat a key in any encoding. For each character of a secret, one bounded alternative matches its forms:
plain, after backslashes (JSON, also nested), `\\u00XX`, percent-encoded (also twice), or as an HTML entity; so the
search is linear in the text. Base64 of a secret is found by its core: the characters that do not depend on the bytes
encoded before and after it.
"""

from __future__ import annotations

import base64
import html
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.config.texts import is_secret_name

MASK = "***"
MIN_CHARS = 6
"""A shorter secret occurs in ordinary messages by chance; masking it would protect little and garble them."""

FATAL_CHARS = 16
"""An answer that contains a secret of this length or more is refused: a shorter one may occur by chance."""

PLACEHOLDERS = frozenset({"ollama", "openai", "no-key", "not-needed", "lm-studio", "sk-no-key-required"})
"""Keys that people set for a server that needs none (Ollama and LM Studio document these)."""

_CHUNK_CHARS = 48
_ENTITIES = {'"': "&quot;", "&": "&amp;", "'": "&apos;", "<": "&lt;", ">": "&gt;"}
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=".decode())


@dataclass(frozen=True, slots=True)
class _Secret:
    """One registered secret: the text itself, patterns for its chunks, and the cores of its base64 forms."""

    text: str
    patterns: tuple[re.Pattern[str], ...]
    cores: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> _Secret:
        return cls(text, tuple(re.compile(_pattern(chunk)) for chunk in _chunks(text)), tuple(_cores(text)))

    def redact(self, text: str) -> str:
        """Return the text without any form of this secret, and without a prefix of it at the very end."""
        if self.text in text:
            text = text.replace(self.text, MASK)
        if any(mark in text for mark in "\\%&+"):
            for pattern in self.patterns:
                text = pattern.sub(MASK, text)
        for core in self.cores:
            while (at := text.find(core)) >= 0:
                text = _without_run(text, at, at + len(core))
        return self._without_cut_end(text)

    def _without_cut_end(self, text: str) -> str:
        """Mask a prefix of the secret at the end: a message may have been cut in the middle of it."""
        for size in range(min(len(self.text) - 1, len(text)), MIN_CHARS - 1, -1):
            if text.endswith(self.text[:size]):
                return text[:-size] + MASK
        return text


class Secrets:
    """The secrets of a process; safe for all threads. A secret is never removed: a rotated key stays one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[_Secret, ...] = ()

    def add(self, *texts: str) -> None:
        """Register secrets; those shorter than MIN_CHARS and well-known placeholders are skipped."""
        with self._lock:
            known = {secret.text for secret in self._known}
            wanted = {text for text in texts if len(text) >= MIN_CHARS and text.lower() not in PLACEHOLDERS}
            fresh = [_Secret.of(text) for text in sorted(wanted - known)]
            if fresh:
                # the longest first, so that a secret that contains another one is masked as one
                self._known = tuple(sorted((*self._known, *fresh), key=lambda secret: -len(secret.text)))

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Register the values of headers with secret names, whole and without their scheme."""
        for name, value in headers.items():
            if is_secret_header(name):
                self.add(*_parts_of(value))

    def add_url(self, url: str) -> None:
        """Register the password of a URL, as written and decoded."""
        try:
            password = urlsplit(url).password or ""
        except ValueError:
            return
        self.add(password, unquote(password))

    @property
    def are_none(self) -> bool:
        """True while no secret is known."""
        return not self._known

    def redact(self, text: str) -> str:
        """Return the text with every form of every secret replaced by `***`."""
        for secret in self._known:
            text = secret.redact(text)
        return text

    def redact_values(self, value: Any) -> Any:
        """Return plain data with all strings redacted, including the keys of mappings."""
        if not self._known:
            return value
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {self.redact(str(key)): self.redact_values(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.redact_values(item) for item in value)
        return value

    def holds(self, text: str, *, min_chars: int = FATAL_CHARS) -> bool:
        """Return True when the text contains a form of a secret of at least `min_chars` characters."""
        return any(secret.redact(text) != text for secret in self._known if len(secret.text) >= min_chars)


SECRETS = Secrets()
"""The secrets of this process; global, as logging is."""


def is_secret_header(name: str) -> bool:
    """Return True for Authorization, Cookie, and headers whose name says that they hold a key (contract, section 2)."""
    return "cookie" in name.lower() or is_secret_name(name)


def _parts_of(value: str) -> Iterable[str]:
    """Yield the value, the value without its scheme (`Bearer …`), and the longer words and cookie values in it."""
    yield value
    scheme, _, rest = value.partition(" ")
    if scheme.isalpha():
        yield rest.strip()
    yield from (word for word in re.split(r"[\s;,=]+", value) if len(word) >= FATAL_CHARS // 2)


def _chunks(text: str) -> list[str]:
    """Split the text into pieces of about _CHUNK_CHARS: one pattern for all characters of a long key would be huge."""
    count = max(1, len(text) // _CHUNK_CHARS)
    size = -(-len(text) // count)
    return [text[at : at + size] for at in range(0, len(text), size)]


def _pattern(text: str) -> str:
    return "".join(f"(?:{'|'.join(_forms(char))})" for char in text)


def _forms(char: str) -> Iterable[str]:
    """Yield patterns for the encodings of a character; each quantifier is bounded."""
    code = ord(char)
    yield r"\\{1,16}" if char == "\\" else r"\\{0,8}" + re.escape(char)
    yield rf"\\{{1,8}}[uU]{_hex(f'{code:04x}')}"
    yield "".join(f"%(?:25){{0,3}}{_hex(f'{byte:02x}')}" for byte in char.encode("utf-8"))
    yield f"&(?:amp;)?#0{{0,6}}{code};|&(?:amp;)?#[xX]0{{0,6}}{_hex(f'{code:x}')};"
    if char in _ENTITIES:
        yield re.escape(html.escape(char)) + "|" + _ENTITIES[char]
    if char == " ":
        yield r"\+"


def _hex(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _cores(text: str) -> Iterable[str]:
    """Yield the parts of base64 texts that encode only this secret, for each of its three possible alignments."""
    data = text.encode("utf-8")
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode()
        first = -(-before * 8 // 6)  # characters that also encode bits of the preceding byte
        last = (before + len(data)) * 8 // 6  # those after it also encode bits of the following byte
        core = encoded[first:last]
        yield core
        yield core.replace("+", "-").replace("/", "_")


def _without_run(text: str, start: int, end: int) -> str:
    """Return the text with the whole run of base64 characters around `start:end` masked."""
    while start > 0 and text[start - 1] in _BASE64:
        start -= 1
    while end < len(text) and text[end] in _BASE64:
        end += 1
    return text[:start] + MASK + text[end:]

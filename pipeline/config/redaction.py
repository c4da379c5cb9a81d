"""The secrets of this process, and their removal from all output.

Everything that knows a secret registers it in SECRETS; everything that writes (log lines, records, runs, reports,
metrics, the terminal) passes its text through `SECRETS.redact`. It must not read a file or the environment.

The search is linear in the text; secret_forms.py has the encodings that a server may repeat a key in.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.config.secret_forms import MASK, MIN_CHARS, SecretForms
from pipeline.config.texts import is_secret_name

__all__ = ["FATAL_CHARS", "MASK", "MIN_CHARS", "PLACEHOLDERS", "SECRETS", "Secrets", "is_secret_header"]

FATAL_CHARS = 16
"""An answer that contains a secret of this length or more is refused: a shorter one may occur by chance."""

_SHORT_CHARS = 120
_KEPT_SHORT = 1000
"""Names of models, endpoints and notes are the same in each record: they are searched once."""

PLACEHOLDERS = frozenset({"ollama", "openai", "no-key", "not-needed", "lm-studio", "sk-no-key-required"})
"""Keys that people set for a server that needs none (Ollama and LM Studio document these)."""


class Secrets:
    """The secrets of a process; safe for all threads. A secret is never removed: a rotated key stays one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: tuple[SecretForms, ...] = ()
        self._short: dict[str, str] = {}

    def add(self, *texts: str) -> None:
        """Register secrets; those shorter than MIN_CHARS and well-known placeholders are skipped."""
        with self._lock:
            known_texts = {secret.text for secret in self._secrets}
            secret_texts = {text for text in texts if len(text) >= MIN_CHARS and text.lower() not in PLACEHOLDERS}
            fresh = [SecretForms(text) for text in sorted(secret_texts - known_texts)]
            if fresh:
                # the longest first, so that a secret that contains another secret is masked completely
                self._secrets = tuple(sorted((*self._secrets, *fresh), key=lambda secret: -len(secret.text)))
                self._short = {}

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the secrets themselves, for another process of the same run."""
        return tuple(secret.text for secret in self._secrets)

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
        return not self._secrets

    def redact(self, text: str) -> str:
        """Return the text with `***` for each secret, in every form, and for the remains of a truncated one."""
        if len(text) > _SHORT_CHARS:
            return self._redacted(text)
        cache = self._short
        redacted = cache.get(text)
        if redacted is None:
            redacted = self._redacted(text)
            if len(cache) < _KEPT_SHORT:
                cache[text] = redacted
        return redacted

    def _redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = secret.redact(text, parts=True)
        return text

    def redact_whole(self, text: str) -> str:
        """Return the text with every form of whole secrets masked: for the text of documents and of this program."""
        for secret in self._secrets:
            text = secret.redact(text, parts=False)
        return text

    def redact_values(self, value: Any) -> Any:
        """Return plain data of a server with all strings redacted, including the keys of mappings."""
        return _in_values(value, self.redact) if self._secrets else value

    def redact_whole_values(self, value: Any) -> Any:
        """Return plain data of a document with whole secrets masked in all strings, including the keys of mappings."""
        return _in_values(value, self.redact_whole) if self._secrets else value

    def holds(self, text: str, *, min_chars: int = FATAL_CHARS) -> bool:
        """Return True when the text contains `min_chars` or more characters of a form of a secret."""
        long_secrets = [secret for secret in self._secrets if len(secret.text) >= min_chars]
        return any(secret.is_in(text, part_chars=min_chars) for secret in long_secrets)


def _in_values(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): _in_values(item, redact) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_in_values(item, redact) for item in value)
    return value


SECRETS = Secrets()
"""The secrets of this process; global, as logging is."""


def is_secret_header(name: str) -> bool:
    """Return True for Authorization, Cookie, and headers whose name says that they hold a key."""
    return "cookie" in name.lower() or is_secret_name(name)


def _parts_of(value: str) -> Iterable[str]:
    """Yield the value, the value without its scheme (`Bearer …`), and the longer words and cookie values in it."""
    yield value
    scheme, _, credentials = value.partition(" ")
    if scheme.isalpha():
        yield credentials.strip()
    yield from (word for word in re.split(r"[\s;,=]+", value) if len(word) >= FATAL_CHARS // 2)

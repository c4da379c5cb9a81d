"""A redacted text contains no form of a secret, and a text without one is unchanged."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.redaction import FATAL_CHARS, MASK, MIN_CHARS, PLACEHOLDERS, Secrets

HEADER_CHARS = st.characters(
    min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f", exclude_categories=["Cc"]
)
SECRETS = st.text(HEADER_CHARS, min_size=MIN_CHARS, max_size=120).filter(lambda text: text.lower() not in PLACEHOLDERS)


def _every(text: str, form: Callable[[int], str]) -> str:
    return "".join(form(ord(char)) for char in text)


FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "json": lambda text: json.dumps(text)[1:-1],
    "json in json": lambda text: json.dumps(json.dumps(text))[1:-1],
    "json with \\/": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json escapes of all": lambda text: _every(text, lambda code: f"\\u{code:04X}"),
    "percent": quote,
    "percent of all": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": quote_plus,
    "entities": html.escape,
    "entities of all": lambda text: _every(text, lambda code: f"&#{code};"),
    "hexadecimal": lambda text: text.encode().hex(),
    "HEXADECIMAL": lambda text: text.encode().hex(":").upper(),
    "bytes": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
}
KEY = "sk-Zq/9very+sEcret=KEY-0123456789xyz"


@settings(deadline=None, max_examples=300)
@given(SECRETS, st.sampled_from(sorted(FORMS)), st.text(max_size=30), st.text(max_size=30))
def test_every_form_of_a_secret_is_masked(secret: str, form: str, before: str, after: str) -> None:
    """Every encoding is masked at every position."""
    secrets = Secrets()
    secrets.add(secret)
    echoed = FORMS[form](secret)
    redacted = secrets.redact(before + echoed + after)
    assert MASK in redacted
    assert echoed not in redacted.replace(MASK, "\0")


@settings(deadline=None, max_examples=300)
@given(
    SECRETS, st.binary(max_size=7), st.binary(max_size=7), st.sampled_from([base64.b64encode, base64.urlsafe_b64encode])
)
def test_base64_containing_a_secret_is_masked(
    secret: str, before: bytes, after: bytes, encode: Callable[[bytes], bytes]
) -> None:
    """It may encode a longer text, as in `Basic base64(user:password)`."""
    secrets = Secrets()
    secrets.add(secret)
    echoed = encode(before + secret.encode() + after).decode()
    assert secrets.redact(f"got [{echoed}].") == f"got [{MASK}]."


@settings(deadline=None)
@given(SECRETS, st.integers(MIN_CHARS, 100))
def test_secret_cut_at_the_end_of_a_text_is_masked(secret: str, size: int) -> None:
    """A message may be cut in the middle of the key."""
    secrets = Secrets()
    secrets.add(secret)
    assert secrets.redact("the key " + secret[:size]).removeprefix("the key ") == MASK


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("size", [12, 20, 35])
def test_shortened_secret_is_masked(form: str, size: int) -> None:
    """A server may shorten a message before it sends it, with marks of its own."""
    secrets = Secrets()
    secrets.add(KEY)
    redacted = secrets.redact(f"the key '{FORMS[form](KEY[:size])}…' is unknown").replace('\\"', "")
    assert redacted.startswith("the key '***") and redacted.endswith("…' is unknown")
    assert len(redacted) < len("the key '…' is unknown") + 8 * len(MASK)


@given(st.integers(0, len(KEY) - 13), st.integers(13, len(KEY)))
def test_end_and_middle_of_a_secret_are_masked(start: int, size: int) -> None:
    """An example is `…9very+sEcret=KEY…`."""
    secrets = Secrets()
    secrets.add("one-Two-3-four-5-six")
    secrets.add(KEY)
    part = KEY[start : start + size]
    assert len(part) < 13 or any(mark in part[1:-1] for mark in "=") or secrets.redact(f"…{part}…") == "…***…"


@pytest.mark.parametrize("cut", range(24, 120, 7))
def test_broken_base64_of_a_secret_is_masked(cut: int) -> None:
    """It may be in MIME lines, or cut by a length limit."""
    secrets = Secrets()
    secrets.add(KEY)
    broken = base64.encodebytes(b"A" * cut + KEY.encode() + b"B" * 40).decode()
    result = base64.b64decode(re.sub(r"[^A-Za-z0-9+/]", "", secrets.redact(broken)) + "==")
    assert not any(KEY.encode()[at : at + 12] in result for at in range(len(KEY) - 11))
    whole = base64.b64encode(KEY.encode()).decode()
    assert secrets.redact(f"[{whole[: cut // 2 + 4]}]") == f"[{MASK}]"


def test_words_of_a_secret_stay_readable() -> None:
    """Pass phrases and cookie names consist of words, so only long parts and whole secrets are masked."""
    secrets = Secrets()
    secrets.add_headers(
        {"Cookie": "session=production-db-2024-77; lang=en", "Authorization": "Bearer abcdefgh-1234567890"}
    )
    secrets.add("correct horse battery staple")
    text = "Bearer scheme; session=3; the production server; a correct horse; lang=en-US"
    assert secrets.redact(text) == text
    assert secrets.redact("correct horse battery staple, production-db-2024-7") == "***, ***"


def test_document_text_loses_only_whole_secrets() -> None:
    """Ids and metadata are data."""
    secrets = Secrets()
    secrets.add(KEY)
    assert secrets.redact_whole_values({"a": [f"x{KEY}", KEY[:20]]}) == {"a": ["x***", KEY[:20]]}


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="Zz", exclude_categories=["Cs"]), max_size=200))
def test_text_without_a_secret_is_unchanged(text: str) -> None:
    """Any other text is returned as it is."""
    secrets = Secrets()
    secrets.add("Z-secret-Z-that-is-not-in-it")
    assert secrets.redact(text) == text
    assert not secrets.holds(text)


@pytest.mark.parametrize("text", ["EMPTY", "token", "ollama", "OLLAMA", ""])
def test_common_words_and_placeholders_are_not_masked(text: str) -> None:
    """They occur in ordinary messages, like the name of the provider."""
    secrets = Secrets()
    secrets.add(text)
    assert secrets.redact(f"the provider {text} answered") == f"the provider {text} answered"


def test_header_values_are_masked_by_header_name() -> None:
    """Authorization is masked with and without its scheme, cookies by value, other headers not at all."""
    secrets = Secrets()
    secrets.add_headers(
        {"Authorization": "Token abc def ghi", "Cookie": "session=0123456789; a=b", "X-Team": "research"}
    )
    assert secrets.redact("Token abc def ghi|abc def ghi|0123456789|research") == "***|***|***|research"


def test_url_password_is_masked() -> None:
    """It is masked as written in the URL and decoded."""
    secrets = Secrets()
    secrets.add_url("http://user:p%40ss%2Fword@host/v1")
    assert secrets.redact("p%40ss%2Fword and p@ss/word") == "*** and ***"


def test_only_long_secrets_in_an_answer_refuse_it() -> None:
    """A secret of 16 characters or more cannot occur by chance."""
    secrets = Secrets()
    secrets.add("a" * (FATAL_CHARS - 1), "b" * FATAL_CHARS)
    assert not secrets.holds("x" + "a" * (FATAL_CHARS - 1))
    secrets.add("sk-0123456789abcdef-0123", "production-database-of-europe")
    assert not secrets.holds("sk-0123456789ab, production-database-of-asia")
    assert secrets.holds("sk-0123456789abcdef-01")
    assert secrets.holds("x" + "b" * FATAL_CHARS)

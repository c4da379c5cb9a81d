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
def test_no_form_of_a_secret_is_left(secret: str, form: str, before: str, after: str) -> None:
    """Every encoding of the secret is masked at every position."""
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
def test_base64_is_found_wherever_it_begins(
    secret: str, before: bytes, after: bytes, encode: Callable[[bytes], bytes]
) -> None:
    """Base64 of a longer text that contains the secret is masked, as in `Basic base64(user:password)`."""
    secrets = Secrets()
    secrets.add(secret)
    echoed = encode(before + secret.encode() + after).decode()
    assert secrets.redact(f"got [{echoed}].") == f"got [{MASK}]."


@settings(deadline=None)
@given(SECRETS, st.integers(MIN_CHARS, 100))
def test_a_text_that_was_cut_does_not_end_with_a_part_of_it(secret: str, size: int) -> None:
    """A message may be cut in the middle of the key."""
    secrets = Secrets()
    secrets.add(secret)
    assert secrets.redact("the key " + secret[:size]).removeprefix("the key ") == MASK


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("size", [12, 20, 35])
def test_what_is_left_of_a_secret_that_was_cut_is_masked(form: str, size: int) -> None:
    """A server may shorten a message before it sends it, and put its own marks around what it kept."""
    secrets = Secrets()
    secrets.add(KEY)
    redacted = secrets.redact(f"the key '{FORMS[form](KEY[:size])}…' is unknown").replace('\\"', "")
    assert redacted.startswith("the key '***") and redacted.endswith("…' is unknown")
    assert len(redacted) < len("the key '…' is unknown") + 8 * len(MASK)


@given(st.integers(0, len(KEY) - 13), st.integers(13, len(KEY)))
def test_the_end_and_the_middle_of_a_secret_are_masked_too(start: int, size: int) -> None:
    """As `…9very+sEcret=KEY…`."""
    secrets = Secrets()
    secrets.add("one-Two-3-four-5-six")
    secrets.add(KEY)
    part = KEY[start : start + size]
    assert len(part) < 13 or any(mark in part[1:-1] for mark in "=") or secrets.redact(f"…{part}…") == "…***…"


@pytest.mark.parametrize("cut", range(24, 120, 7))
def test_base64_that_was_cut_or_broken_into_lines_is_masked(cut: int) -> None:
    """As MIME has it, or a message of bounded length."""
    secrets = Secrets()
    secrets.add(KEY)
    broken = base64.encodebytes(b"A" * cut + KEY.encode() + b"B" * 40).decode()
    found = base64.b64decode(re.sub(r"[^A-Za-z0-9+/]", "", secrets.redact(broken)) + "==")
    assert not any(KEY.encode()[at : at + 12] in found for at in range(len(KEY) - 11))
    whole = base64.b64encode(KEY.encode()).decode()
    assert secrets.redact(f"[{whole[: cut // 2 + 4]}]") == f"[{MASK}]"


def test_ordinary_words_of_a_secret_stay_readable() -> None:
    """Pass phrases and the names of cookies are words: only whole secrets are masked, and long parts of them."""
    secrets = Secrets()
    secrets.add_headers(
        {"Cookie": "session=production-db-2024-77; lang=en", "Authorization": "Bearer abcdefgh-1234567890"}
    )
    secrets.add("correct horse battery staple")
    text = "Bearer scheme; session=3; the production server; a correct horse; lang=en-US"
    assert secrets.redact(text) == text
    assert secrets.redact("correct horse battery staple, production-db-2024-7") == "***, ***"


def test_the_text_of_documents_loses_whole_secrets_only() -> None:
    """Their ids and metadata are data."""
    secrets = Secrets()
    secrets.add(KEY)
    assert secrets.redact_whole_values({"a": [f"x{KEY}", KEY[:20]]}) == {"a": ["x***", KEY[:20]]}


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="Zz", exclude_categories=["Cs"]), max_size=200))
def test_other_texts_stay_as_they_are(text: str) -> None:
    """A text without the secret is unchanged."""
    secrets = Secrets()
    secrets.add("Z-secret-Z-that-is-not-in-it")
    assert secrets.redact(text) == text
    assert not secrets.holds(text)


@pytest.mark.parametrize("text", ["EMPTY", "token", "ollama", "OLLAMA", ""])
def test_words_and_placeholders_are_no_secrets(text: str) -> None:
    """They occur in ordinary messages, like the name of the provider."""
    secrets = Secrets()
    secrets.add(text)
    assert secrets.redact(f"the provider {text} answered") == f"the provider {text} answered"


def test_headers_are_secret_by_their_name() -> None:
    """Authorization is masked with and without its scheme, cookies by value, other headers not at all."""
    secrets = Secrets()
    secrets.add_headers(
        {"Authorization": "Token abc def ghi", "Cookie": "session=0123456789; a=b", "X-Team": "research"}
    )
    assert secrets.redact("Token abc def ghi|abc def ghi|0123456789|research") == "***|***|***|research"


def test_the_password_of_a_url_is_one() -> None:
    """The password is masked as written in the URL and decoded."""
    secrets = Secrets()
    secrets.add_url("http://user:p%40ss%2Fword@host/v1")
    assert secrets.redact("p%40ss%2Fword and p@ss/word") == "*** and ***"


def test_a_short_secret_in_an_answer_is_no_reason_to_refuse_it() -> None:
    """A secret of 16 characters or more cannot occur by chance."""
    secrets = Secrets()
    secrets.add("a" * (FATAL_CHARS - 1), "b" * FATAL_CHARS)
    assert not secrets.holds("x" + "a" * (FATAL_CHARS - 1))
    secrets.add("sk-0123456789abcdef-0123", "production-database-of-europe")
    assert not secrets.holds("sk-0123456789ab, production-database-of-asia")
    assert secrets.holds("sk-0123456789abcdef-01")
    assert secrets.holds("x" + "b" * FATAL_CHARS)

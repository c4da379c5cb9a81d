"""Predicates of texts that settings accept, and the masking of secrets in names and URLs.

It knows no setting, and must not do I/O.
"""

from __future__ import annotations

import codecs
import re
from urllib.parse import urlsplit

_GO_DURATION = re.compile(r"[-+]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+)")
_SECRET = r"(?i)sig|token|key|secret|cred|pass|auth"


def shorten(text: str, limit: int) -> str:
    """Return the text, or as many of its whole words as fit `limit` characters, with … at their end."""
    if len(text) <= limit:
        return text
    words = text[:limit].rpartition(" ")[0]
    start = words if 2 * len(words) >= limit else text[: limit - 2]  # one long word is all there is
    return f"{start.rstrip(' ,;:.')} …"


def is_http_url(text: str) -> bool:
    """Return True for the URL of a server: http or https, a host, no query, no white space."""
    try:
        parts = urlsplit(text)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        return False
    is_plain = re.fullmatch(r"[^\s\x00-\x1f\x7f?#]+", text) is not None and not parts.netloc.endswith(":")
    return is_plain and port_ok and parts.scheme in ("http", "https") and bool(parts.hostname)


def is_proxy(text: str) -> bool:
    """Return True for the URL of a proxy, or `env`."""
    return text == "env" or is_http_url(text)


def is_header_text(text: str) -> bool:
    """Return True for a valid HTTP header value: Latin-1 without control characters."""
    return re.fullmatch(r"[\t -~\xa0-\xff]*", text) is not None


def is_header(text: str) -> bool:
    """Return True for a valid HTTP header line `name: value`, without white space in the name or before the value."""
    return re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ([!-~\xa1-\xff][\t -~\xa0-\xff]*)?", text) is not None


def is_filled(text: str) -> bool:
    """Return True for a text that is not blank and can be part of a path."""
    return bool(text.strip()) and "\0" not in text


def is_go_duration(text: str) -> bool:
    """Return True for a duration that Go's `time.ParseDuration` accepts: a number needs a unit, except 0."""
    return _GO_DURATION.fullmatch(text) is not None


def is_secret_name(name: str) -> bool:
    """Return True when the name suggests that its value is a key, a password or a signature."""
    return re.search(_SECRET, name) is not None


def mask_url(url: str) -> str:
    """Return the URL without user name, password, and the values of query fields that look like keys."""
    url = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@", r"\1***@", url)
    return re.sub(r"([?&#;])([^?=&#;]*)=([^&#;]*)", _masked_field, url)


def _masked_field(match: re.Match[str]) -> str:
    begin, name, value = match.groups()
    return f"{begin}{name}={'***' if is_secret_name(name) else value}"


def names_codec(text: str) -> bool:
    """Return True for `auto` and for a codec of text, alone or after a glob and a colon."""
    name = text.rpartition(": ")[2]
    try:
        return name == "auto" or bool(codecs.lookup(name)._is_text_encoding)
    except (LookupError, ValueError):
        return False

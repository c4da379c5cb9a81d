"""OLLAMA_HOST, the variable by which Ollama's own programs find the server, as the default of `ollama.base_url`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.config.texts import is_http_url

NAME = "OLLAMA_HOST"
PORT = 11434
_OF_IPV6 = frozenset("0123456789abcdefABCDEF:.")
"""The characters of a plain IPv6 address; one with a port has brackets."""
_EVERY_ADDRESS = re.compile(r"^(0\.0\.0\.0|\[::\])(?=[:/]|$)")


def host_variable(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return `ollama.base_url` and the name of its place when the variable is set to something that is an address."""
    url = address_of(environ.get(NAME, ""))
    return {} if url is None else {"ollama.base_url": (url, f"environment variable {NAME}")}


def address_of(host: str) -> str | None:
    """Return the server's URL for a value of OLLAMA_HOST, read as Ollama 0.33 reads it; None for no address.

    Without a scheme it is http and port 11434; with one, the scheme's own port. An address to listen on at all
    interfaces is reached at the loopback address.
    """
    text = host.strip().strip("\"'").strip()
    if not text:
        return None
    scheme, separator, remainder = text.rpartition("://")
    if not separator:
        scheme = "http"
        remainder = text
    place, slash, path = remainder.partition("/")
    if place.count(":") > 1 and set(place) <= _OF_IPV6:
        place = f"[{place}]"
    place = _EVERY_ADDRESS.sub("127.0.0.1", place)
    if place.startswith(":"):
        place = f"127.0.0.1{place}"
    if not separator and not re.search(r":\d+$", place):
        place = f"{place}:{PORT}"
    url = f"{scheme.lower()}://{place}{slash}{path}".rstrip("/")
    return url if is_http_url(url) else None

"""The addresses of a server's host name: behind a headless Service each of them is a replica. It connects to none."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit, urlunsplit


def addresses_of(url: str) -> list[str]:
    """The addresses of the URL's host, sorted, each once; empty when the name cannot be looked up now."""
    try:
        addresses = socket.getaddrinfo(urlsplit(url).hostname, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(address[0]) for *_, address in addresses})


def at_address(url: str, address: str) -> str:
    """The URL with the address in place of the host's name, for people to tell replicas apart; no user in it."""
    parts = urlsplit(url)
    host = f"[{address}]" if ":" in address else address
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))

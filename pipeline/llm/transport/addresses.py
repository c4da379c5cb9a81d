"""The addresses of a server's host name: behind a headless Service each address is a replica. Connects to none."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit, urlunsplit


def addresses_of(url: str) -> list[str]:
    """Return the addresses of the URL's host, sorted, each once; empty when the name cannot be resolved now."""
    try:
        addresses = socket.getaddrinfo(urlsplit(url).hostname, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(address[0]) for *_, address in addresses})


def at_address(url: str, address: str) -> str:
    """Return the URL with the address instead of the host name, to distinguish replicas in messages; without a user."""
    parts = urlsplit(url)
    host = f"[{address}]" if ":" in address else address
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))

"""Choice of the proxy for the requests to a server.

Requests carry keys and documents. So requests to this machine or within a cluster do not use the environment's proxy,
unless the setting `proxy` names one. Connects to nothing.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import requests

from pipeline.config.redaction import SECRETS

ENVIRONMENT = "env"
_IN_CLUSTER = (".svc", ".cluster.local", ".localhost")


def proxies_for(url: str, setting: str | None) -> dict[str, str]:
    """Return the proxies by scheme, as requests takes them; empty for a direct connection.

    `setting`: an address, ENVIRONMENT, or None: the environment's proxy, except for hosts of this machine or a cluster.
    """
    if setting is not None and setting != ENVIRONMENT:
        proxies = {"http": setting, "https": setting}
    elif setting is None and is_near(urlsplit(url).hostname or ""):
        return {}
    else:
        proxies = requests.utils.get_environ_proxies(url, no_proxy=None)
    for proxy in proxies.values():
        SECRETS.add_url(proxy)
    return proxies


def proxy_of(url: str, proxies: dict[str, str]) -> str | None:
    """Return the address of the proxy for requests to the URL; None for a direct connection."""
    return requests.utils.select_proxy(url, proxies)


def is_near(host: str) -> bool:
    """Return whether a host is this machine or in a cluster: a bare name, a Service's name, or a private address."""
    host = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "." not in host or host.endswith(_IN_CLUSTER)
    return address.is_loopback or address.is_private or address.is_link_local

"""One HTTP endpoint over `requests`: send a body, return a bounded reply or raise a named failure.

It handles deadlines, size limits, keys and connections, and must not know any server's dialect. It never retries, with
one exception: a server may close an idle connection when the next request is sent. Such a request cannot have been
processed, and is sent once more, at once, on a new connection.

    Endpoint.post ─▶ HTTPAdapter.send ─▶ KeepAlivePool (urllib3's through a proxy) ─▶ body, read up to max_bytes
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from pipeline.config.texts import is_secret_name, mask_url
from pipeline.errors import ConfigError
from pipeline.llm.transport.call_errors import CallFailedError, call_failure, root_cause
from pipeline.llm.transport.connection import ConnectionReuse, PlainConnection, StaleConnectionError, TlsConnection
from pipeline.llm.transport.pool import KeepAlivePool
from pipeline.llm.transport.proxies import proxies_for, proxy_of
from pipeline.llm.transport.request_ids import HEADER, names_another, new_request_id
from pipeline.llm.transport.response_body import read_body
from pipeline.llm.transport.tls_files import check_certificates

__all__ = ["Access", "CallFailedError", "Endpoint", "Reply"]

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
MAX_REPLY_BYTES = 8 * 1024 * 1024

SECRET_CHARS = 8
"""Shortest key that is masked in messages: shorter ones (`EMPTY`, `token`) are placeholders and ordinary words."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply: any status, its headers, the whole decoded body in bytes.

    `request_id`: the X-Request-Id generated for the request; empty when the configuration sets one.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    request_id: str = ""


@dataclass(slots=True)
class _Response:
    """The used part of a requests.Response: skipping cookies and encoding detection saves time on each request."""

    request: Any
    raw: Any
    status_code: int
    headers: Mapping[str, str]
    url: str | None

    def close(self) -> None:
        """Release the connection, or close it when the body was not read to its end."""
        self.raw.close()
        self.raw.release_conn()


class _Adapter(HTTPAdapter):
    """requests' adapter with a single pool of monitored connections; constant work is cached.

    Only hooks that requests documents for subclasses are overridden, never `send`: test libraries replace that.
    """

    def __init__(self, access: Access, reuse: ConnectionReuse) -> None:
        super().__init__(pool_connections=1, pool_maxsize=access.pool_size, max_retries=0)
        self._access = access
        self._reuse = reuse
        self._lock = threading.Lock()
        self._found: Any = None
        self._urls: dict[Any, str] = {}

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        if self._found is None:
            with self._lock:
                self._found = self._found or self._watched_pool(request, verify, proxies=proxies, cert=cert)
        return self._found

    def _watched_pool(self, request: Any, verify: Any, *, proxies: Any, cert: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        kind = TlsConnection if pool.scheme == "https" else PlainConnection
        address = None if pool.proxy else self._access.address
        traits = {"max_age_s": self._access.max_connection_age_s, "address": address, "reuse": self._reuse}
        pool.ConnectionCls = type(kind.__name__, (kind,), traits)
        super().cert_verify(pool, request.url, verify, cert)  # type: ignore[no-untyped-call]
        if pool.proxy:
            return pool
        access = self._access
        return KeepAlivePool(pool, reuse=self._reuse, max_age_s=access.max_connection_age_s, size=access.pool_size)

    def close(self) -> None:
        """Close the idle connections, which urllib3 leaves to the garbage collector."""
        with self._lock:  # first, as the manager would return the closed pool until then
            pool = self._found
            self._found = None
            super().close()
        if pool is not None:
            pool.close()

    def drop_idle(self) -> None:
        """Close the idle connections of a pool that remains in use; urllib3's pool closes them on the next use."""
        pool = self._found
        if isinstance(pool, KeepAlivePool):
            pool.drop_idle()

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Do nothing: the check reads certificate files, so it runs once, when the pool is created."""

    def request_url(self, request: Any, proxies: Any) -> str:
        url = self._urls.get(request.url)
        if url is None:
            url = self._urls[request.url] = super().request_url(request, proxies)
        return url

    def build_response(self, req: Any, resp: Any) -> Any:
        return _Response(req, resp, resp.status, resp.headers, req.url)


@dataclass(frozen=True, slots=True)
class Access:
    """Settings for reaching an endpoint: headers, certificates, connection age. `read_key` is called again after a 401.

    `address`: the one of the host's IP addresses to connect to; ignored with a proxy.
    `proxy`: the argument of proxies_for.
    """

    read_key: Callable[[], str] = field(default=str, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    max_connection_age_s: float = 120.0
    pool_size: int = 256
    address: str | None = None
    proxy: str | None = field(default=None, repr=False)


class Endpoint:
    """One base URL with pooled connections and one prepared request per thread and path; thread-safe."""

    def __init__(self, base_url: str, access: Access = Access()) -> None:
        self.base_url = base_url.rstrip("/")
        check_certificates(access.ca_file, access.client_cert, access.client_key)
        self._access = access
        self._key = access.read_key()
        self._reuse = ConnectionReuse(mask_url(self.base_url))
        self._adapter = _Adapter(access, self._reuse)
        self._names_requests = HEADER.lower() not in map(str.lower, access.headers or ())
        self._proxies = proxies_for(self.base_url, access.proxy)
        through = proxy_of(self.base_url, self._proxies)
        self.proxy = mask_url(through) if through else None
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._verify: bool | str = access.ca_file or bundle or True
        self._cert: Any = (access.client_cert, access.client_key) if access.client_key else access.client_cert
        self._local = threading.local()
        self.key_changes = 0

    def reload_key(self) -> bool:
        """Reload the key for the next requests; return True when it has changed.

        A missing or empty file, as in the middle of a rotation, changes nothing.
        """
        try:
            former_key = self._key
            self._key = self._access.read_key()
        except ConfigError as error:
            logger.warning(
                "key not reloaded, the previous one stays in use: %s",
                error,
                extra={"endpoint": mask_url(self.base_url)},
            )
            return False
        self.key_changes += former_key != self._key
        return former_key != self._key

    @property
    def access(self) -> tuple[Access, str]:
        """Return the settings for reaching the endpoint, with its present key."""
        return self._access, self._key

    @property
    def sends_key(self) -> bool:
        """Return whether requests are authenticated: by key, user in the URL, or a configured header."""
        has_header = any(map(is_secret_name, self._access.headers or ()))
        return has_header or bool(self._key) or urlsplit(self.base_url).username is not None

    def get(self, path: str, *, timeout_s: float) -> Reply:
        """Send a GET and return the reply; CallFailedError without one within `timeout_s`."""
        return self._send(self._prepared("GET", path), timeout_s=timeout_s, max_bytes=MAX_REPLY_BYTES)

    def post(self, path: str, body: bytes, *, timeout_s: float, max_bytes: int = MAX_REPLY_BYTES) -> Reply:
        """Send a POST of JSON bytes and return the reply; CallFailedError without one, or with one over `max_bytes`."""
        request = self._prepared("POST", path)
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        return self._send(request, timeout_s=timeout_s, max_bytes=max_bytes)

    def distrust(self) -> None:
        """Close the idle connections and reuse none from now on, because a reply belonged to another request."""
        self._reuse.stop("the server answered with another request's reply")
        self._adapter.drop_idle()

    def renew(self) -> None:
        """Close the idle connections, so that the next request is sent over a new one."""
        self._adapter.drop_idle()

    def close(self) -> None:
        """Close the idle connections; requests in flight finish by themselves."""
        self._adapter.close()

    def _prepared(self, method: str, path: str) -> requests.PreparedRequest:
        cache: dict[tuple[str, str, str], requests.PreparedRequest] = self._local.__dict__.setdefault("prepared", {})
        prepared = cache.get((method, path, self._key))
        if prepared is None:
            request = requests.Request(method, self.base_url + path, headers=self._headers(method))
            prepared = cache[(method, path, self._key)] = request.prepare()
            # requests' own mapping costs 10 µs each time it is read through; the length is that of each body
            fixed_headers: Any = {
                name: value for name, value in prepared.headers.items() if name.lower() != "content-length"
            }
            prepared.headers = fixed_headers
        return prepared

    def _headers(self, method: str) -> dict[str, str]:
        headers = {"User-Agent": "extraction-pipeline", "Accept": "*/*", "Accept-Encoding": "identity"}
        headers |= {"Content-Type": "application/json"} if method == "POST" else {}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return headers | dict(self._access.headers or {})

    def _send(self, request: requests.PreparedRequest, *, timeout_s: float, max_bytes: int) -> Reply:
        deadline = time.monotonic() + timeout_s
        try:
            return self._exchange(request, timeout_s=timeout_s, max_bytes=max_bytes)
        except (requests.RequestException, HTTPError, OSError) as cause:
            if not isinstance(root_cause(cause), StaleConnectionError):
                raise call_failure(cause, proxy=self.proxy) from cause
        try:
            return self._exchange(request, timeout_s=deadline - time.monotonic(), max_bytes=max_bytes)
        except (requests.RequestException, HTTPError, OSError) as cause:
            raise call_failure(cause, after_stale=True, proxy=self.proxy) from cause

    def _exchange(self, request: requests.PreparedRequest, *, timeout_s: float, max_bytes: int) -> Reply:
        request_id = new_request_id() if self._names_requests else ""
        if request_id:
            request.headers[HEADER] = request_id
        timeout: Any = urllib3.Timeout(total=timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        response = self._adapter.send(
            request, stream=True, timeout=timeout, verify=self._verify, cert=self._cert, proxies=self._proxies
        )
        try:
            body = read_body(response.raw, max_bytes)
        finally:
            response.close()
        if names_another(response.headers.get(HEADER), request_id):
            self.distrust()
            raise CallFailedError("bad_response", "bad_response")
        if response.status_code != 200:
            body = _without_secrets(body, request.headers)
        return Reply(response.status_code, response.headers, body, request_id)


def _without_secrets(body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return an error body without the secrets that were sent: some servers repeat them in messages."""
    for name, value in headers.items():
        secret = value.rpartition(" ")[2]
        if is_secret_name(name) and len(secret) >= SECRET_CHARS:
            body = body.replace(secret.encode(), b"***")
    return body

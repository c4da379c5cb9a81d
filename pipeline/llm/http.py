"""One HTTP endpoint over `requests`: a body goes out, a bounded reply or a named failure comes back.

It knows deadlines, limits, keys and connections, and nothing of any dialect; it never retries, except that a request
which met a connection the server had closed while it was idle is sent once more, at once, on a fresh one.

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
from pipeline.llm.call_errors import CallFailedError, call_failure, root_cause
from pipeline.llm.connection import ConnectionReuse, PlainConnection, StaleConnectionError, TlsConnection
from pipeline.llm.http_pool import KeepAlivePool
from pipeline.llm.proxies import proxies_for, proxy_of
from pipeline.llm.request_ids import HEADER, names_another, new_request_id
from pipeline.llm.tls_files import check_certificates

__all__ = ["Access", "CallFailedError", "Endpoint", "Reply"]

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
MAX_REPLY_BYTES = 8 * 1024 * 1024

SECRET_CHARS = 8
"""A shorter key (`EMPTY`, `token`) is a word for nobody to guess at, and may stand in any message."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered: any status, its headers, the whole body (bytes, decoded).

    `request_id`: the X-Request-Id that this program made for the request; empty when the configuration sets one.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    request_id: str = ""


@dataclass(slots=True)
class _Response:
    """What of a requests.Response is used here: no cookies, no guess of an encoding."""

    request: Any
    raw: Any
    status_code: int
    headers: Mapping[str, str]
    url: str | None

    def close(self) -> None:
        """Gives the connection back, or closes it when the body was not read to its end."""
        self.raw.close()
        self.raw.release_conn()


class _Adapter(HTTPAdapter):
    """requests' adapter with one pool, whose connections are watched; what is the same each time is done once.

    Only the hooks that requests documents for subclasses are overridden, `send` is its own.
    """

    def __init__(self, access: Access, reuse: ConnectionReuse) -> None:
        super().__init__(pool_connections=1, pool_maxsize=access.pool_size, max_retries=0)
        self._access, self._reuse, self._lock = access, reuse, threading.Lock()
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
        """Closes the idle connections; urllib3 itself leaves that to the garbage collector."""
        with self._lock:  # the pool manager would hand the closed pool to whoever asks before it is cleared
            pool, self._found = self._found, None
            super().close()
        if pool is not None:
            pool.close()

    def drop_idle(self) -> None:
        """Closes the idle connections of a pool that stays in use; urllib3's closes them as it meets them."""
        pool = self._found
        if isinstance(pool, KeepAlivePool):
            pool.drop_idle()

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: done when the pool was made; it looks for the files of certificates on disk."""

    def request_url(self, request: Any, proxies: Any) -> str:
        found = self._urls.get(request.url)
        if found is None:
            found = self._urls[request.url] = super().request_url(request, proxies)
        return found

    def build_response(self, req: Any, resp: Any) -> Any:
        return _Response(req, resp, resp.status, resp.headers, req.url)


@dataclass(frozen=True, slots=True)
class Access:
    """How an endpoint is reached: headers, trust and age. `read_key` is asked again after a 401.

    `address`: the one to connect to, of those that the URL's host name has; not used through a proxy.
    `proxy`: as proxies_for takes it.
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
    """One base URL: pooled connections, one prepared request a thread and path; safe for many threads."""

    def __init__(self, base_url: str, access: Access = Access()) -> None:
        self.base_url = base_url.rstrip("/")
        check_certificates(access.ca_file, access.client_cert, access.client_key)
        self._access, self._key = access, access.read_key()
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
        """True when the key's file holds another key now; it is used from the next request on.

        A file that is gone or empty just now, as in the middle of a rotation, changes nothing.
        """
        try:
            before, self._key = self._key, self._access.read_key()
        except ConfigError as error:
            logger.warning("the key stays as it was: %s", error, extra={"endpoint": mask_url(self.base_url)})
            return False
        self.key_changes += before != self._key
        return before != self._key

    @property
    def sends_key(self) -> bool:
        """True when requests say who asks: by the key, by a user in the URL, or by a header of the configuration."""
        named = any(map(is_secret_name, self._access.headers or ()))
        return named or bool(self._key) or urlsplit(self.base_url).username is not None

    def get(self, path: str, *, timeout_s: float) -> Reply:
        """The reply to a GET; CallFailedError when there is none within `timeout_s`."""
        return self._send(self._prepared("GET", path), timeout_s=timeout_s, max_bytes=MAX_REPLY_BYTES)

    def post(self, path: str, body: bytes, *, timeout_s: float, max_bytes: int = MAX_REPLY_BYTES) -> Reply:
        """The reply to a POST of JSON bytes; CallFailedError when there is none, or one over `max_bytes`."""
        request = self._prepared("POST", path)
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        return self._send(request, timeout_s=timeout_s, max_bytes=max_bytes)

    def distrust(self) -> None:
        """Closes the idle connections and reuses none from now on: a reply belonged to another request."""
        self._reuse.stop("the server answered with another request's reply")
        self._adapter.drop_idle()

    def close(self) -> None:
        """Closes the idle connections; requests in flight end by themselves."""
        self._adapter.close()

    def _prepared(self, method: str, path: str) -> requests.PreparedRequest:
        cache: dict[tuple[str, str, str], requests.PreparedRequest] = self._local.__dict__.setdefault("prepared", {})
        found = cache.get((method, path, self._key))
        if found is None:
            url, headers = self.base_url + path, self._headers(method)
            found = cache[(method, path, self._key)] = requests.Request(method, url, headers=headers).prepare()
        return found

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
            body = _read(response.raw, max_bytes)
        finally:
            response.close()
        if names_another(response.headers.get(HEADER), request_id):
            self.distrust()
            raise CallFailedError("bad_response", "bad_response")
        if response.status_code != 200:
            body = _without_secrets(body, request.headers)
        return Reply(response.status_code, response.headers, body, request_id)


def _without_secrets(body: bytes, sent: Mapping[str, str]) -> bytes:
    """What a server says of a failure, without the secrets it was sent: some repeat them in their complaint."""
    for name, value in sent.items():
        secret = value.rpartition(" ")[2]
        if is_secret_name(name) and len(secret) >= SECRET_CHARS:
            body = body.replace(secret.encode(), b"***")
    return body


def _read(raw: Any, max_bytes: int) -> bytes:
    """The whole body, or CallFailedError `response_too_large` as soon as it is longer than `max_bytes`."""
    chunks, size = [], 0
    packed = "Content-Encoding" in raw.headers  # although nothing but `identity` was accepted
    while chunk := raw.read(65536, decode_content=packed):
        size += len(chunk)
        if size > max_bytes:
            raise CallFailedError("response_too_large", "response_too_large")
        chunks.append(chunk)
        if raw.length_remaining == 0 and not packed:
            break
    return b"".join(chunks)

"""urllib3's connections with one deadline for a whole answer, an age, and an address of their own.

It keeps no pool and sends nothing by itself.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
from collections.abc import Callable
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

STALE_WINDOW_S = 1.0
"""A reused connection that breaks this soon after sending was closed while idle; later, the server died at work."""


class StaleConnectionError(ConnectionError):
    """The server had closed this kept-alive connection before it read the request."""


class _Steady:
    """A socket that does not set a time-out again which it has already: each time is a system call.

    A time-out less than a hundredth shorter counts as the same.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timeout: float | None = -1.0
        self.sendall, self.recv_into = sock.sendall, sock.recv_into

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def settimeout(self, timeout: float | None) -> None:
        """The socket's own, when it would change something."""
        now = self._timeout
        if now is None or timeout is None or not timeout <= now <= 1.01 * timeout:
            self._sock.settimeout(timeout)
            self._timeout = timeout


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a moment in time, however slowly the bytes drip; `makefile` gives it to http.client."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self._raw = sock.makefile("rb", buffering=0)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - as a socket's
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
            super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    """http.client's response, whose status line, headers and body share one deadline."""

    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, *, deadline: float) -> None:
        super().__init__(_DeadlineReader(sock, deadline), debuglevel, method)  # type: ignore[arg-type]


class _Watched:
    """Mixed into urllib3's connections: one deadline for a whole answer, an age, and stale connections told apart."""

    max_age_s = float("inf")
    address: str | None = None
    exchanges = 0
    born_at = 0.0
    sent_at = 0.0
    _dns_host: str
    _held: list[bytes] | None = None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock: Any = _Steady(self.sock)
        self.exchanges, self.born_at = 0, time.monotonic()

    def _new_conn(self) -> Any:
        """A socket to the address, where one is given; everything above (Host, TLS) goes by the name."""
        name = self._dns_host
        try:
            self._dns_host = self.address or name
            return super()._new_conn()  # type: ignore[misc]
        finally:
            self._dns_host = name

    @property
    def is_connected(self) -> bool:
        return bool(super().is_connected) and time.monotonic() - self.born_at < self.max_age_s  # type: ignore[misc]

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Sends the head and the body in one piece: two would be two system calls, and two packets to wait for."""
        self.sent_at, self._held = time.monotonic(), []
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
            whole, self._held = b"".join(self._held), None
            self._or_stale(functools.partial(self.send, whole))
        finally:
            self._held = None

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._held.append(data)

    def getresponse(self) -> Any:
        deadline = time.monotonic() + (self.timeout or 0.0)  # type: ignore[attr-defined]
        self.response_class = functools.partial(_DeadlineResponse, deadline=deadline)
        response = self._or_stale(super().getresponse)  # type: ignore[misc]
        self.exchanges += 1
        return response

    def _or_stale(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except (ConnectionError, http.client.RemoteDisconnected) as cause:
            if self.exchanges and time.monotonic() - self.sent_at < STALE_WINDOW_S:
                raise StaleConnectionError(str(cause)) from cause
            raise


class PlainConnection(_Watched, HTTPConnection):  # type: ignore[misc]
    """A connection over TCP."""


class TlsConnection(_Watched, HTTPSConnection):  # type: ignore[misc]
    """A connection over TLS."""

"""urllib3's connections with one deadline for a whole answer, an age, and an address of their own.

Requests through a proxy use these connections; for all other requests, pool.py takes the connected sockets.

A reply must belong to the request that was sent, else the connection is closed. So each 1xx is skipped, a connection is
kept only after a complete 200 without unread bytes, and is closed when it has bytes before a request is sent. This
module keeps no pool.
"""

from __future__ import annotations

import functools
import http.client
import io
import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

from pipeline.llm.transport.reply import MAX_INTERIM_BYTES, MAX_INTERIM_RESPONSES

logger = logging.getLogger(__name__)

STALE_WINDOW_S = 1.0
"""A reused connection that breaks within this time after sending was closed while idle; later, the server failed."""


FAREWELLS = (b"HTTP/1.1 408 ", b"HTTP/1.0 408 ")
"""haproxy, nginx and load balancers send this before they close an idle connection."""


class StaleConnectionError(ConnectionError):
    """The server had closed this kept-alive connection before it read the request."""


class StrayReplyError(http.client.HTTPException):
    """The connection has bytes that belong to no request, so no reply on it can be attributed."""


class ConnectionReuse:
    """Whether the connections of an endpoint may carry more than one request; thread-safe."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.allowed = True

    def stop(self, cause: str) -> None:
        """Forbid the reuse for good: a server that once sent a stray reply may send one at any time."""
        if self.allowed:
            self.allowed = False
            logger.warning(
                "%s; each connection to this server carries one request from now on",
                cause,
                extra={"endpoint": self._endpoint},
            )

    def judge(self, unread: bytes) -> bool:
        """Return whether these bytes are a stray reply, and stop the reuse if so."""
        stray = bool(unread.strip(b"\r\n")) and not unread.startswith(FAREWELLS)
        if stray:
            self.stop("the server sent bytes without a request")
        return stray


class _Steady:
    """A socket that sets a time-out only when it changes, as each setting is a system call.

    A time-out less than a hundredth shorter counts as unchanged.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = self.bare = sock
        self._timeout: float | None = -1.0
        self.sendall = sock.sendall
        self.recv_into = sock.recv_into

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def settimeout(self, timeout: float | None) -> None:
        """Set the time-out of the socket if it changes."""
        now = self._timeout
        if now is None or timeout is None or not timeout <= now <= 1.01 * timeout:
            self._sock.settimeout(timeout)
            self._timeout = timeout


class _DeadlineReader(io.RawIOBase):
    """Reader of a socket with one deadline for all bytes; `makefile` passes it to http.client."""

    def __init__(self, sock: socket.socket, deadline: float, on_bytes: Callable[[], None]) -> None:
        self._sock = sock
        self._deadline = deadline
        self._on_bytes = on_bytes
        self.ended = False
        self._raw = sock.makefile("rb", buffering=0)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - as a socket's
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.ended:
            return None
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(remaining_s)
        count = self._raw.readinto(buffer)
        if count:
            self._on_bytes()
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
            super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    """http.client's response, whose status line, headers and body share one deadline.

    `on_unread` gets the bytes that follow a complete reply; `on_bytes` is called when the first bytes arrive.
    """

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        *,
        deadline: float,
        on_unread: Callable[[bytes], None],
        on_bytes: Callable[[], None],
    ) -> None:
        self._reader = _DeadlineReader(sock, deadline, on_bytes)
        self._on_unread = on_unread
        self._abandoned = False
        super().__init__(self._reader, debuglevel, method)  # type: ignore[arg-type]

    def _read_status(self) -> Any:
        """Return the status line of the final reply; http.client itself treats a 102 or 103 as final."""
        size = 0
        for _ in range(MAX_INTERIM_RESPONSES + 1):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200:
                return version, status, reason
            if status == 101:
                raise http.client.HTTPException("101: the server switched to a protocol that was not requested")
            while (line := self.fp.readline(MAX_INTERIM_BYTES)).strip(b"\r\n"):
                size += len(line)
                if size > MAX_INTERIM_BYTES:
                    raise http.client.HTTPException("the headers of interim responses are too long")
        raise http.client.HTTPException("too many interim responses")

    def begin(self) -> None:
        super().begin()
        # a gateway may pass on a late answer behind its own error; RFC 9112, 6.1: such framing may hide another reply
        doubtful = self.chunked and (self.version == 10 or "content-length" in self.headers)
        if self.status != 200 or doubtful:
            self.will_close = True

    def close(self) -> None:
        self._abandoned = True
        super().close()

    def _close_conn(self) -> None:
        self._reader.ended = True
        ended_by_itself = not self._abandoned and not self.will_close
        unread = self.fp.peek() if ended_by_itself else b""
        super()._close_conn()  # type: ignore[misc]
        if unread:
            self._on_unread(unread)


class _Watched:
    """Mixin for urllib3's connections: one deadline for a whole answer, an age, and detection of stale connections."""

    max_age_s = float("inf")
    address: str | None = None
    reuse = ConnectionReuse("")
    exchanges = 0
    born_at = 0.0
    sent_at = 0.0
    begun = False
    _dns_host: str
    _held: list[bytes] | None = None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock: Any = _Steady(self.sock)
        self.exchanges = 0
        self.born_at = time.monotonic()

    def detach(self) -> Any:
        """Return the connected socket, which only the caller then uses and closes."""
        steady = self.sock
        self.sock = None
        return steady.bare

    def _new_conn(self) -> Any:
        """Return a socket to the configured address, if any; Host and TLS use the name."""
        name = self._dns_host
        try:
            self._dns_host = self.address or name
            return super()._new_conn()  # type: ignore[misc]
        finally:
            self._dns_host = name

    @property
    def is_connected(self) -> bool:
        """Return whether this connection may carry another request."""
        if self.sock is None or not self.reuse.allowed or time.monotonic() - self.born_at >= self.max_age_s:
            return False
        pending = getattr(self.sock, "pending", None)
        if super().is_connected and not (pending and pending()):  # type: ignore[misc]
            return True
        unread = self._unread()
        return unread is None or (self.reuse.judge(unread) and False)

    def _unread(self) -> bytes | None:
        """Return bytes that arrived without a request; empty when the server has closed, None when there are none."""
        self.sock.settimeout(0.0)
        try:
            return bytes(self.sock.recv(4096))
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError:
            return b""

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send head and body together, with one system call and in one packet where possible."""
        if self.sock is None:
            self.connect()
        if not self.exchanges and self.reuse.judge(self._unread() or b""):
            raise StrayReplyError("the server sent a reply before the request")
        self.sent_at = time.monotonic()
        self._held = []
        self.begun = False
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
            request_bytes = b"".join(self._held)
            self._held = None
            self._or_stale(functools.partial(self.send, request_bytes))
        finally:
            self._held = None

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._held.append(data)

    def getresponse(self) -> Any:
        deadline = time.monotonic() + (self.timeout or 0.0)  # type: ignore[attr-defined]
        self.response_class = functools.partial(
            _DeadlineResponse, deadline=deadline, on_unread=self._end, on_bytes=self._begin
        )
        response = self._or_stale(super().getresponse)  # type: ignore[misc]
        self.exchanges += 1
        return response

    def _begin(self) -> None:
        self.begun = True

    def _end(self, unread: bytes) -> None:
        """Close a connection with bytes after a complete reply; refuse the reply if it may be of an earlier request."""
        self.close()  # type: ignore[attr-defined]
        if self.reuse.judge(unread) and self.exchanges > 1:
            raise StrayReplyError("more than one reply came, and either may be an earlier request's")

    def _or_stale(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except (ConnectionError, http.client.RemoteDisconnected) as cause:
            if self.exchanges and not self.begun and time.monotonic() - self.sent_at < STALE_WINDOW_S:
                raise StaleConnectionError(str(cause)) from cause
            raise


class PlainConnection(_Watched, HTTPConnection):  # type: ignore[misc]
    """A connection over TCP."""


class TlsConnection(_Watched, HTTPSConnection):  # type: ignore[misc]
    """A connection over TLS."""

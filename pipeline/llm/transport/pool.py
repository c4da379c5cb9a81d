"""A pool of kept-alive connections to one server, each carrying one request at a time with few system calls.

It replaces urllib3's pool below requests (`urlopen`), and opens its connections, including TLS, through one. It must
not handle proxies: urllib3's own pool does.

    urlopen ─▶ idle or new connection ─▶ one send ─▶ head ─▶ Exchange.read … ─▶ idle again, or closed
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import struct
import sys
import time
from collections import deque
from typing import Any

import urllib3
from urllib3.exceptions import ProtocolError, SSLError

from pipeline.llm.transport.connection import STALE_WINDOW_S, ConnectionReuse, StaleConnectionError, StrayReplyError
from pipeline.llm.transport.instant_calls import is_silent, send_now
from pipeline.llm.transport.reply import Body, Head, Incoming, read_head

_TIMES_IN_KERNEL = sys.platform in ("linux", "darwin")
_RECEIVE_BYTES = 65536


class KeptConnection:
    """A connected socket whose time-out is set only when it changes by 1 %, since each change is a system call.

    A plain socket blocks with the kernel's time-out (SO_RCVTIMEO): Python's own would poll before each read.
    """

    __slots__ = ("_in_kernel", "_limit_s", "born_at", "exchanges", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.exchanges = 0
        self.born_at = time.monotonic()
        self._in_kernel = _TIMES_IN_KERNEL and not isinstance(sock, ssl.SSLSocket)
        self._limit_s = -1.0
        sock.settimeout(None if self._in_kernel else 1.0)

    def unread(self) -> bytes | None:
        """Return unsolicited bytes; empty when the server has closed, None when there are none."""
        try:
            if self._in_kernel:
                return None if is_silent(self.sock) else self.sock.recv(4096, socket.MSG_DONTWAIT)
            self._limit_s = -1.0
            self.sock.settimeout(0.0)
            return self.sock.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError:
            return b""

    def send(self, data: bytes, deadline: float) -> None:
        """Send all data; TimeoutError after the deadline."""
        left_s = deadline - time.monotonic()
        if self._in_kernel:
            try:
                sent_bytes = send_now(self.sock, data)
            except BlockingIOError:
                sent_bytes = 0
            if sent_bytes == len(data):
                return
            data = data[sent_bytes:]
        self.sock.settimeout(max(left_s, 0.001))
        self.sock.sendall(data)
        if self._in_kernel:
            self.sock.settimeout(None)
        else:
            self._limit_s = left_s

    def receive(self, deadline: float) -> bytes:
        """Return the next bytes, empty at the end of the connection; TimeoutError after the deadline."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if not left_s <= self._limit_s <= 1.01 * left_s:
            self._set_limit(left_s)
        try:
            return self.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError as cause:
            raise TimeoutError("timed out") from cause

    def _set_limit(self, seconds: float) -> None:
        self._limit_s = seconds = (
            1.005 * seconds
        )  # headroom, so that the slightly longer limit of the next request needs no change
        if self._in_kernel:
            whole_seconds = int(seconds)
            timeval = struct.pack("ll", whole_seconds, max(1, int((seconds - whole_seconds) * 1e6)))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        else:
            self.sock.settimeout(seconds)

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self.sock.close()


class Exchange:
    """A reply whose body is not yet read: the part of urllib3's response that requests and transport/http.py use."""

    def __init__(
        self, pool: KeepAlivePool, connection: KeptConnection, *, head: Head, incoming: Incoming, deadline: float
    ) -> None:
        self.status = head.status
        self.headers = head.headers
        self._pool = pool
        self._connection = connection
        self._head = head
        self._incoming = incoming
        self._body = Body(head, incoming)
        self._deadline = deadline
        self._unpacked: Any = None
        self._done = False

    @property
    def length_remaining(self) -> int | None:
        """The number of remaining bytes; None when it is not known before the end of the body."""
        return None if self._head.chunked else self._body.left

    def read(self, max_bytes: int, decode_content: bool = False) -> bytes:
        """Return the next bytes, empty at the end; ProtocolError for an incomplete reply or one of another request."""
        if decode_content:
            if self._unpacked is None:
                packed: Any = self
                self._unpacked = urllib3.HTTPResponse(packed, self.headers, preload_content=False)
            return bytes(self._unpacked.read(max_bytes, decode_content=True))
        try:
            data = self._body.read(max_bytes)
            if self._body.ended and not self._done:
                self._end()
        except http.client.HTTPException as cause:
            raise ProtocolError(f"Connection broken: {cause!r}", cause) from cause
        return data

    def end_within(self, seconds: float) -> None:
        """Shorten the time for the rest of the body; TimeoutError when it is not complete by then."""
        deadline = min(self._deadline, time.monotonic() + seconds)
        self._incoming.receive_by(lambda: self._connection.receive(deadline))

    def _end(self) -> None:
        self._done = True
        extra = self._incoming.unread
        stray = self._head.keeps and self._pool.reuse.judge(extra)
        if self._head.keeps and not extra:
            self._pool.put(self._connection)
        else:
            self._connection.close()
        if stray and self._connection.exchanges > 1:
            raise StrayReplyError("more than one reply arrived, and either may belong to an earlier request")

    def close(self) -> None:
        """Close the connection unless the whole reply was read."""
        if not self._done:
            self._done = True
            self._connection.close()

    def release_conn(self) -> None:
        """Do nothing: reading the end of the body releases the connection."""


class KeepAlivePool:
    """Idle connections to one server, the last used first; safe for many threads. `source` opens new ones."""

    def __init__(self, source: Any, *, reuse: ConnectionReuse, max_age_s: float, size: int) -> None:
        self.source = source
        self.reuse = reuse
        self._max_age_s = max_age_s
        self._size = size
        self._idle: deque[KeptConnection] = deque()
        self._closed = False
        name = f"[{source.host}]" if ":" in source.host else source.host
        default = {"http": 80, "https": 443}[source.scheme]
        self._host = name if source.port in (None, default) else f"{name}:{source.port}"

    def urlopen(self, method: str, url: str, *, body: Any, headers: Any, timeout: Any, **_: Any) -> Exchange:
        """Return the reply to one request, as urllib3's pool does; `timeout.total` covers all of it."""
        deadline = time.monotonic() + timeout.total
        data = self._head(method, url, headers) + (body or b"")
        connection = self._quiet() or self._connected(timeout)
        try:
            head, incoming = self._ask(connection, data, deadline=deadline)
        except http.client.RemoteDisconnected:
            connection.close()
            raise
        except http.client.HTTPException as cause:
            connection.close()
            raise ProtocolError(f"Connection broken: {cause!r}", cause) from cause
        except ssl.SSLError as cause:
            connection.close()
            raise SSLError(cause) from cause
        except BaseException:  # also after an interrupt: the next request must not read this reply
            connection.close()
            raise
        return Exchange(self, connection, head=head, incoming=incoming, deadline=deadline)

    def put(self, connection: KeptConnection) -> None:
        """Return a connection without unread bytes to the pool, or close it when it must not be reused."""
        if self._closed or not self.reuse.allowed or len(self._idle) >= self._size:
            connection.close()
            return
        self._idle.append(connection)
        with contextlib.suppress(IndexError):
            if self._closed or self._is_old(self._idle[0]):
                self._idle.popleft().close()

    def drop_idle(self) -> None:
        """Close the idle connections."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def close(self) -> None:
        """Close the idle connections, and those in use as soon as their reply has been read."""
        self._closed = True
        self.drop_idle()

    def _is_old(self, connection: KeptConnection) -> bool:
        return time.monotonic() - connection.born_at >= self._max_age_s

    def _quiet(self) -> KeptConnection | None:
        """Return an idle connection without unsolicited bytes, or None."""
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if self.reuse.allowed and not self._is_old(connection):
                    unread = connection.unread()
                    if unread is None:
                        return connection
                    self.reuse.judge(unread)
                connection.close()
        return None

    def _connected(self, timeout: Any) -> KeptConnection:
        opened = self.source._new_conn()
        opened.timeout = timeout.connect_timeout
        try:
            opened.connect()
        except ssl.SSLError as cause:
            opened.close()
            raise SSLError(cause) from cause
        except BaseException:  # also after an interrupt: there is no other reference to it
            opened.close()
            raise
        connection = KeptConnection(opened.detach())
        if self.reuse.judge(connection.unread() or b""):
            connection.close()
            stray = StrayReplyError("the server sent a reply before any request")
            raise ProtocolError(str(stray), stray)
        return connection

    @staticmethod
    def _ask(connection: KeptConnection, data: bytes, *, deadline: float) -> tuple[Head, Incoming]:
        sent_at = time.monotonic()
        incoming = Incoming(lambda: connection.receive(deadline))
        try:
            connection.send(data, deadline)
            head = read_head(incoming)
        except (ConnectionError, http.client.RemoteDisconnected) as cause:
            is_unread = connection.exchanges and not incoming.begun
            if is_unread and time.monotonic() - sent_at < STALE_WINDOW_S:
                raise StaleConnectionError(str(cause)) from cause
            raise
        connection.exchanges += 1
        return head, incoming

    def _head(self, method: str, url: str, headers: Any) -> bytes:
        lines = [f"{method} {url} HTTP/1.1"]
        if "host" not in map(str.lower, headers):
            lines.append(f"Host: {self._host}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

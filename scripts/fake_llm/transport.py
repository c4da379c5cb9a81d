"""A small, fast, threaded HTTP/1.1 keep-alive server over raw sockets that can break every rule of HTTP on demand.

It must not know about models: a handler creates the answers.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

BACKLOG = 1024
REASONS = {status.value: status.phrase for status in HTTPStatus}


class DisconnectedError(ConnectionError):
    """The client disconnected, or the server was stopped."""


@dataclass(frozen=True, slots=True)
class Request:
    """A received request; header names are in lower case, `path` has no query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `streamed`: send the body in small chunks that split lines and characters.

    `before`: bytes to send before it. `copies`: how often it is sent, further ones together with the end of the first.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    streamed: bool = False
    before: bytes = b""
    copies: int = 1


def head_of(reply: Reply, *, length: int | None) -> bytes:
    """Return the status line and the headers; a length of None announces chunks."""
    lines = [f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Unknown')}", f"date: {formatdate(usegmt=True)}"]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    if reply.content_type:
        lines.append(f"content-type: {reply.content_type}")
    lines.extend(f"{name}: {value}" for name, value in reply.headers)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def parts_of(reply: Reply) -> list[bytes]:
    """Return the pieces in which an answer is sent."""
    if not reply.streamed:
        return [head_of(reply, length=len(reply.body)) + reply.body]
    chunks = (reply.body[start : start + 61] for start in range(0, len(reply.body), 61))
    return [head_of(reply, length=None), *(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n"]


class Peer:
    """A connection as its handler sees it; for one thread only, except `cut`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()

    def read(self, idle_s: float | None = None) -> Request | None:
        """Return the next request, or None when the client has closed or sent nothing for `idle_s`."""
        if not self._buffer and idle_s and not self._readable(idle_s):
            return None
        try:
            head = self._until(b"\r\n\r\n")
        except DisconnectedError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method, target.partition("?")[0], headers, self._body(headers))

    def reply(self, reply: Reply, *, head_only: bool = False) -> None:
        """Send a complete answer."""
        if head_only:
            self.send(head_of(reply, length=len(reply.body)))
            return
        if reply.before:
            self.send(reply.before)
        *parts, last = parts_of(reply)
        for part in parts:
            self.send(part)
        self.send(last + b"".join(parts_of(reply)) * (reply.copies - 1))

    def send(self, data: bytes) -> None:
        """Send bytes as they are; raise DisconnectedError if the client has disconnected."""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise DisconnectedError(str(error)) from error

    def pause(self, seconds: float | None) -> None:
        """Wait (None: for ever); raise DisconnectedError as soon as the client closes or the server stops."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            if not self._readable(left_s):
                return
            self._fill()

    def reset(self) -> None:
        """End the connection with a RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        raise DisconnectedError("reset")

    def cut(self) -> None:
        """End the connection from any thread; a thread that waits on it gets DisconnectedError."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection with a FIN."""
        self.cut()
        self._sock.close()

    def _readable(self, seconds: float | None) -> bool:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def _fill(self) -> None:
        try:
            data = self._sock.recv(262144)
        except OSError as error:
            raise DisconnectedError(str(error)) from error
        if not data:
            raise DisconnectedError("closed by the client")
        self._buffer += data

    def _until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            self._fill()
        return self._take(end + len(mark))[:end]

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self._take(int(headers.get("content-length", "0")))
        parts = []
        while size := int(self._until(b"\r\n").partition(b";")[0], 16):
            parts.append(self._take(size + 2)[:-2])
        self._until(b"\r\n")
        return b"".join(parts)


class Listener:
    """Accept connections on one port of 127.0.0.1 (or of `host`), a thread each; can be stopped and started again."""

    def __init__(
        self, handler: Callable[[Request, Peer], None], *, port: int = 0, idle_s: float = 0.0, host: str = "127.0.0.1"
    ) -> None:
        self._handler = handler
        self._host = host
        self._idle_s = idle_s or None
        self._lock = threading.Lock()
        self._peers: set[Peer] = set()
        self._ended = threading.Condition(self._lock)
        self._accepting: threading.Thread | None = None
        # This socket never listens. While it is bound, no other program can take the port of a stopped server.
        self._holder = self._bound(port)
        self.port: int = self._holder.getsockname()[1]
        self._sock = self._bound(self.port)

    def up(self) -> None:
        """Start listening."""
        if self._accepting is None:
            self._sock.listen(BACKLOG)
            self._accepting = threading.Thread(target=self._accept, args=(self._sock,), daemon=True)
            self._accepting.start()

    def down(self, *, grace_s: float = 2.0) -> None:
        """Refuse new connections, cut the open ones, and wait until their threads have noticed."""
        if self._accepting is None:
            return
        accepting = self._accepting
        self._accepting = None
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        accepting.join()
        self._sock.close()
        self._sock = self._bound(self.port)  # bound but not listening: clients are refused
        with self._ended:
            for peer in self._peers:
                peer.cut()
            self._ended.wait_for(lambda: not self._peers, grace_s)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._peers)

    def close(self) -> None:
        """Stop the server for good."""
        self.down()
        self._sock.close()
        self._holder.close()

    def _bound(self, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self._host, port))
        sock.settimeout(0.1)
        return sock

    def _accept(self, listening: socket.socket) -> None:
        while self._accepting is threading.current_thread():
            try:
                sock = listening.accept()[0]
            except TimeoutError:
                continue
            except OSError:
                # Stopped, or out of descriptors: the first ends the loop, the second must not spin.
                time.sleep(0.01)
                continue
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock)
            with self._lock:
                self._peers.add(peer)
            threading.Thread(target=self._converse, args=(peer,), daemon=True).start()

    def _converse(self, peer: Peer) -> None:
        try:
            while request := peer.read(self._idle_s):
                self._handler(request, peer)
                if request.headers.get("connection", "").lower() == "close":
                    break
        except (DisconnectedError, ValueError):
            pass
        finally:
            peer.close()
            with self._ended:
                self._peers.discard(peer)
                self._ended.notify_all()

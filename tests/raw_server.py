"""A raw socket server on 127.0.0.1, for replies that no HTTP library would send; one thread per connection."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Got:
    """One request as received; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


class Line:
    """One connection: `n` counts the server's connections from 1; `ended` is set when the server goes down."""

    def __init__(self, sock: socket.socket, n: int, ended: threading.Event) -> None:
        self.sock, self.n, self.ended = sock, n, ended
        self._file = sock.makefile("rb")

    def read(self) -> Got | None:
        """Return the next request, or None when the client has closed."""
        first = self._file.readline()
        if not first:
            return None
        method, target, _ = first.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := self._file.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Got(method, target, headers, self._file.read(int(headers.get("content-length", 0))))

    def send(self, data: bytes) -> None:
        """Send bytes as they are; a client that has disconnected is no error."""
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def drip(self, head: bytes, *, pause_s: float = 0.05) -> None:
        """Send `head`, then single bytes until the server goes down."""
        self.send(head)
        while not self.ended.wait(pause_s):
            self.send(b"x")

    def wait_until_read(self) -> None:
        """Return when the client has read what was sent, as a reset takes the rest away (not on Linux: soon)."""
        table = Path("/proc/net/tcp")
        port = self.sock.getpeername()[1]
        while not self.ended.is_set() and table.exists() and _unread(table.read_text(encoding="ascii"), port):
            self.ended.wait(0.001)
        if not table.exists():
            self.ended.wait(0.05)

    def reset(self) -> None:
        """End the connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self.sock.close()

    def close(self) -> None:
        """End the connection with a FIN."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self.sock.close()


def _unread(table: str, port: int) -> int:
    """Return how many received bytes wait in the sockets of this local port, by Linux's table of sockets."""
    rows = map(str.split, table.splitlines()[1:])
    return sum(int(row[4].partition(":")[2], 16) for row in rows if row[1].endswith(f":{port:04X}"))


class RawServer:
    """Gives each connection to `talk`, in a thread of its own; `accepts` counts them, `closes` those
    that it is done with, `got` holds what was answered."""

    def __init__(
        self,
        talk: Callable[[Line], object],
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ):
        self._talk, self._tls = talk, tls
        self._listening = socket.create_server((host, port))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        self.accepts = self.closes = 0
        self.got: list[Got] = []
        self.ended = threading.Event()
        self._socks: list[socket.socket] = []

    def __enter__(self) -> RawServer:
        """Return the listening server."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut every connection."""
        self.ended.set()
        for sock in (self._listening, *self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listening.accept()[0]
                self.accepts += 1
                self._socks.append(sock)
                threading.Thread(target=self._serve, args=(sock, self.accepts), daemon=True).start()

    def _serve(self, sock: socket.socket, n: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            line = Line(self._tls.wrap_socket(sock, server_side=True) if self._tls else sock, n, self.ended)
            self._talk(line)
        self.closes += 1


def reply(body: bytes | str | Any = b"", status: int = 200, **headers: str) -> bytes:
    """Return a reply as bytes; other values than bytes and text become JSON. `_` in a header's name means `-`."""
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def chunked(body: bytes, size: int = 5) -> bytes:
    """Return a 200 in chunks of a few bytes, which split lines and characters."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def answering(*answers: bytes | Mapping[str, bytes], host: str = "127.0.0.1", port: int = 0) -> RawServer:
    """Return a server that sends these replies in turn, the last one for ever; a mapping is by path (else a 404)."""
    server: RawServer
    remaining = list(answers)

    def talk(line: Line) -> None:
        while (request := line.read()) is not None:
            server.got.append(request)
            answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            line.send(
                answer.get(request.path, reply({"detail": "Not Found"}, 404)) if isinstance(answer, Mapping) else answer
            )

    server = RawServer(talk, host=host, port=port)
    return server


def answering_together(many: int) -> RawServer:
    """Return a server that answers when this many requests are in flight at a time, again and again."""
    barrier = threading.Barrier(many)

    def talk(line: Line) -> None:
        while line.read() is not None:
            barrier.wait(60)
            line.send(reply(b"ok"))

    return RawServer(talk)


def refusing_url() -> str:
    """Return the address of a port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"http://127.0.0.1:{sock.getsockname()[1]}"

"""A proxy before an S3 server that notes every request, and tells a test of each before it goes on."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"


class Tap:
    """`seen`: method and target of each request, in order. `before` is called with them; it may kill the server,
    or raise OSError, which cuts the connection."""

    def __init__(self, port: int, *, before: Callable[[str, str], None] = lambda *_: None) -> None:
        self.seen: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer((HOST, 0), _handler(port, self.seen, before))
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        """The base URL that leads through here."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    def count(self, method: str, part: str = "") -> int:
        """How many requests of this method had that in their target."""
        return sum(each == method and part in target for each, target in self.seen)

    def __enter__(self) -> Tap:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(
    port: int, seen: list[tuple[str, str]], before: Callable[[str, str], None]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def forward(self) -> None:
            """Sends the request on as it came, its signed Host with it, and the answer back."""
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append((self.command, self.path))
            try:
                before(self.command, self.path)
            except OSError:
                self.close_connection = True
                return
            onward = http.client.HTTPConnection(HOST, port, timeout=60)
            try:
                onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    onward.putheader(name, value)
                onward.endheaders(body)
                reply = onward.getresponse()
                data = reply.read()
            except OSError:
                self.close_connection = True
                return
            finally:
                onward.close()
            self.send_response_only(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            size = reply.getheader("content-length") if self.command == "HEAD" else str(len(data))
            self.send_header("content-length", size or "0")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward

    return Handler

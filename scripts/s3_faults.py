"""Proxy in front of an S3 server that simulates failing stores; faults can be switched while it runs.

    python scripts/s3_faults.py --port S3_PORT      then type a fault's name, or `none`, on standard input

It forwards requests unchanged, including the signed Host. Tested with SeaweedFS 3.97; the faults are those of AWS S3
(ExpiredToken is a 400, SlowDown a 503).
"""

from __future__ import annotations

import argparse
import http.client
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"

REPLIES = {
    "expired_token": (400, "ExpiredToken", "The provided token has expired."),
    "invalid_key": (403, "InvalidAccessKeyId", "The access key id does not exist in our records."),
    "forbidden": (403, "AccessDenied", "Access Denied"),
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "internal_error": (500, "InternalError", "We encountered an internal error. Please try again."),
    "bad_range": (416, "InvalidRange", "The requested range is not satisfiable"),
    "no_bucket": (404, "NoSuchBucket", "The specified bucket does not exist"),
    "not_implemented": (501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
}
FAULTS = (*REPLIES, "delete_denied", "reset", "cut_body", "lost_reply", "ignore_conditions")
"""`lost_reply`: the request is executed, and the connection closed without a reply.
`delete_denied`: a bulk delete gets a 200 with an error for its key, as AWS answers.
`ignore_conditions`: a conditional PUT that the server refuses gets the reply of a successful one."""

Wanted = Callable[[str, str, str], bool]
Before = Callable[[str, str], None]


class FaultProxy:
    """The proxy. `fault`: a name of FAULTS, or None, for the requests that `wanted(method, target, key id)` selects.

    `before(method, target)` is called before each request is forwarded: it may kill the server, or raise OSError, which
    cuts the connection. `seen`: method and target of each request, in order. `sent_bytes`: sizes of the replies by
    target without its query. Any thread may set the attributes at any time.
    """

    def __init__(
        self,
        port: int,
        *,
        fault: str | None = None,
        wanted: Wanted = lambda *_: True,
        before: Before = lambda *_: None,
    ) -> None:
        self.port = port
        self.fault = fault
        self.wanted = wanted
        self.before = before
        self.seen: list[tuple[str, str]] = []
        self.sent_bytes: Counter[str] = Counter()
        self._server = _Server((HOST, 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        """The base URL of the proxy."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    def count(self, method: str, part: str = "") -> int:
        """Return the number of requests with this method and this part in their target."""
        return sum(seen_method == method and part in target for seen_method, target in self.seen)

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that were killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def forward(self) -> None:
            """Answer with the fault, or send the request on and its reply back."""
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            proxy.seen.append((self.command, self.path))
            try:
                proxy.before(self.command, self.path)
            except OSError:
                self.close_connection = True
                return
            key = self.headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
            fault = proxy.fault if proxy.fault and proxy.wanted(self.command, self.path, key) else None
            if fault in REPLIES:
                self._refuse(*REPLIES[fault])
            elif fault == "delete_denied":
                self._deny(body)
            elif fault == "reset":
                self._reset()
            else:
                with suppress(OSError):
                    self._pass_on(body, fault)
                    return
                self.close_connection = True

        def _refuse(self, status: int, code: str, message: str) -> None:
            data = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
            self.send_response(status)
            self.send_header("content-type", "application/xml")
            self.send_header("content-length", "0" if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _deny(self, body: bytes) -> None:
            key = body.decode().partition("<Key>")[2].partition("</Key>")[0]
            error = f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            data = f'<?xml version="1.0"?><DeleteResult>{error}</DeleteResult>'.encode()
            self.send_response(200)
            self.send_header("content-type", "application/xml")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def _pass_on(self, body: bytes, fault: str | None) -> None:
            onward = http.client.HTTPConnection(HOST, proxy.port, timeout=60)
            try:
                onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    onward.putheader(name, value)
                onward.endheaders(body)
                reply = onward.getresponse()
                data = reply.read()
            finally:
                onward.close()
            if fault == "lost_reply":
                self._reset()
                return
            ignores = fault == "ignore_conditions" and reply.status == 412
            if ignores:
                data = b""
            self.send_response_only(200 if ignores else reply.status)
            if ignores:
                self.send_header("etag", '"0123456789abcdef0123456789abcdef"')
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            proxy.sent_bytes[self.path.partition("?")[0]] += len(data)
            size = reply.getheader("content-length") if self.command == "HEAD" else str(len(data))
            self.send_header("content-length", size or "0")
            self.end_headers()
            if fault == "cut_body" and data:
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
            else:
                self.wfile.write(data)

    for method in ("GET", "PUT", "HEAD", "DELETE", "POST"):
        setattr(Handler, f"do_{method}", Handler.forward)
    return Handler


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="port of the S3 server on loopback")
    with FaultProxy(parser.parse_args().port) as proxy:
        print(f"{proxy.endpoint}; faults: {', '.join(FAULTS)}, none", flush=True)
        for line in sys.stdin:
            name = line.strip()
            if name in (*FAULTS, "none"):
                proxy.fault = None if name == "none" else name
            print(f"fault: {proxy.fault}", flush=True)


if __name__ == "__main__":
    _main()

"""The web server of a review: it serves only this machine's browser.

Each request is checked in this order: its Host (a foreign site may resolve to 127.0.0.1), its origin (Origin,
Sec-Fetch-Site), its method, and for /api/ the token and the type of its body. It must not interpret a judgement:
session.py does.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from pipeline.errors import OutputError
from pipeline.review.session import ReviewSession, UnacceptableError
from pipeline.truth.gold import finite

HOST = "127.0.0.1"
MAX_BODY_BYTES = 1 << 20
TIMEOUT_S = 10.0
MAX_CONNECTIONS = 64
"""A browser opens six; more connections are another program's."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_PAGES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
}
_JSON = "application/json"
_log = logging.getLogger(__name__)


class _Refusal(Exception):
    """A request with an error reply; its body may be unread, so the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ReviewServer(ThreadingHTTPServer):
    """The server of one session until `shutdown`. `url`: the address with the token, for the reviewer only."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, session: ReviewSession, *, port: int, token: str | None = None) -> None:
        """Bind the port (0: any free one) on the loopback address; OSError when it is in use."""
        super().__init__((HOST, port), _Handler)
        self.session = session
        self.token = token or secrets.token_urlsafe(32)
        self.hosts = (f"{HOST}:{self.server_port}", f"localhost:{self.server_port}")
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)

    @property
    def url(self) -> str:
        """The address to open; a browser sends the part behind # to no server."""
        return f"http://{HOST}:{self.server_port}/#{self.token}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread; close it when there are too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error of a connection; a disconnected browser is not an error."""
        del request, client_address
        _log.debug("a connection ended early", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """The handler of the requests of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server: ReviewServer

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _no_method(self) -> None:
        self._answer(self._refuse_method)

    do_OPTIONS = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_TRACE = do_CONNECT = _no_method

    def version_string(self) -> str:
        """Name no version of Python in the Server header."""
        return "pipeline-review"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log a request at debug level, without the client's address and document numbers."""
        _log.debug("review: request", extra={"method": self.command, "format": format[:20], "parts": len(arguments)})

    def _answer(self, handle: Callable[[], tuple[bytes, str]]) -> None:
        status = 200
        try:
            self._check_origin()
            body, kind = handle()
        except _Refusal as refusal:
            status = refusal.status
            self.close_connection = True
            body, kind = _json({"error": str(refusal)})
        except UnacceptableError as error:
            status = 422
            body, kind = _json({"error": str(error)})
        except OutputError as error:
            _log.error("Judgement not saved: %s", error)
            status = 507
            body, kind = _json({"error": str(error)})
        self._send(status, body, kind)

    def _check_origin(self) -> None:
        """Refuse a request that a page of another site sent; _Refusal."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            raise _Refusal(421, "this server is for 127.0.0.1 and localhost only")
        origins = self.headers.get_all("Origin", [])
        sites = self.headers.get_all("Sec-Fetch-Site", [])
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            raise _Refusal(403, "a request of another origin")
        if any(site not in ("none", "same-origin") for site in sites):
            raise _Refusal(403, "a request of another site")

    def _refuse_method(self) -> tuple[bytes, str]:
        raise _Refusal(405, "need GET or POST")

    def _get(self) -> tuple[bytes, str]:
        if self.path in _PAGES:
            name, kind = _PAGES[self.path]
            return (files("pipeline.review") / "page" / name).read_bytes(), kind
        self._check_token()
        if self.path == "/api/session":
            return _json(self.server.session.overview())
        return _json(self._of_document(self.path, self.server.session.document))

    def _post(self) -> tuple[bytes, str]:
        self._check_token()
        if self.headers.get_content_type() != _JSON or "Content-Type" not in self.headers:
            raise _Refusal(403, f"need a body of {_JSON}")
        session = self.server.session
        body = self._body()
        path, _, action = self.path.rpartition("/")
        if action == "judgement":
            return _json(self._of_document(path, lambda number: session.save(number, body)))
        if action == "withdrawal":
            return _json(self._of_document(path, session.withdraw))
        raise _Refusal(404, "no such address")

    def _check_token(self) -> None:
        """Refuse a request without the token; _Refusal."""
        if not self.path.startswith("/api/"):
            raise _Refusal(405 if self.command == "POST" else 404, "no such address")
        sent_token = self.headers.get("X-Review-Token", "").encode("utf-8", "surrogateescape")
        if not secrets.compare_digest(sent_token, self.server.token.encode()):
            raise _Refusal(403, "need the token: open the address that `pipeline review` printed")

    def _of_document(self, path: str, do: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
        """Handle a request for the document of /api/documents/N."""
        number = path.removeprefix("/api/documents/")
        if number == path or not (number.isascii() and number.isdigit() and len(number) < 10):
            raise _Refusal(404, "no such address")
        try:
            return do(int(number))
        except IndexError as error:
            raise _Refusal(404, "no such document") from error

    def _body(self) -> dict[str, Any]:
        """Return the JSON object of a request; _Refusal for one that is too large or is none."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise _Refusal(411, "need a Content-Length")
        if len(length) > 9 or int(length) > MAX_BODY_BYTES:
            raise _Refusal(413, f"need a body of at most {MAX_BODY_BYTES} bytes")
        data = self.rfile.read(int(length))
        try:
            body = json.loads(data, parse_constant=finite, parse_float=finite)
        except (ValueError, RecursionError) as error:
            raise _Refusal(400, "the body is not JSON") from error
        if len(data) < int(length) or not isinstance(body, dict):
            raise _Refusal(400, "the body is not a JSON object")
        return body

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _json(value: Any) -> tuple[bytes, str]:
    """Return JSON in ASCII: half a character of a document is then an escape, and never invalid UTF-8."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).encode("ascii"), f"{_JSON}; charset=utf-8"

"""Stub load balancer: servers with different context lengths behind one address (cutting_llm.py).

    python scripts/balanced_llm.py --how random --contexts 4096,32768

`--how`: robin (each request to the next server), random, connection (all requests of a connection to one server, as a
Kubernetes Service does). It must not import the pipeline.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import random
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cutting_llm import WAYS, CuttingLLM

HOW = ("robin", "random", "connection")


class BalancedLLM:
    """The load balancer and its servers, as a context manager.

    `cut`: names of documents whose last answer lacks a part. `verified_by`: the number of the server that gets all
    verification requests, instead of the one that `how` would choose.
    """

    def __init__(self, servers: list[CuttingLLM], how: str, *, seed: int = 0) -> None:
        self.servers = servers
        self.how = how
        self.cut: set[str] = set()
        for server in servers:
            server.cut = self.cut
        self.verified_by: int | None = None
        self._random = random.Random(seed)
        self._turn = itertools.count()
        self._lock = threading.Lock()
        self._stack = ExitStack()
        handler = type("Handler", (_Handler,), {"balancer": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> BalancedLLM:
        """Listen in a thread of its own."""
        for server in self.servers:
            self._stack.enter_context(server)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening, and all servers."""
        self._server.shutdown()
        self._server.server_close()
        self._stack.close()

    @property
    def verification_requests(self) -> int:
        """Return the number of verification requests to all servers."""
        return sum(server.verification_requests for server in self.servers)

    def choose(self) -> CuttingLLM:
        """Return the server for the next request or connection."""
        with self._lock:
            number = self._random.randrange(len(self.servers)) if self.how != "robin" else next(self._turn)
        return self.servers[number % len(self.servers)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    balancer: BalancedLLM

    def setup(self) -> None:
        """Choose the server of this connection."""
        super().setup()
        self.chosen = self.balancer.choose()

    def do_GET(self) -> None:
        """Forward the request."""
        self._forward(b"")

    def do_POST(self) -> None:
        """Forward the request; verification requests are those for one token."""
        self._forward(self.rfile.read(int(self.headers["Content-Length"])))

    def _forward(self, body: bytes) -> None:
        server = self.chosen if self.balancer.how == "connection" else self.balancer.choose()
        if self.balancer.verified_by is not None and b'"max_tokens":1,' in body.replace(b" ", b""):
            server = self.balancer.servers[self.balancer.verified_by]
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        try:
            connection.request(self.command, self.path, body or None, {"Content-Type": "application/json"})
            reply: Any = connection.getresponse()
            data = reply.read()
        finally:
            connection.close()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--how", choices=HOW, default="random", help="how a server is chosen (default: random)")
    parser.add_argument("--way", choices=WAYS, default="tail", help="the part of a long prompt that is kept")
    parser.add_argument("--contexts", default="4096,32768", help="context lengths of the servers, separated by commas")
    flags = parser.parse_args()
    servers = [CuttingLLM(flags.way, context=int(context)) for context in flags.contexts.split(",")]
    with BalancedLLM(servers, flags.how) as balancer:
        print(balancer.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

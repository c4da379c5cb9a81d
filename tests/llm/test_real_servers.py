"""The HTTP exchange with real servers: uvicorn alone, and behind nginx and haproxy.

Each request gets its own answer, as http.client reads it, whatever carries it; connections are used again.
"""

from __future__ import annotations

import asyncio
import gzip
import http.client
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from timing import until

from pipeline.llm.transport.http import Access, Endpoint

uvicorn = pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow

THREADS, REQUESTS = 12, 600
PATHS = ("/length", "/chunked", "/large", "/gzip", "/close", "/error", "/empty")
KEPT_S = 1

HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout server 20s
  timeout client 20s
  timeout http-keep-alive 400ms
frontend front
  bind 127.0.0.1:{own}
  http-request early-hint Link "</style.css>; rel=preload"
  default_backend back
backend back
  http-reuse always
  server one 127.0.0.1:{port}
"""
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 20; keepalive_timeout 1s;
  upstream back {{ server 127.0.0.1:{port}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{own};
    location / {{ proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


async def echo(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Reply with the request's content, framed as the path demands."""
    if scope["type"] != "http":
        raise RuntimeError("no such protocol")
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    path = scope["path"]
    status, headers, parts = answer(path, b"to " + body)
    headers = [*headers, (b"x-client", str(scope["client"]).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for number, part in enumerate(parts):
        await asyncio.sleep(0.002 * (path == "/chunked"))
        await send({"type": "http.response.body", "body": part, "more_body": number < len(parts) - 1})


def answer(path: str, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], list[bytes]]:
    """Return status, headers and the pieces of the body."""
    if path == "/chunked":
        return 200, [], [*(body[at : at + 7] for at in range(0, len(body), 7)), b""]
    if path == "/large":
        body *= 20_000
    if path == "/gzip":
        body = gzip.compress(body)
    if path == "/empty":
        return 204, [], [b""]
    extra = {"/gzip": [(b"content-encoding", b"gzip")], "/close": [(b"connection", b"close")]}.get(path, [])
    return (503 if path == "/error" else 200), [(b"content-length", str(len(body)).encode()), *extra], [body]


@contextmanager
def uvicorn_server(kind: str, *, kept_s: int = KEPT_S) -> Iterator[str]:
    """Run the application in a thread, with one of uvicorn's parsers; yield its address."""
    if kind == "httptools":
        pytest.importorskip("httptools")
    config = uvicorn.Config(
        echo,
        port=0,
        http=kind,
        log_level="critical",
        lifespan="off",
        timeout_keep_alive=kept_s,
        ws="none",
        loop="asyncio",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(60)


@contextmanager
def proxy(name: str, url: str, folder: Path) -> Iterator[str]:
    """Run nginx or haproxy in front of a server, on a port that was free a moment ago."""
    program = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    if program is None:
        pytest.skip(f"{name} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    file = folder / f"{name}.conf"
    template = {"haproxy": HAPROXY, "nginx": NGINX}[name]
    file.write_text(template.format(folder=folder, own=own, port=urlsplit(url).port), encoding="utf-8")
    command = [program, "-f", str(file), "-db"] if name == "haproxy" else [program, "-c", str(file), "-p", str(folder)]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: accepts(own) or child.poll() is not None)
        yield f"http://127.0.0.1:{own}"
    finally:
        child.kill()
        child.wait()


def accepts(port: int) -> bool:
    """Return whether something listens at the port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True, slots=True)
class Servers:
    """The address to use, and the address of the application (equal without a proxy)."""

    url: str
    behind: str


@pytest.fixture(params=["h11", "httptools", "nginx", "haproxy"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    """Yield the application alone, or behind a proxy."""
    with ExitStack() as stack:
        kind = str(request.param)
        if kind in ("h11", "httptools"):
            behind = url = stack.enter_context(uvicorn_server(kind))
        else:  # a proxy that meets a closed connection itself answers 502
            behind = stack.enter_context(uvicorn_server("h11", kept_s=60))
            url = stack.enter_context(proxy(kind, behind, tmp_path))
        yield Servers(url, behind)


def reference(url: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Return status and body as http.client gets them."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("POST", path, body)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, gzip.decompress(data) if response.headers["Content-Encoding"] == "gzip" else data


@pytest.mark.parametrize("path", PATHS)
def test_reply_is_read_like_http_client(servers: Servers, path: str) -> None:
    """It is framed by length, chunks or the end of the connection, compressed, empty, or an error."""
    endpoint = Endpoint(servers.url)
    for number in range(3):
        body = b"question %d" % number
        reply = endpoint.post(path, body, timeout_s=60)
        assert (reply.status, reply.body) == reference(servers.behind, path, body)
    endpoint.close()


def test_concurrent_requests_get_their_own_replies(servers: Servers) -> None:
    """Many threads reuse few connections with all framings mixed, and no reply is swapped."""
    endpoint, clients = Endpoint(servers.url, Access(pool_size=THREADS)), set()

    def ask(number: int) -> tuple[int, bytes]:
        path = PATHS[number % 4]
        reply = endpoint.post(path, b"question %d" % number, timeout_s=60)
        clients.add(reply.headers.get("x-client"))
        return reply.status, reply.body[: len(b"to question %d" % number)]

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(ask, range(REQUESTS)))
    assert answers == [(200, b"to question %d" % number) for number in range(REQUESTS)]
    assert len(clients) < REQUESTS / 4
    endpoint.close()


def test_connection_closed_while_idle_loses_no_request(servers: Servers) -> None:
    """After the keep-alive time, and at its very end, the request is sent once more and answered."""
    endpoint, pause = Endpoint(servers.url), threading.Event()
    for number, wait_s in enumerate([0.0, KEPT_S + 0.3, KEPT_S, KEPT_S - 0.01, 0.4, 0.401, 0.399, 0.4]):
        pause.wait(wait_s)
        assert endpoint.post("/length", b"question %d" % number, timeout_s=60).body == b"to question %d" % number
    endpoint.close()

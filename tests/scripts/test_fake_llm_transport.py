"""The fake server breaks connections, goes down and up, and queues requests as real servers do."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from chat_requests import CHATS, ROOT, ask, body_for, connected
from fake_llm import FakeLLM, Fault
from timing import until


@pytest.fixture
def server() -> Iterator[FakeLLM]:
    """Yield a server that answers at once."""
    with FakeLLM(("llama3.1",)) as running:
        yield running


def test_reset_and_close_send_no_byte(server: FakeLLM) -> None:
    """One ends with a RST, the other with a FIN."""
    with connected(server, "[[fault:reset]]") as sock, pytest.raises(ConnectionResetError):
        sock.recv(100)
    with connected(server, "[[fault:close]]") as sock:
        assert sock.recv(100) == b""


def test_half_body_fault_sends_fewer_bytes_than_announced(server: FakeLLM) -> None:
    """The connection ends within the body."""
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        ask(server, CHATS[0], "[[fault:half_body]]")


def test_hang_fault_sends_no_byte(server: FakeLLM) -> None:
    """The client's timeout ends the wait."""
    with connected(server, "[[fault:hang]]") as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(100)


def test_drip_fault_outlasts_a_read_timeout(server: FakeLLM) -> None:
    """A byte arrives again and again, and the header or the body never ends."""
    server.faults = lambda request, _: Fault(
        "drip_header" if "header" in json.dumps(request.body) else "drip_body", seconds=0.01
    )
    for text in ("header", "body"):
        with connected(server, text) as sock:
            received = b""
            while received.count(b"x") < 12:
                received += sock.recv(100)
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
            assert (b"\r\n\r\n" in received) is (text == "body")


@pytest.mark.parametrize(
    ("text", "head"),
    [("[[fault:huge]]", b"content-length: 268435456"), ("[[fault:endless]]", b"transfer-encoding: chunked")],
)
def test_client_may_leave_a_huge_body(server: FakeLLM, text: str, head: bytes) -> None:
    """The server announces 256 MB or no end, and survives a client that disconnects."""
    with connected(server, text) as sock:
        assert head in sock.recv(1000)
    assert ask(server, CHATS[0], "text").status_code == 200


def test_down_and_up_keep_the_port(server: FakeLLM) -> None:
    """Open connections end and new ones are refused; afterwards only the loaded model is missing."""
    ask(server, CHATS[0], "text")
    with connected(server, "[[fault:hang]]") as sock:
        until(lambda: len(server.chats()) == 2)
        server.down()
        assert cut(sock)
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url + "/health", timeout=60)
    server.up()
    assert ask(server, CHATS[0], "text").status_code == 200
    assert server.loads == 2


def cut(sock: socket.socket) -> bool:
    """Return whether a connection has ended without a byte."""
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


def test_kill_fault_ends_all_requests_and_restarts_the_server(server: FakeLLM) -> None:
    """The killing request and the one beside it are cut; later the same document is answered."""
    server.restart_s = 0.2
    with (
        connected(server, "[[doc:a]] [[fault:hang]]") as beside,
        connected(server, "[[doc:b]] [[fault:kill*1]]") as killer,
    ):
        assert cut(beside)
        assert cut(killer)
    until(lambda: answers(server, "[[doc:b]] [[fault:kill*1]]"))


def answers(server: FakeLLM, text: str) -> bool:
    """Return whether a chat gets a 200."""
    try:
        return ask(server, CHATS[0], text).status_code == 200
    except requests.ConnectionError:
        return False


def test_slots_limit_parallel_requests_in_order() -> None:
    """Two run at a time, first come, first served."""
    done: list[int] = []
    with FakeLLM(("llama3.1",), slots=1, latency_s=0.2) as server:
        threads = []
        for i in range(6):
            threads.append(
                threading.Thread(target=lambda i=i: (ask(server, CHATS[i % 2], f"text {i}"), done.append(i)))
            )
            threads[-1].start()
            until(lambda i=i: len(server.chats()) > i)
        for thread in threads:
            thread.join()
        assert server.max_running == 1
        assert server.max_in_flight > 1
    assert done == sorted(done)


def test_max_in_flight_equals_the_clients_at_most() -> None:
    """Eight sequential clients are at most eight requests."""
    with FakeLLM(("llama3.1",)) as server, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: ask(server, CHATS[i % 2], f"text {i}").status_code, range(200)))
        assert set(answers) == {200}
        assert 1 <= server.max_in_flight <= 8
        assert len(server.chats()) == 200


def test_metrics_show_running_and_waiting_requests() -> None:
    """A load controller can read the queue while requests are in it."""
    with FakeLLM(("llama3.1",), slots=1, latency_s=60) as server:
        with connected(server, "a", path=CHATS[1]), connected(server, "b", path=CHATS[1]):
            waiting = 'vllm:num_requests_waiting{engine="0",model_name="llama3.1"} 1.0'
            until(lambda: waiting in requests.get(server.url + "/metrics", timeout=60).text)
            running = 'vllm:num_requests_running{engine="0",model_name="llama3.1"} 1.0'
            assert running in requests.get(server.url + "/metrics", timeout=60).text
        server.down()


def test_connection_is_kept_alive(server: FakeLLM) -> None:
    """Requests of a session share a connection, and an idle one is closed if configured."""
    with connected(server, "one") as sock:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    with FakeLLM(idle_s=0.05) as idle, socket.create_connection(("127.0.0.1", idle.port), timeout=60) as sock:
        assert sock.recv(100) == b""


def test_command_serves_logs_and_ends_on_sigterm(tmp_path: Path) -> None:
    """A child process prints its URL, writes a line for each chat, and exits with 0."""
    log = tmp_path / "requests.jsonl"
    command = [sys.executable, str(ROOT / "scripts/fake_llm"), "--model", "llama3.1", "--request-log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip().removeprefix("fake_llm listening on ")
        for path in CHATS:
            requests.post(url + path, json=body_for(path, "[[doc:d7]] [[fault:http_503*1]]"), timeout=60)
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert [(line["document"], line["n"], line["fault"], line["path"]) for line in lines] == [
        ("d7", 1, "http_503", CHATS[0]),
        ("d7", 2, None, CHATS[1]),
    ]

"""Calls on a socket that never wait; each one is compared with what Python's own methods report."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pipeline.llm.transport import instant_calls
from pipeline.llm.transport.instant_calls import is_silent, send_now

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["c library", "python"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """Yield two connected TCP sockets, once for each way of calling."""
    if request.param == "python":
        monkeypatch.setattr(instant_calls, "_LIBRARY", None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        local = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    with local, peer:
        yield local, peer


def test_library_is_used_where_it_can_be_called() -> None:
    """The C library is used with ctypes; a wrong declaration would fall back without a word."""
    pytest.importorskip("ctypes")
    assert instant_calls._LIBRARY is not None


def test_bytes_are_sent_whole_with_nuls(pair: Pair) -> None:
    """A NUL does not end the data."""
    local, peer = pair
    assert send_now(local, b"a\0b") == 3
    assert peer.recv(10) == b"a\0b"


def test_a_full_buffer_takes_a_part_and_then_raises(pair: Pair) -> None:
    """The number of bytes that the kernel accepts is returned; a socket that accepts none raises BlockingIOError."""
    local, _ = pair
    data = b"x" * (1 << 24)
    assert 0 < send_now(local, data) < len(data)
    with pytest.raises(BlockingIOError):
        while True:
            send_now(local, data)


def test_a_closed_peer_raises_what_send_raises(pair: Pair) -> None:
    """The second send to a peer that has closed is a ConnectionError."""
    local, peer = pair
    peer.close()
    with pytest.raises(ConnectionError):
        while True:
            send_now(local, b"x")


def test_a_socket_without_bytes_is_silent_until_one_arrives(pair: Pair) -> None:
    """The byte that ends the silence remains to be read."""
    local, peer = pair
    assert is_silent(local)
    peer.send(b"x")
    local.setblocking(True)
    assert local.recv(1, socket.MSG_PEEK) == b"x"
    assert not is_silent(local)
    assert local.recv(1) == b"x"


def test_a_closed_connection_is_not_silent(pair: Pair) -> None:
    """The end of a connection is something to read."""
    local, peer = pair
    peer.close()
    assert local.recv(1) == b""
    assert not is_silent(local)

"""The reply parser compared with http.client: it agrees on every reply it accepts, however the bytes are split."""

from __future__ import annotations

import http.client
import io
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.llm.transport.reply import Body, Incoming, read_head

HEAD = b"HTTP/1.1 200 OK\r\n"
REFUSALS = (http.client.HTTPException, ConnectionError)


@dataclass(frozen=True, slots=True)
class Read:
    """What a reader extracted from some bytes; `rest` follows the reply."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    rest: bytes
    keeps: bool


def read_reply(data: bytes, splits: tuple[int, ...] = (), *, most: int = 65536) -> Read:
    """Return what our parser reads when the bytes come in pieces."""
    places = sorted({place % (len(data) + 1) for place in splits} | {0, len(data)})
    pieces = iter([data[start:end] for start, end in zip(places, [*places[1:], len(data)], strict=True) if start < end])
    incoming = Incoming(lambda: next(pieces, b""))
    head = read_head(incoming)
    body, parts = Body(head, incoming), []
    while not body.ended:
        parts.append(body.read(most))
    return Read(
        head.status,
        tuple(sorted(head.headers.items())),
        b"".join(parts),
        incoming.unread + b"".join(pieces),
        head.keeps,
    )


class _Wire(io.BytesIO):
    """Bytes in place of a socket."""

    def makefile(self, *_: Any, **__: Any) -> io.BytesIO:
        return self

    def close(self) -> None:
        """Stay open, because the rest is read afterwards."""


def reference(data: bytes) -> Read:
    """Return what http.client reads."""
    wire = _Wire(data)
    response = http.client.HTTPResponse(wire)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    headers = tuple(sorted((name.lower(), value) for name, value in response.getheaders()))
    return Read(response.status, headers, body, wire.read(), not response.will_close)


TOKEN = st.text("abcXYZ019-_", min_size=1, max_size=8).map(lambda name: f"x-{name}".lower())
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
FIELDS = st.dictionaries(TOKEN, VALUE, max_size=5)
BODY = st.binary(max_size=400)
SPLITS = st.lists(st.integers(0, 5000), max_size=20).map(tuple)


def chunks_of(body: bytes, sizes: list[int]) -> bytes:
    """Return the body in chunks of these sizes, with an extension in every third."""
    parts, at = [], 0
    for number, size in enumerate(sizes):
        part, at = body[at : at + size], at + size
        parts += [b"%x%b\r\n%b\r\n" % (len(part), b";a=b" * (number % 3 == 2), part)] if part else []
    rest = body[at:]
    parts += [b"%X\r\n%b\r\n" % (len(rest), rest)] if rest else []
    return b"".join(parts) + b"0\r\n"


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Return a well-formed final reply: by length, in chunks (perhaps with trailers), or up to the end."""
    status = draw(st.sampled_from([200, 200, 201, 204, 304, 404, 429, 500, 504]))
    fields, body = draw(FIELDS), draw(BODY)
    framing = draw(st.sampled_from(["length", "chunks", "end"])) if status not in (204, 304) else "end"
    lines = [f"HTTP/1.{draw(st.integers(0, 1))} {status} {draw(st.sampled_from(['OK', '', 'No Such Thing']))}"]
    lines += [f"{name}:{' ' * draw(st.integers(0, 2))}{value}" for name, value in fields.items()]
    lines += [f"Connection: {draw(st.sampled_from(['close', 'keep-alive', 'Keep-Alive, x']))}"] * draw(
        st.integers(0, 1)
    )
    if framing == "length":
        lines.append(f"content-LENGTH: {len(body)}")
    elif framing == "chunks":
        lines.append("Transfer-Encoding: Chunked")
        trailers = b"".join(f"{name}: t\r\n".encode() for name in draw(FIELDS))
        body = chunks_of(body, draw(st.lists(st.integers(0, 90), max_size=6))) + trailers + b"\r\n"
    end = draw(st.sampled_from(["\r\n", "\r\n", "\n"]))
    return end.join([*lines, "", ""]).encode("latin-1") + (b"" if status in (204, 304) else body)


@settings(deadline=None, max_examples=400)
@given(replies(), SPLITS, st.integers(1, 100), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\r\n"]))
def test_well_formed_reply_is_read_like_http_client(
    data: bytes, splits: tuple[int, ...], most: int, behind: bytes
) -> None:
    """Status, headers, body and rest agree for any split; no connection is kept that http.client would close."""
    read, expected = read_reply(data + behind, splits, most=most), reference(data + behind)
    assert (read.status, read.headers, read.body, read.rest) == (
        expected.status,
        expected.headers,
        expected.body,
        expected.rest,
    )
    assert expected.keeps or not read.keeps
    assert not read.keeps or read.status == 200


@settings(deadline=None, max_examples=600)
@given(replies(), st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=3)), max_size=4), SPLITS)
def test_damaged_reply_is_refused_or_read_like_http_client(
    data: bytes, damage: list[tuple[int, bytes]], splits: tuple[int, ...]
) -> None:
    """The outcome is the same for any split, and equals http.client's if the connection is kept."""
    for place, piece in damage:
        data = data[: place % len(data)] + piece + data[place % len(data) + len(piece) :]
    try:
        read = read_reply(data)
    except REFUSALS as refusal:
        with pytest.raises(type(refusal)):
            read_reply(data, splits)
        return
    assert read_reply(data, splits, most=7) == read
    if read.keeps and not data.startswith(b"HTTP/1.1 1"):
        expected = reference(data)
        assert (read.status, read.body, read.rest) == (expected.status, expected.body, expected.rest)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), SPLITS)
def test_any_bytes_give_a_reply_or_a_known_error(noise: bytes, splits: tuple[int, ...]) -> None:
    """No other exception is raised, and reading always ends."""
    for data in (noise, HEAD + noise, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + noise):
        try:
            read_reply(data, splits)
        except REFUSALS:
            continue


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"Content-Length: 2, 3\r\n\r\n",
        b"Content-Length: +2\r\n\r\n",
        b"Content-Length: 2_0\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length : 2\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"X: a\rContent-Length: 2\r\n\r\nab",
        b"Transfer-Encoding: chunked\r\n\r\n1_0\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        b"no colon\r\n\r\n",
        b"X: y\r\n" * 101 + b"\r\n",
        b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 20_000,
    ],
    ids=range(16),
)
def test_reply_with_an_ambiguous_end_is_refused(head: bytes) -> None:
    """Two readers could split it differently and interpret the remainder as another reply."""
    with pytest.raises(http.client.HTTPException):
        read_reply(HEAD + head)


def test_length_beside_chunks_is_ignored_and_closes_the_connection() -> None:
    """By RFC 9112, 6.3 the chunks win, and such a reply may be a smuggling attempt."""
    read = read_reply(HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
    assert (read.body, read.keeps) == (b"a", False)


def test_many_small_chunks_take_linear_time() -> None:
    """A flood of chunks in large segments is read in bounded time."""
    data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n"
    began = time.process_time()
    assert len(read_reply(data, tuple(range(0, len(data), 65536))).body) == 200_000
    assert time.process_time() - began < 5.0

"""One endpoint over raw sockets: no server can hold a request beyond its deadline or corrupt it."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from raw_server import Line, RawServer, answering, answering_together, chunked, refusing_url, reply
from timing import assert_less, until

from pipeline.errors import ConfigError
from pipeline.llm.transport.http import Access, CallFailedError, Endpoint

HEAD = b"HTTP/1.1 200 OK\r\n"
TLS = Path(__file__).parents[1] / "data/tls"
LONG_S = 60.0
"""Longer than a deadline of less than a second takes on a slow machine; these servers would continue for ever."""
PROXY_VARIABLES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, *map(str.upper, PROXY_VARIABLES), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def failure(server: RawServer, *, timeout_s: float = 60.0, max_bytes: int = 10_000) -> CallFailedError:
    """Return the error of a POST to this server."""
    with server, pytest.raises(CallFailedError) as caught:
        Endpoint(server.url).post("/x", b"{}", timeout_s=timeout_s, max_bytes=max_bytes)
    return caught.value


def after_reading(step: Callable[[Line], object]) -> RawServer:
    """Return a server that reads a request and then performs an action on each connection."""
    return RawServer(lambda line: (line.read(), step(line)))


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", HEAD + b"Content-Length: 100000\r\n\r\n", HEAD + b"\r\n"],
    ids=["status line", "header", "body", "body without a length"],
)
def test_slow_bytes_do_not_extend_the_deadline(head: bytes) -> None:
    """A server that sends byte by byte is a timeout at the total deadline."""
    began = time.monotonic()
    failed = failure(after_reading(lambda line: line.drip(head)), timeout_s=0.4)
    assert (failed.error, failed.reason) == ("timeout", "timeout")
    assert 0.3 < time.monotonic() - began < LONG_S


def test_silent_server_is_a_timeout() -> None:
    """The wait ends at the deadline."""
    began = time.monotonic()
    assert failure(after_reading(lambda line: line.ended.wait()), timeout_s=0.2).reason == "timeout"
    assert time.monotonic() - began < LONG_S


def test_server_that_does_not_read_is_a_timeout() -> None:
    """Sending the body ends at the deadline too."""
    began = time.monotonic()
    with RawServer(lambda line: line.ended.wait()) as server, pytest.raises(CallFailedError) as caught:
        Endpoint(server.url).post("/x", b"x" * 50_000_000, timeout_s=0.4)
    assert caught.value.reason == "timeout"
    assert time.monotonic() - began < LONG_S


@pytest.mark.parametrize("answer", [reply(b"x" * 10_001), chunked(b"x" * 10_001, 999)], ids=["length", "chunks"])
def test_reply_over_the_size_limit_is_refused(answer: bytes) -> None:
    """One byte over the limit is `response_too_large`."""
    assert failure(answering(answer)).reason == "response_too_large"


def test_reply_at_the_size_limit_is_accepted() -> None:
    """The same holds for a chunked reply."""
    with answering(chunked(b"x" * 10_000, 999)) as server:
        assert Endpoint(server.url).post("/x", b"", timeout_s=60, max_bytes=10_000).body == b"x" * 10_000


def test_compressed_reply_is_unpacked_up_to_the_limit() -> None:
    """Some gateways compress unasked; a reply that is too large when unpacked is `response_too_large`."""
    with answering(reply(gzip.compress(b"packed"), Content_Encoding="gzip")) as server:
        assert Endpoint(server.url).post("/x", b"{}", timeout_s=60).body == b"packed"
        assert server.got[0].headers["accept-encoding"] == "identity"
    bomb = gzip.compress(b"x" * 10_000_000)
    assert len(bomb) < 10_000
    assert failure(answering(reply(bomb, Content_Encoding="gzip"))).reason == "response_too_large"
    assert failure(answering(reply(b"no gzip", Content_Encoding="gzip"))).reason == "bad_response"


@pytest.mark.parametrize(
    ("step", "reason", "lost"),
    [
        (lambda line: (line.send(HEAD + b"Content-Length: 100\r\n\r\nhalf"), line.close()), "connection_error", True),
        (lambda line: (line.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nha"), line.close()), None, True),
        (lambda line: line.reset(), "connection_error", True),
        (lambda line: line.close(), "connection_error", True),
        (lambda line: (line.send(b"\x00\xff garbage\r\n\r\n"), line.close()), "bad_response", False),
        (lambda line: (line.send(HEAD + b"X: y\r\n" * 200 + b"\r\n"), line.close()), "bad_response", False),
    ],
    ids=["half a body", "half a chunk", "reset", "close", "garbage", "too many headers"],
)
def test_broken_exchange_is_classified(step: Callable[[Line], object], reason: str | None, lost: bool) -> None:
    """A connection lost during the request is a lost server; bytes that are not HTTP are a bad response."""
    failed = failure(after_reading(step))
    assert (failed.reason, failed.lost, failed.sent) == (reason or "connection_error", lost, True)


def test_refused_connection_is_reported_as_not_sent() -> None:
    """No work can have begun, and the message is the same each time."""
    url = refusing_url()
    errors = set()
    for _ in range(2):
        with pytest.raises(CallFailedError) as caught:
            Endpoint(url).get("/x", timeout_s=60)
        assert (caught.value.reason, caught.value.sent, caught.value.lost) == ("connection_error", False, False)
        errors.add(caught.value.error)
    assert len(errors) == 1
    assert "refused" in errors.pop()


def closing_on_reuse(server_hold_s: float = 0.0, *, also_fresh: bool = False) -> RawServer:
    """Return a server that answers the first request of a connection and breaks off at the second."""

    def talk(line: Line) -> None:
        if line.n > 1 and also_fresh:
            line.read()
            return line.close()
        line.read()
        line.send(reply(b"first" if line.n == 1 else b"again"))
        line.read()
        line.ended.wait(server_hold_s)
        return line.reset()

    return RawServer(talk)


def test_full_accept_queue_is_reported_as_not_sent() -> None:
    """It is no timeout of the work, so no document is to blame."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(4):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        with pytest.raises(CallFailedError) as caught:
            Endpoint(f"http://127.0.0.1:{full.getsockname()[1]}").get("/x", timeout_s=0.5)
    assert (caught.value.reason, caught.value.sent, caught.value.lost) == ("connection_error", False, False)


def test_request_on_a_stale_connection_is_resent_at_once() -> None:
    """A kept connection that breaks on reuse is no failure: the request goes out once on a new one."""
    with closing_on_reuse() as server:
        endpoint = Endpoint(server.url)
        assert endpoint.get("/x", timeout_s=60).body == b"first"
        assert endpoint.get("/x", timeout_s=60).body == b"again"
        assert server.accepts == 2


def test_request_is_resent_only_once() -> None:
    """If the new connection breaks as well, the server has failed."""
    with closing_on_reuse(also_fresh=True) as server:
        endpoint = Endpoint(server.url)
        endpoint.get("/x", timeout_s=60)
        with pytest.raises(CallFailedError) as caught:
            endpoint.get("/x", timeout_s=60)
        assert (caught.value.reason, caught.value.lost, server.accepts) == ("connection_error", True, 2)


def test_resend_has_only_the_remaining_time() -> None:
    """A slow stale connection and a hanging new one together take one timeout."""

    def talk(line: Line) -> None:
        line.read()
        if line.n == 1:
            line.send(reply(b"ok"))
            line.read()
            line.ended.wait(0.8)
        else:
            line.ended.wait()
        line.reset()

    def spent_s() -> float:
        with RawServer(talk) as server:
            endpoint = Endpoint(server.url)
            endpoint.get("/x", timeout_s=60)
            began = time.monotonic()
            with pytest.raises(CallFailedError) as caught:
                endpoint.get("/x", timeout_s=1.5)
            ended = time.monotonic()
        if server.accepts != 2:  # on a busy machine it broke too late for a stale one
            return math.inf
        assert caught.value.reason == "timeout"
        return ended - began

    assert_less(2.2, spent_s)


def test_late_break_of_a_reused_connection_is_not_resent() -> None:
    """A stale connection breaks at once; a later break means that the server was lost during the work."""
    with closing_on_reuse(server_hold_s=1.2) as server:
        endpoint = Endpoint(server.url)
        endpoint.get("/x", timeout_s=60)
        with pytest.raises(CallFailedError) as caught:
            endpoint.get("/x", timeout_s=60)
        assert (caught.value.lost, server.accepts) == (True, 1)


def test_redirect_is_not_followed() -> None:
    """A 302 is the final reply, so no other server gets the request or the key."""
    with answering(reply(b"stolen")) as other, answering(reply(b"", 302, Location=other.url + "/x")) as server:
        answer = Endpoint(server.url, Access(read_key=lambda: "the-key")).get("/x", timeout_s=60)
        assert answer.status == 302
        assert server.got[0].headers["authorization"] == "Bearer the-key"
        assert other.accepts == 0


def test_reload_key_reads_the_key_file_again() -> None:
    """It returns whether the key has changed, and the next request uses it."""
    keys = iter(["old", "new", "new"])
    with answering(reply(b"", 401)) as server:
        endpoint = Endpoint(server.url, Access(read_key=lambda: next(keys)))
        endpoint.get("/x", timeout_s=60)
        assert endpoint.reload_key() is True
        assert endpoint.reload_key() is False
        endpoint.get("/x", timeout_s=60)
        assert [request.headers["authorization"] for request in server.got] == ["Bearer old", "Bearer new"]


def test_secrets_are_in_no_repr_and_no_error() -> None:
    """Neither the key nor a header's value is ever shown."""
    access = Access(read_key=lambda: "sk-secret", headers={"X-Token": "tok-secret"})
    endpoint = Endpoint(refusing_url().replace("http://", "http://user:pw-secret@"), access)
    with pytest.raises(CallFailedError) as caught:
        endpoint.get("/x", timeout_s=60)
    for text in (repr(access), repr(endpoint), str(caught.value), repr(caught.value)):
        assert "secret" not in text


@pytest.mark.parametrize("status", [400, 401, 500])
def test_secret_repeated_in_an_error_is_masked(status: int) -> None:
    """LiteLLM and others repeat the key they received, which would reach records, logs and the report."""
    body = {"error": {"message": "got Bearer sk-secret-1 and tok-secret, team blue-team, model sk"}}
    access = Access(read_key=lambda: "sk-secret-1", headers={"X-Token": "Basic tok-secret", "X-Team": "blue-team"})
    with answering(reply(body, status)) as server:
        for answer in (
            Endpoint(server.url, access).get("/x", timeout_s=60),
            Endpoint(server.url, access).post("/x", b"{}", timeout_s=60),
        ):
            message = json.loads(answer.body)["error"]["message"]
            assert message == "got Bearer *** and ***, team blue-team, model sk"


def test_replaced_key_repeated_in_an_error_is_masked() -> None:
    """The key sent with this request counts, because the old key may be valid elsewhere."""
    keys = iter(["sk-secret-1", "sk-secret-2"])
    endpoint: Endpoint

    def refuse(line: Line) -> None:
        request = line.read()
        assert request is not None
        endpoint.reload_key()
        line.send(reply(request.headers["authorization"], 401))

    with RawServer(refuse) as server:
        endpoint = Endpoint(server.url, Access(read_key=lambda: next(keys)))
        assert endpoint.get("/x", timeout_s=60).body == b"Bearer ***"


def test_answers_and_dummy_keys_are_not_masked() -> None:
    """`EMPTY` is a common key for a vLLM without authentication, and must not alter messages."""
    with answering(reply(b"an EMPTY sk-secret-1"), reply(b"an EMPTY sk-secret-1", 400)) as server:
        endpoint = Endpoint(server.url, Access(read_key=lambda: "sk-secret-1"))
        assert endpoint.get("/x", timeout_s=60).body == b"an EMPTY sk-secret-1"
        endpoint = Endpoint(server.url, Access(read_key=lambda: "EMPTY"))
        assert endpoint.get("/x", timeout_s=60).body == b"an EMPTY sk-secret-1"


def test_configured_headers_are_sent() -> None:
    """They override the client's own headers."""
    with answering(reply(b"")) as server:
        Endpoint(server.url, Access(headers={"X-Team": "blue", "User-Agent": "mine"})).post("/x", b"{}", timeout_s=60)
    headers = server.got[0].headers
    assert (headers["x-team"], headers["user-agent"], headers["content-type"]) == ("blue", "mine", "application/json")


def test_configured_length_and_host_are_sent_once() -> None:
    """The length is always that of the body; two lengths could hide another request."""
    with answering(reply(b"")) as server:
        access = Access(headers={"content-length": "7", "host": "models.example", "accept": "text/x"})
        Endpoint(server.url, access).post("/x", b"{}", timeout_s=60)
        Endpoint(server.url, access).get("/x", timeout_s=60)
    posted, request = server.got
    assert (posted.body, posted.headers["content-length"]) == (b"{}", "2")
    assert (posted.headers["host"], posted.headers["accept"]) == ("models.example", "text/x")
    assert "content-length" not in request.headers


def test_no_netrc_login_and_no_cookies_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is like the first, whatever ~/.netrc has or a gateway sets."""
    (tmp_path / "netrc").write_text("default login robot password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with answering(reply(b"", Set_Cookie="who=me; Path=/")) as server:
        endpoint = Endpoint(server.url)
        for _ in range(2):
            endpoint.post("/x", b"{}", timeout_s=60)
    names = {"host", "user-agent", "accept", "accept-encoding", "content-type", "content-length", "connection"}
    names |= {"x-request-id"}
    assert [set(request.headers) - names for request in server.got] == [set(), set()]


def test_proxy_environment_is_read_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later changes of the environment have no effect."""
    with answering(reply(b"by proxy")) as proxy, answering(reply(b"direct")) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        early = Endpoint("http://models.example:8000")
        monkeypatch.delenv("HTTP_PROXY")
        late = Endpoint(server.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert early.get("/x", timeout_s=60).body == b"by proxy"
        assert proxy.got[0].path == "http://models.example:8000/x"
        assert late.get("/x", timeout_s=60).body == b"direct"


def test_refusing_proxy_is_no_lost_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server received no request, so no document is to blame."""
    with answering(reply(b"", 502)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(CallFailedError) as caught:
            Endpoint("https://models.example").post("/x", b"{}", timeout_s=60)
        assert [request.method for request in proxy.got] == ["CONNECT"]
    assert (caught.value.reason, caught.value.sent, caught.value.lost) == ("connection_error", False, False)
    assert "502" in caught.value.error


def secure_server(*, asks_who: bool = False) -> RawServer:
    """Yield a server with a certificate that only tests/data/tls vouches for; it may ask for a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    if asks_who:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(TLS / "cert.pem")
    return RawServer(lambda line: (line.read(), line.send(reply(b"safe"))), tls=context)


def test_unknown_certificate_is_refused() -> None:
    """Without its authority the server gets no request."""
    with secure_server() as server, pytest.raises(CallFailedError) as caught:
        Endpoint(server.url).get("/x", timeout_s=60)
    assert (caught.value.reason, caught.value.sent) == ("connection_error", False)
    assert "certificate" in caught.value.error.lower()


def test_ca_file_is_trusted() -> None:
    """A server with a certificate of `ca_file` is accepted."""
    with secure_server() as server:
        access = Access(ca_file=str(TLS / "cert.pem"))
        assert Endpoint(server.url, access).get("/x", timeout_s=60).body == b"safe"


@pytest.mark.parametrize("apart", [True, False])
def test_client_certificate_is_presented(tmp_path: Path, apart: bool) -> None:
    """Certificate and key may be two files or one; without them the server refuses."""
    both = tmp_path / "both.pem"
    both.write_bytes((TLS / "cert.pem").read_bytes() + (TLS / "key.pem").read_bytes())
    cert, key = (TLS / "cert.pem", str(TLS / "key.pem")) if apart else (both, None)
    with secure_server(asks_who=True) as server:
        access = Access(ca_file=str(TLS / "cert.pem"), client_cert=str(cert), client_key=key)
        assert Endpoint(server.url, access).get("/x", timeout_s=60).body == b"safe"
        with pytest.raises(CallFailedError) as caught:
            Endpoint(server.url, Access(ca_file=str(TLS / "cert.pem"))).get("/x", timeout_s=60)
    assert caught.value.reason == "connection_error"


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
@pytest.mark.parametrize("name", ["ca_file", "client_cert", "client_key"])
def test_invalid_certificate_file_is_a_configuration_error(tmp_path: Path, name: str, content: bytes | None) -> None:
    """Otherwise it would look like an unreachable server, and the run would wait."""
    files = {"client_cert": str(TLS / "cert.pem")} if name == "client_key" else {}
    if content is not None:
        (tmp_path / "x.pem").write_bytes(content)
    with pytest.raises(ConfigError, match="client_" if name == "client_key" else name) as caught:
        Endpoint("http://127.0.0.1:9", Access(**files, **{name: str(tmp_path / "x.pem")}))
    assert "x.pem" in str(caught.value)


def test_folder_of_certificates_is_trusted(tmp_path: Path) -> None:
    """`ca_file` may name a folder in OpenSSL's layout."""
    assert Endpoint("https://127.0.0.1:9", Access(ca_file=str(tmp_path)))


def test_ca_bundle_environment_is_read_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    """REQUESTS_CA_BUNDLE counts as it was when the endpoint was built."""
    with secure_server() as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS / "cert.pem"))
        endpoint = Endpoint(server.url)
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        assert endpoint.get("/x", timeout_s=60).body == b"safe"


@pytest.mark.parametrize(("age_s", "accepts"), [(0.0, 3), (60.0, 1)])
def test_connection_is_reused_until_its_maximum_age(age_s: float, accepts: int) -> None:
    """The limit is `max_connection_age_s`."""
    with answering(reply(b"ok")) as server:
        endpoint = Endpoint(server.url, Access(max_connection_age_s=age_s))
        for _ in range(3):
            assert endpoint.get("/x", timeout_s=60).body == b"ok"
        assert server.accepts == accepts


def test_close_closes_idle_connections_at_once() -> None:
    """A request after it opens a new connection."""
    with answering(reply(b"ok")) as server:
        endpoint = Endpoint(server.url)
        endpoint.get("/x", timeout_s=60)
        endpoint.close()
        until(lambda: server.closes == 1)
        assert endpoint.get("/x", timeout_s=60).body == b"ok"
        assert server.accepts == 2
        endpoint.close()
        endpoint.close()


def test_pool_has_a_connection_for_each_request_in_flight() -> None:
    """The same connections serve the next requests."""
    many = 8
    with answering_together(many) as server, ThreadPoolExecutor(many) as threads:
        endpoint = Endpoint(server.url, Access(pool_size=many))
        for _ in range(3):
            assert all(
                answer.status == 200 for answer in threads.map(lambda _: endpoint.get("/x", timeout_s=60), "x" * 8)
            )
        assert server.accepts == many
        endpoint.close()


def test_bodies_of_concurrent_requests_do_not_mix() -> None:
    """Each request has its own body, from any thread."""
    with answering(reply(b"ok")) as server, ThreadPoolExecutor(8) as threads:
        endpoint = Endpoint(server.url)
        sent = [b"%d" % number * (number % 7 + 1) for number in range(60)]
        list(threads.map(lambda body: endpoint.post("/x", body, timeout_s=60), sent))
        assert sorted(request.body for request in server.got) == sorted(sent)

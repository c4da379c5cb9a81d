"""A host name with several addresses is one replica per address, each requested under the name."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from provider_setup import Clock, question
from raw_server import RawServer, answering, reply
from timing import until

from pipeline.config import AppConfig, ResolvedAgentConfig, VLLMConfig
from pipeline.llm.capabilities import Preflight
from pipeline.llm.factory import build_failover
from pipeline.llm.provider import LOOK_UP_EVERY_S, Provider
from pipeline.llm.replica import Tools, at_once
from pipeline.llm.transport.addresses import addresses_of, at_address
from pipeline.llm.transport.http import Access, Endpoint

TLS = Path(__file__).parents[1] / "data/tls"
ANSWER = reply({"choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}]})


def can_bind(host: str) -> bool:
    """Return whether the loopback interface has this address (on macOS it has not)."""
    try:
        socket.create_server((host, 0)).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not can_bind("127.0.0.2"), reason="there is one loopback address only")


@contextmanager
def pods(*hosts: str) -> Iterator[list[RawServer]]:
    """Yield a server on each of these addresses, all on one port."""
    with ExitStack() as stack:
        first = stack.enter_context(answering(ANSWER, host=hosts[0]))
        yield [first, *(stack.enter_context(answering(ANSWER, host=host, port=first.port)) for host in hosts[1:])]


class Service:
    """A host name and its current addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.clock = Clock()

    def look_up(self, _: str) -> list[str]:
        """Return the addresses."""
        return self.addresses

    def provider(self, port: int, *, resolve: bool = True, key_file: Path | None = None) -> Provider:
        """Returns the provider of this name."""
        url, key = f"http://models.test:{port}/v1", str(key_file) if key_file else None
        config = VLLMConfig(base_url=url, model="m", resolve_replicas=resolve, timeout=60.0, api_key_file=key)
        tools = Tools(self.clock, random.Random(3), lambda _: None, lambda _client, **_: Preflight("ok"), self.look_up)
        agent = ResolvedAgentConfig("a", "default", "vllm")
        return build_failover(AppConfig(vllm=config), {"default": agent}, tools=tools, pool_size=4).first_provider


def test_each_address_of_a_name_is_a_replica() -> None:
    """Requests are spread over them with the name in Host, and records show which one answered."""
    with pods("127.0.0.1", "127.0.0.2") as servers:
        port = servers[0].port
        provider = Service("127.0.0.1", "127.0.0.2").provider(port)
        endpoints = {provider.ask(question(f"d{n}")).attempts[-1].model.endpoint for n in range(20)}
        assert endpoints == {f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"}
        for server in servers:
            assert {request.headers["host"] for request in server.got} == {f"models.test:{port}"}


def test_name_is_one_replica_without_the_setting() -> None:
    """The name is not looked up."""
    provider = Service("127.0.0.1", "127.0.0.2").provider(8000, resolve=False)
    assert [replica.client.model.endpoint for replica in provider.replicas] == ["http://models.test:8000"]


def test_new_and_removed_replicas_are_noticed_within_a_minute() -> None:
    """A new one is used after its preflight; a removed one gets no request, and its connections are closed."""
    with pods("127.0.0.1", "127.0.0.2") as servers:
        service = Service("127.0.0.1")
        provider = service.provider(servers[0].port)
        (remaining,) = provider.replicas
        assert provider.ask(question("first")).attempts[-1].ok
        service.addresses = ["127.0.0.1", "127.0.0.2"]
        provider.recover(at_once)
        assert provider.replicas == [remaining]
        service.clock.now += LOOK_UP_EVERY_S
        provider.recover(at_once)
        assert provider.replicas[0] is remaining
        assert [replica.state for replica in provider.replicas] == ["up", "up"]
        service.addresses = ["127.0.0.2"]
        service.clock.now += LOOK_UP_EVERY_S
        provider.recover(at_once)
        until(lambda: servers[0].closes == servers[0].accepts == 1)
        before = servers[0].accepts
        for n in range(5):
            assert provider.ask(question(f"d{n}")).attempts[-1].ok
        assert servers[0].accepts == before
        assert len(servers[1].got) == 5


def test_failed_look_up_keeps_the_known_replicas() -> None:
    """A name server that is unavailable for a minute removes no replica."""
    service = Service("127.0.0.1", "127.0.0.2")
    provider = service.provider(8000)
    replicas = list(provider.replicas)
    service.addresses = []
    service.clock.now += LOOK_UP_EVERY_S
    provider.recover(at_once)
    assert provider.replicas == replicas


def test_missing_key_file_does_not_stop_the_look_up(tmp_path: Path) -> None:
    """The file is missing for a moment: known replicas stay in use, and the next look-up finds the new one."""
    key = tmp_path / "key"
    key.write_text("secret")
    service = Service("127.0.0.1")
    provider = service.provider(8000, key_file=key)
    replicas = list(provider.replicas)
    service.addresses = ["127.0.0.1", "127.0.0.2"]
    key.unlink()
    service.clock.now += LOOK_UP_EVERY_S
    provider.recover(at_once)
    assert provider.replicas == replicas
    key.write_text("secret")
    service.clock.now += LOOK_UP_EVERY_S
    provider.recover(at_once)
    assert len(provider.replicas) == 2


def test_unresolvable_name_is_one_replica() -> None:
    """The run can start, and finds the addresses later."""
    service = Service()
    provider = service.provider(8000)
    assert [replica.client.model.endpoint for replica in provider.replicas] == ["http://models.test:8000"]
    service.addresses = ["127.0.0.3", "127.0.0.4"]
    service.clock.now += LOOK_UP_EVERY_S
    provider.recover(at_once)
    assert len(provider.replicas) == 2


def test_tls_checks_the_name() -> None:
    """The certificate has the name but not the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    talk = lambda line: (line.read(), line.send(reply(b"safe")))  # noqa: E731
    with RawServer(talk, tls=context, host="127.0.0.2") as server:
        access = Access(ca_file=str(TLS / "cert.pem"), address="127.0.0.2")
        assert Endpoint(f"https://localhost:{server.port}", access).get("/x", timeout_s=60).body == b"safe"


def test_proxy_gets_the_name_not_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy looks up the name itself."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with answering(reply(b"by proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        endpoint = Endpoint("http://models.test:8000", Access(address="127.0.0.2"))
        assert endpoint.get("/x", timeout_s=60).body == b"by proxy"


def test_addresses_are_resolved_and_formatted() -> None:
    """Numeric hosts stay as they are, unknown names give none, IPv6 is bracketed, and a user is not shown."""
    assert addresses_of("http://127.0.0.1:8000/v1") == ["127.0.0.1"]
    assert addresses_of("http://no-such-name.invalid:8000") == []
    assert at_address("http://user:pw@models.test:8000/x", "10.0.0.1") == "http://10.0.0.1:8000/x"
    assert at_address("https://models.test", "fd00::1") == "https://[fd00::1]"

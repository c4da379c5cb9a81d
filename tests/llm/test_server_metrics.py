"""The queue gauges that a server reports; a missing metrics page is harmless."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import responses
from fake_llm import FakeLLM
from hypothesis import given
from hypothesis import strategies as st
from provider_setup import failover_of
from raw_server import RawServer, reply

from pipeline.config import VLLMConfig
from pipeline.llm.server_metrics import GaugeReader, Gauges, parse
from pipeline.llm.vllm import VLLMClient

URL = "http://vllm.test/metrics"
TLS = Path(__file__).parents[1] / "data/tls"
PAGE = """# HELP vllm:num_requests_waiting Number of requests waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="1",model_name="m"} 5.0
vllm:num_requests_waiting_by_reason{reason="capacity"} 99.0
vllm:num_preemptions_total{engine="0",model_name="m"} %s
"""


def reader(**settings: str) -> GaugeReader:
    """Return a reader of a server that `responses` stands in for."""
    result = VLLMClient(VLLMConfig(base_url="http://vllm.test", model="m", **settings)).gauge_reader()  # type: ignore[arg-type]
    assert result is not None
    return result


def test_running_and_waiting_are_summed_over_engines() -> None:
    """Preemptions are reported if their counter has grown since the last reading."""
    read = reader()
    with responses.RequestsMock() as wire:
        for count in ("1.0", "1.0", "4.0"):
            wire.get(URL, body=PAGE % count)
        assert [read.read() for _ in range(3)] == [Gauges(3, 7), Gauges(3, 7), Gauges(3, 7, preempted=True)]


@pytest.mark.parametrize(("status", "body"), [(404, "no"), (401, "no"), (200, "python_info 1.0")])
def test_foreign_metrics_page_is_requested_once(status: int, body: str) -> None:
    """A gateway may not forward the metrics of its server."""
    read = reader()
    with responses.RequestsMock() as wire:
        wire.get(URL, status=status, body=body)
        assert (read.read(), read.read(), len(wire.calls)) == (None, None, 1)


def test_failed_metrics_request_is_repeated() -> None:
    """The server may recover."""
    read = reader()
    with responses.RequestsMock() as wire:
        wire.get(URL, status=503)
        wire.get(URL, body=ConnectionError("gone"))
        wire.get(URL, body=PAGE % "0")
        assert [read.read() for _ in range(3)] == [None, None, Gauges(3, 7)]


def test_separate_metrics_url_gets_no_key() -> None:
    """`metrics_url` may belong to another program."""
    read = reader(metrics_url="http://prometheus.test/m", api_key="sk-secret")
    with responses.RequestsMock() as wire:
        wire.get("http://prometheus.test/m", body=PAGE % "0")
        assert read.read() == Gauges(3, 7)
        assert "Authorization" not in wire.calls[0].request.headers


def test_separate_metrics_url_uses_the_ca_file() -> None:
    """A private `ca_file` applies to both URLs of a site."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    with RawServer(lambda line: (line.read(), line.send(reply(PAGE % "0"))), tls=context) as server:
        url = f"https://localhost:{server.port}/metrics"
        assert reader(metrics_url=url, ca_file=str(TLS / "cert.pem")).read() == Gauges(3, 7)
        assert reader(metrics_url=url).read() is None


def test_other_openai_servers_have_no_gauges() -> None:
    """Only vLLM is known to use these names."""
    config = VLLMConfig(type="openai", base_url="http://vllm.test", model="m")
    assert VLLMClient(config).gauge_reader() is None


@given(text=st.text() | st.text().map(lambda text: f"vllm:num_requests_waiting{text}"))
def test_any_metrics_page_is_read_without_error(text: str) -> None:
    """This holds for any content."""
    assert all(isinstance(value, float) for value in parse(text).values())


def test_serving_replicas_are_those_of_the_available_provider(server: FakeLLM) -> None:
    """They belong to the first available provider; Ollama reports no gauges."""
    failover = failover_of((server.url,), second=server.url)
    vllm, ollama = (provider.replicas[0] for provider in failover.providers)
    assert failover.serving == [vllm]
    assert vllm.gauges() == Gauges(0.0, 0.0)
    vllm.state = "unavailable"
    assert failover.serving == [ollama]
    assert ollama.gauges() is None
    ollama.state = "unavailable"
    assert failover.serving == []


def test_replica_with_a_larger_share_gets_more_requests(server: FakeLLM) -> None:
    """Requests in flight follow the shares determined for the servers."""
    provider = failover_of((server.url, server.url + "/other")).first_provider
    small, large = provider.replicas
    small.share, large.share = 1, 4
    replicas = [provider.take() for _ in range(10)]  # replicas that are never released
    assert (replicas.count(small), replicas.count(large)) == (2, 8)

"""Requests to this machine or within a cluster never use the environment's proxy; a used proxy is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_llm import FakeLLM
from raw_server import answering, refusing_url, reply

from pipeline.cli.main import main
from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.errors import ConfigError
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.transport.http import Access, CallFailedError, Endpoint
from pipeline.llm.transport.proxies import is_near
from pipeline.llm.vllm import VLLMClient

NAMES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]
NEAR = [
    *("localhost", "LOCALHOST.", "api.localhost", "127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1", "fe80::1%eth0"),
    *("vllm", "vllm.models.svc", "vllm.models.svc.cluster.local", "vllm-0.vllm.models.svc", "x.cluster.local"),
    *("10.96.0.10", "172.16.4.4", "192.168.1.9", "fd00::10"),
]
FAR = [
    "models.example",
    "svc.example",
    "cluster.local.example",
    "8.8.8.8",
    "2606:4700::1",
    "mysvc.example.com",
    "a.svcs",
]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *map(str.upper, NAMES)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("host", NEAR)
def test_local_host_is_requested_directly(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """These are loopback, a Service's name and private addresses."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    shown = f"[{host}]" if ":" in host else host
    assert is_near(host)
    assert [Endpoint(f"{scheme}://{shown}:8000").proxy for scheme in ("http", "https")] == [None, None]
    assert Endpoint(f"http://{shown}:8000", Access(proxy="env")).proxy == "http://proxy.example:3128"
    assert Endpoint(f"http://{shown}:8000", Access(proxy="http://other.example")).proxy == "http://other.example"


@pytest.mark.parametrize("host", FAR)
def test_remote_host_is_requested_through_the_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs behave the same way."""
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert not is_near(host)
    assert Endpoint(f"http://{f'[{host}]' if ':' in host else host}").proxy == "http://proxy.example:3128"


def test_key_for_a_local_server_is_not_sent_to_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """With http_proxy set, requests to loopback once went there in clear text."""
    with answering(reply(b"by proxy")) as proxy, answering(reply(b"direct")) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        for client in (
            VLLMClient(VLLMConfig(base_url=server.url, api_key="sk-secret-1")),
            OllamaClient(OllamaConfig(base_url=server.url, api_key="sk-secret-1")),
        ):
            assert client.endpoint.get("/x", timeout_s=60).body == b"direct"
        vllm = VLLMClient(VLLMConfig(base_url=server.url, proxy="env"))
        assert vllm.endpoint.get("/x", timeout_s=60).body == b"by proxy"
        chosen = OllamaClient(OllamaConfig(base_url=server.url, proxy=proxy.url))
        monkeypatch.delenv("http_proxy")
        assert chosen.endpoint.get("/x", timeout_s=60).body == b"by proxy"
        assert proxy.accepts == 2


def test_proxy_failure_names_the_proxy_without_its_password() -> None:
    """Otherwise it would look like an unreachable server."""
    proxy = refusing_url().replace("http://", "http://user:hunter2-secret@")
    with pytest.raises(CallFailedError) as caught:
        Endpoint("http://models.example", Access(proxy=proxy)).get("/x", timeout_s=60)
    assert caught.value.reason == "connection_error"
    assert "(through the proxy http://***@127.0.0.1:" in caught.value.error
    assert "hunter2" not in caught.value.error


@pytest.mark.parametrize("proxy", ["proxy.example:3128", "socks5://p", "", "off", "http://p:"])
def test_invalid_proxy_address_is_refused(proxy: str) -> None:
    """The message says which values are accepted."""
    with pytest.raises(ConfigError, match=r"proxy: got .*need an address .*, env, or null"):
        VLLMConfig(proxy=proxy)


@pytest.mark.parametrize("url", ["http://127.0.0.1:", "http://vllm:/v1", "https://[::1]:"])
def test_address_with_an_empty_port_is_refused(url: str) -> None:
    """A trailing colon is left by an empty variable."""
    with pytest.raises(ConfigError, match="base_url"):
        VLLMConfig(base_url=url)


def test_check_names_the_proxy_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does so even if the server is unreachable, without the password."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "inbox").mkdir(parents=True)
    proxy = refusing_url().replace("http://", "http://user:hunter2-secret@")
    with FakeLLM(("llama3.1:latest",)) as server:
        Path("pipeline.yaml").write_text(f"ollama: {{base_url: '{server.url}', proxy: '{proxy}'}}\n")
        assert main(["check", "--config", "pipeline.yaml"]) == 3
    shown = capsys.readouterr().out
    assert shown.count("through the proxy http://***@127.0.0.1:") >= 1
    assert "hunter2" not in shown

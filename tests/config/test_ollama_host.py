"""OLLAMA_HOST is the default of `ollama.base_url`, in each form that Ollama accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.loading import load_config
from pipeline.config.ollama_host import address_of


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("gpu-box", "http://gpu-box:11434"),
        ("10.0.0.7:8080", "http://10.0.0.7:8080"),
        (":11500", "http://127.0.0.1:11500"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:11500", "http://127.0.0.1:11500"),
        ("[::1]:11434", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::]", "http://127.0.0.1:11434"),
        ("http://gpu-box:11434/", "http://gpu-box:11434"),
        ("https://ollama.example/prefix/", "https://ollama.example/prefix"),
        (' "gpu-box" ', "http://gpu-box:11434"),
        ("", None),
        ("  ", None),
        ("unix:///tmp/x.sock", None),
        ("a b", None),
    ],
)
def test_each_form_of_ollama_host_is_an_address(host: str, url: str | None) -> None:
    """Scheme, port and path are optional; an invalid value is ignored, because the variable is not ours."""
    assert address_of(host) == url


def test_ollama_host_has_the_lowest_precedence(tmp_path: Path) -> None:
    """The file and OLLAMA_BASE_URL override it, and it does not make Ollama the fallback."""
    environ = {"OLLAMA_HOST": "gpu-box"}
    app = load_config(environ=environ)
    assert app.ollama.base_url == "http://gpu-box:11434"
    assert app.places["ollama.base_url"] == "environment variable OLLAMA_HOST"
    assert load_config(environ=environ, overrides={"provider": "vllm"}).fallback_names() == ()
    path = tmp_path / "c.yaml"
    path.write_text("ollama: {base_url: 'http://file:1'}", encoding="utf-8")
    assert load_config(path, environ=environ).ollama.base_url == "http://file:1"
    assert load_config(environ={**environ, "OLLAMA_BASE_URL": "http://env:1"}).ollama.base_url == "http://env:1"
    path.write_text("ollama: {model: m}", encoding="utf-8")
    assert load_config(path, environ=environ).ollama.base_url == "http://gpu-box:11434"

"""A server that repeats the key it received, in any form and any place: no output of a run contains it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Place, everything_below

KEY = "sk-a/very+secret key-0123456789"
COOKIE = "cookie-value-0123456789"
PASSWORD = "pass/word-0123456789"
LENIENT = ("--set", "runner.max_error_rate=1", "--set", "runner.fail_fast=0", "--set", "runner.max_outage_s=0",
           "--set", "runner.startup_wait_s=0", "--set", "runner.config_grace_s=0")  # fmt: skip

FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "json": lambda text: text.replace("/", "\\/"),
    "percent": lambda text: quote(text, safe=""),
    "base64": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
}


def _echo(form: str) -> str:
    """Return all secrets that a request carries, as an error message might repeat them."""
    return " ".join(FORMS[form](text) for text in (KEY, COOKIE, PASSWORD))


def _completion(content: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "llama3.1",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 9},
    }  # fmt: skip


ANSWER = json.dumps({"summary": "fine"})
PLACES: dict[str, Callable[[str], tuple[int, Any]]] = {
    "error in a 200": lambda echo: (200, {"error": {"message": f"bad key: {echo}"}}),
    "400": lambda echo: (400, {"error": {"message": f"bad: {echo}"}}),
    "long 400": lambda echo: (400, {"error": {"message": "x" * 470 + echo}}),
    "401": lambda echo: (401, {"error": {"message": f"bad: {echo}"}}),
    "500": lambda echo: (500, f"<html>{echo}</html>"),
    "answer": lambda echo: (200, _completion(json.dumps({"summary": echo}))),
    "no JSON": lambda echo: (200, _completion(f"I was sent {echo}")),
    "finish reason": lambda echo: (200, {**_completion(ANSWER), "choices": [
        {"finish_reason": echo, "message": {"content": ANSWER}}]}),
    "id and model": lambda echo: (200, {**_completion(ANSWER), "id": echo, "model": echo, "system_fingerprint": echo}),
}  # fmt: skip


@contextmanager
def echoing_server(place: str, form: str) -> Iterator[str]:
    """Yield the URL of a server that repeats its secrets in this place of each reply, version and models included."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            echo = _echo(form)
            if self.path.endswith("/version"):
                self._send(200, {"version": echo})
            elif self.path.endswith("/models"):
                models = [{"id": name, "object": "model", "owned_by": echo} for name in ("llama3.1", echo)]
                self._send(200, {"object": "list", "data": models})
            else:
                self._send(404, {"detail": echo})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_document = "A plain text" in json.dumps(body)
            status, reply = PLACES[place](_echo(form)) if is_document else (200, _completion(ANSWER))
            self._send(status, reply)

        def _send(self, status: int, value: Any) -> None:
            data = (value if isinstance(value, str) else json.dumps(value)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://user:{quote(PASSWORD, safe='')}@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def leaks(data: bytes) -> list[str]:
    """Return the forms of secrets found in the data."""
    text = data.decode("utf-8", "replace")
    forms = {(secret, name): form(secret) for secret in (KEY, COOKIE, PASSWORD) for name, form in FORMS.items()}
    cores = {key: value[6:-6] if key[1] == "base64" else value[:12] for key, value in forms.items()}
    return [f"{name} of {secret[:6]}…" for (secret, name), core in cores.items() if core in text]


@pytest.mark.parametrize(
    "form", [form if form == "raw" else pytest.param(form, marks=pytest.mark.slow) for form in sorted(FORMS)]
)
@pytest.mark.parametrize("where", sorted(PLACES))
def test_secrets_repeated_by_a_server_are_in_no_output(place: Place, where: str, form: str) -> None:
    """Terminal, files, debug log, metrics and both log formats are checked."""
    place.documents(2)
    metrics = place.folder.parent / "metrics.prom"
    with echoing_server(where, form) as url:
        place.configure({
            "vllm.base_url": url, "vllm.api_key": KEY, "vllm.headers": {"Cookie": f"id={COOKIE}"},
            "vllm.max_retries": 1,
        })  # fmt: skip
        config = (place.folder / "pipeline.yaml").read_bytes()
        assert leaks(config), "the test does not see the secrets where they are"
        ran = [
            place.call("check"),
            place.call("run", *LENIENT, "--log-level", "debug", "--metrics-textfile", str(metrics)),
            place.call("run", *LENIENT, "--log-level", "debug", "--log-format", "json", "--redo", "all"),
            place.call("errors", "out", "--json"),
            place.call("report", "out"),
        ]
    assert (place.folder / "out" / "report.json").exists()
    output = "\n".join(outcome.out + outcome.err for outcome in ran).encode()
    assert leaks(output) == [], output.decode()
    assert leaks(everything_below(place.folder / "out")) == []
    assert leaks(metrics.read_bytes() if metrics.exists() else b"") == []


def test_key_given_as_a_file_name_is_not_printed(place: Place) -> None:
    """`VLLM_API_KEY_FILE=sk-…`: the message says that it looks like a key, without printing it."""
    place.documents(1)
    ran = place.call("run", env={"VLLM_API_KEY_FILE": "sk-0123456789abcdef0123"})
    assert ran.code == 2
    assert "looks like the key itself" in ran.err
    assert "sk-0123" not in ran.out + ran.err

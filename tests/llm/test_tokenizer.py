"""Special tokens by the server's tokenizer: each text is sent once, within bounds, and never fails a document."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import VLLMConfig
from pipeline.documents.special_tokens import MOST_CANDIDATES, break_special_tokens, break_tokens, candidates
from pipeline.llm.preflight.tokenizer import MOST_TEXTS, SpecialTokens
from pipeline.llm.vllm import VLLMClient

NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_09", min_size=2, max_size=12).filter(
    lambda name: name[0].isalpha()
)
TOKENS = st.one_of(
    NAMES.map(lambda name: f"<{name}>"),
    NAMES.map(lambda name: f"</{name}>"),
    NAMES.map(lambda name: f"[{name}]"),
    NAMES.map(lambda name: f"<<{name}>>"),
).filter(lambda token: candidates(token) != ())
"""Names in brackets, but those of HTML elements: `<Ol>` is never asked about."""


class Tokenizer:
    """A fake tokenizer: special tokens are one id each, other text has an id for each character."""

    def __init__(self, special: Collection[str], dialect: str = "vllm") -> None:
        self.special, self.dialect = sorted(special, key=len, reverse=True), dialect
        self.asked: Counter[str] = Counter()

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Return the ids of a text."""
        collected: list[int] = []
        while text:
            token = next(
                (special_token for special_token in self.special if special and text.startswith(special_token)), None
            )
            collected.append(1000 + self.special.index(token) if token else ord(text[0]))
            text = text[len(token or text[0]) :]
        return collected

    def page(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the reply to /tokenize, of vLLM or of llama.cpp."""
        if path != "/tokenize" or self.dialect == "none":
            return 404, {"detail": "Not Found"}
        if self.dialect == "broken":
            return 500, {}
        text = body["prompt"] if self.dialect == "vllm" else body["content"]
        self.asked[text] += body.get("parse_special", True)
        ids = self.ids(text, special=self.dialect == "vllm" or body["parse_special"])
        if self.dialect == "vllm":
            assert body["add_special_tokens"] is False
            return 200, {"count": len(ids), "max_model_len": 4096, "tokens": ids, "token_strs": None}
        return 200, {"tokens": ids}


@contextmanager
def serving(tokenizer: Tokenizer) -> Iterator[VLLMClient]:
    """Yield a client of a server with this tokenizer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, value = tokenizer.page(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = VLLMClient(VLLMConfig(base_url=f"http://127.0.0.1:{server.server_port}", model="m"))
    try:
        yield client
    finally:
        client.close()
        server.shutdown()
        server.server_close()


@given(special=st.sets(TOKENS, max_size=6), others=st.sets(TOKENS, max_size=6), data=st.data())
@settings(max_examples=60, deadline=None)
def test_all_special_tokens_of_the_tokenizer_are_broken_up(special: set[str], others: set[str], data: Any) -> None:
    """Whatever they are named, the sent text has none of them, and each is checked once."""
    tokenizer, special_tokens = Tokenizer(special), SpecialTokens()

    def is_special(text: str) -> bool:
        tokenizer.asked[text] += 1
        return len(tokenizer.ids(text)) == 1

    pieces = [*special, *others, "words ", " ", "<", ">", "[", "a < b", "\n"]
    for _ in range(3):
        text = "".join(data.draw(st.lists(st.sampled_from(pieces), max_size=20)))
        text, _ = break_special_tokens(text)
        shown, _ = break_tokens(text, special_tokens.special_candidates(candidates(text), is_special))
        assert all(number < 1000 for number in tokenizer.ids(shown)), shown
        assert shown.replace(" ", "") == text.replace(" ", "")
    assert all(times == 1 for times in tokenizer.asked.values())


@pytest.mark.parametrize("dialect", ["vllm", "llamacpp"])
def test_special_tokens_are_recognised_in_both_dialects(dialect: str) -> None:
    """vLLM returns one id; llama.cpp differs with `parse_special`, because ordinary text may be one id too."""
    tokenizer = Tokenizer(["<end_turn>", "[Tool]"], dialect)
    with serving(tokenizer) as client:
        result = [client.is_special_token(text) for text in ("<end_turn>", "[Tool]", "<turn>", "x")]
        assert result == [True, True, False, dialect == "vllm"]
        assert client.overhead.counts.requests >= 4
        assert client.overhead.counts.prompt_tokens == 0


@pytest.mark.parametrize("dialect", ["none", "broken"])
def test_server_without_a_tokenizer_gets_at_most_two_requests(dialect: str) -> None:
    """If the page is missing or fails, known token shapes decide."""
    tokens = SpecialTokens()
    with serving(Tokenizer([], dialect)) as client:
        assert tokens.special_candidates([f"<a{n}>" for n in range(50)], client.is_special_token) == frozenset()
        assert client.overhead.counts.requests == 2


def test_tokenizer_requests_are_bounded() -> None:
    """There are limits on number and bytes, for a document and for a run."""
    text = " ".join(f"<tag_{n}>" for n in range(5_000)) + "<" + "x" * 1_000 + ">"
    assert len(candidates(text)) == MOST_CANDIDATES
    assert max(map(len, candidates(text))) <= 64
    requests: list[str] = []
    tokens = SpecialTokens()
    for n in range(1_000):
        tokens.special_candidates([f"<t{n}>"], lambda text: bool(requests.append(text)))
    assert len(requests) == MOST_TEXTS


def test_html_elements_are_not_sent_to_the_tokenizer() -> None:
    """No known model has special tokens of this form."""
    assert candidates("<b>bold</b> <br> <table> <P> <h1> a < b > c [1] [a]") == ()

"""Whatever is sent on kept connections, by any number of workers: each request gets its own answer."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import Got, Line, RawServer, reply

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.protocol import LLMClient
from pipeline.llm.vllm import VLLMClient

WORKERS, QUESTIONS = 5, 20
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n",
)


@dataclass(frozen=True, slots=True)
class Play:
    """The treatment of one request.

    `interim`: 1xx before the reply; `status`: sent ahead of the reply, which is then late; `copies` of the reply in one
    piece; `cuts`: shares of the first copy at which it is split; `mixed`: also the reply to an earlier request, of
    any connection, before or behind this one's (only an id can tell those apart).
    """

    interim: tuple[int, ...] = ()
    status: int = 200
    copies: int = 1
    cuts: tuple[float, ...] = ()
    mixed: str = ""


def plays(*, mixed: bool) -> st.SearchStrategy[list[Play]]:
    """Return scripts; requests after the end of a script are answered normally."""
    exchange = st.builds(
        Play,
        interim=st.lists(st.integers(0, 2), max_size=3).map(tuple),
        status=st.sampled_from([200, 200, 201, 429, 504]),
        copies=st.sampled_from([1, 1, 2, 3]),
        cuts=st.lists(st.floats(0, 1), max_size=3).map(tuple),
        mixed=st.sampled_from(["", "before", "instead", "behind", "apart"] if mixed else [""]),
    )
    return st.lists(exchange, max_size=15)


def pieces(data: bytes, cuts: tuple[float, ...]) -> list[bytes]:
    """Return the data, split at shares of its length."""
    places = sorted({int(cut * len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


class Stage:
    """The server's side: it performs one script over all connections, in order of arrival."""

    def __init__(self, script: list[Play], answer: Callable[[Got], bytes]) -> None:
        self._left, self._answer, self._lock = list(script), answer, threading.Lock()
        self._earlier: list[bytes] = []

    def talk(self, line: Line) -> None:
        """Answer one connection's requests."""
        while (request := line.read()) is not None:
            right = self._answer(request)
            with self._lock:
                play = self._left.pop(0) if self._left else Play()
                stale = self._earlier[-1] if self._earlier else right
                self._earlier.append(right)
            self._perform(play, line, right=right, stale=stale)

    @staticmethod
    def _perform(play: Play, line: Line, *, right: bytes, stale: bytes) -> None:
        for index in play.interim:
            line.send(INTERIM[index])
        if play.status != 200:
            line.send(reply({"error": "gave up"}, play.status))
        first, rest = right, right * (play.copies - 1)
        if play.mixed in ("before", "instead"):
            first, rest = stale, (right if play.mixed == "before" else b"") + rest
        rest += stale if play.mixed == "behind" else b""
        *parts, last = pieces(first, play.cuts)
        for part in parts:
            line.send(part)
        line.send(last + rest)
        if play.mixed == "apart":
            line.send(stale)


def question_of(request: Got) -> str:
    """Return the user's message."""
    return str(request.json["messages"][-1]["content"])


def as_vllm(request: Got) -> bytes:
    """Return vLLM's reply, with the request's id."""
    message = {"role": "assistant", "content": f"answer to {question_of(request)}"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return reply({"id": f"chatcmpl-{request.headers['x-request-id']}", "model": "m", "choices": choices})


def as_ollama(request: Got) -> bytes:
    """Return Ollama's reply, which has no id."""
    message = {"role": "assistant", "content": f"answer to {question_of(request)}"}
    counts = {"prompt_eval_count": 20, "eval_count": 5}
    return reply({"model": "m", "message": message, "done": True, "done_reason": "stop", **counts})


def ask_until_answered(client: LLMClient, question: str, *, tries: int) -> list[str | None]:
    """Return the accepted texts, the answer last; None for each failed request."""
    texts: list[str | None] = []
    while len(texts) < tries and (not texts or texts[-1] is None):
        attempt = client.call_llm({"user": question}, None, question)
        texts.append(attempt.raw_text if attempt.reason is None else None)
    return texts


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_each_request_gets_its_own_answer(dialect: str, data: st.DataObject) -> None:
    """Interim, late, doubled, early and split replies come in any order."""
    script = data.draw(plays(mixed=dialect == "vllm"))
    stage = Stage(script, as_vllm if dialect == "vllm" else as_ollama)
    with RawServer(stage.talk) as server, ThreadPoolExecutor(WORKERS) as threads:
        client: LLMClient
        if dialect == "vllm":
            client = VLLMClient(VLLMConfig(base_url=server.url, model="m", timeout=60))
        else:
            client = OllamaClient(OllamaConfig(base_url=server.url, model="m", timeout=60))
        questions = [f"question {number}" for number in range(QUESTIONS)]
        # One failure for each script, and at most one for the bytes that remain on each worker's connection.
        tries = len(script) + WORKERS + 1
        ends = list(threads.map(lambda question: ask_until_answered(client, question, tries=tries), questions))
        client.close()
    assert [end[-1] for end in ends] == [f"answer to {question}" for question in questions]

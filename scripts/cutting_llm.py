"""Stub server of the OpenAI protocol that truncates long prompts without an error, in the ways that real servers do.

    python scripts/cutting_llm.py --way tail --context 4096 --counts exact

`--way`: refuse (honest), head, tail, middle (keeps both ends), half (of the window, as Ollama's /v1), oldest (a chat
template that drops the oldest message, then the head of the last), oldest_refuse.
`--counts`: exact (the tokens read), gateway (LiteLLM counts the whole prompt before it is cut), none, zero, uncached.
The server speaks Ollama's native protocol as well; `refuse` is then an Ollama that obeys `truncate: false`.
It must not import the pipeline.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fake_llm.schema import answer_for

MODEL = "cutter"
WAYS = ("refuse", "head", "tail", "middle", "half", "oldest", "oldest_refuse")
COUNTS = ("exact", "gateway", "none", "zero", "uncached")
AROUND = 4
START = 3
_PIECES = re.compile(r" ?[A-Za-z]{1,6}|\d{1,3}|\s{1,16}|.", re.DOTALL)
_NAME = re.compile(r"\[\[doc:([^\]]+)\]\]")


class TooLongError(Exception):
    """The prompt is refused."""


class CuttingLLM:
    """The server as a context manager, with counters of its requests.

    `verification_requests`: requests for one token, or with a document more than once. `cut`: names of documents
    ([[doc:NAME]]) that were truncated. `answers`: requests for an answer; after `shrink_after` of them the context is
    `shrunk`. `fail`: a function of a request's body; True makes the reply a 500. `becomes_ollama_after`: the number of
    answers after which an Ollama replaces the server, until then a vLLM. `on_completion`: called before each
    completion with whether it is for one token.
    """

    def __init__(self, way: str, *, context: int = 4096, counts: str = "exact", ollama: bool = False) -> None:
        self.way = way
        self.context = context
        self.counts = counts
        self.ollama = ollama
        self.verification_requests = self.answers = 0
        self.cut: set[str] = set()
        self.shrink_after = 1 << 60
        self.shrunk = context
        self.becomes_ollama_after: int | None = None
        self.fail: Any = lambda _body: False
        self.on_completion: Any = lambda _is_for_one_token: None
        self._cached: set[str] = set()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"llm": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> CuttingLLM:
        """Listen in a thread of its own."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a chat."""
        texts = [str(message.get("content") or "") for message in body["messages"]]
        max_tokens = int(body.get("max_tokens") or 16)
        self.on_completion(max_tokens == 1)
        if self.becomes_ollama_after is not None and self.answers >= self.becomes_ollama_after:
            self.becomes_ollama_after = None
            self.ollama = True
            self.way = "half"
        names = _NAME.findall("\n".join(texts))
        is_verification = max_tokens == 1 or len(names) > 1
        with self._lock:
            self.verification_requests += is_verification
        read_tokens = self._read(texts, self.context - max_tokens)
        with self._lock:
            if names and not is_verification:
                self.answers += 1
                if self.answers > self.shrink_after and self.context != self.shrunk:
                    self.context = self.shrunk
                    read_tokens = self._read(texts, self.context - max_tokens)
                (self.cut.add if read_tokens < count(texts) else self.cut.discard)(names[0])
        shape = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
        content = "{" if max_tokens == 1 else answer_for(texts[-1], shape) if shape else "ok"
        finish = "length" if max_tokens == 1 else "stop"
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
        answer = {"id": "x", "object": "chat.completion", "model": MODEL, "choices": [choice]}
        if self.ollama:
            answer["system_fingerprint"] = "fp_ollama"
        tokens = self._reported(texts, read_tokens)
        return answer if tokens is None else {**answer, "usage": {"prompt_tokens": tokens, "completion_tokens": 9}}

    def _reported(self, texts: list[str], read_tokens: int) -> int | None:
        """Return the prompt tokens that the answer reports."""
        if self.counts == "gateway":
            return count(texts) + len(texts)
        if self.counts == "uncached":
            with self._lock:
                cached = json.dumps(texts) in self._cached
                self._cached.add(json.dumps(texts))
            return 1 if cached else read_tokens
        return {"none": None, "zero": 0}.get(self.counts, read_tokens)

    def _read(self, texts: list[str], room: int) -> int:
        """Return how many tokens of the prompt the model reads."""
        tokens = count(texts)
        if tokens <= room:
            return tokens
        if self.way == "refuse":
            raise TooLongError
        if self.way == "half":
            return self.context - (self.context - 4) // 2
        kept_texts = list(texts)
        while self.way.startswith("oldest") and len(kept_texts) > 1 and count(kept_texts) > room:
            del kept_texts[0]
        if self.way == "oldest_refuse" and count(kept_texts) > room:
            raise TooLongError
        return min(count(kept_texts), room)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    llm: CuttingLLM

    def do_GET(self) -> None:
        """List the model, and on an Ollama the version."""
        owner = "library" if self.llm.ollama else "me"
        row: dict[str, Any] = {"id": MODEL, "owned_by": owner}
        if self.llm.becomes_ollama_after is not None:
            row |= {"owned_by": "vllm", "max_model_len": self.llm.context}
        pages: dict[str, Any] = {"/v1/models": {"data": [row]}}
        if self.llm.ollama:
            loaded = {"name": MODEL, "model": MODEL, "context_length": self.llm.context}
            pages["/api/version"] = {"version": "0.33.0"}
            pages["/api/tags"] = pages["/api/ps"] = {"models": [loaded]}
        self._reply(200 if self.path in pages else 404, pages.get(self.path, {}))

    def do_POST(self) -> None:
        """Answer a chat."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.llm.ollama and self.path == "/api/show":
            self._reply(200, {"capabilities": ["completion"]})
        elif self.llm.ollama and self.path == "/api/chat":
            self._native(body)
        elif self.path != "/v1/chat/completions":
            self._reply(404, {})
        elif self.llm.fail(body):
            self._reply(500, {"error": {"message": "it broke"}})
        else:
            try:
                self._reply(200, self.llm.completion(body))
            except TooLongError:
                self._reply(400, {"error": {"message": f"maximum context length is {self.llm.context} tokens"}})

    def _native(self, body: dict[str, Any]) -> None:
        """Answer a chat of Ollama's own protocol; one without messages loads the model."""
        if not body.get("messages"):
            return self._reply(200, {"done": True, "done_reason": "load"})
        options = body.get("options") or {}
        shape = {"json_schema": {"schema": body.get("format")}}
        chat = {"messages": body["messages"], "max_tokens": options.get("num_predict"), "response_format": shape}
        try:
            answer = self.llm.completion(chat)
        except TooLongError:
            return self._reply(400, {"error": "the input length exceeds the context length"})
        choice = answer["choices"][0]
        usage = answer.get("usage", {})
        counts = {"prompt_eval_count": usage.get("prompt_tokens"), "eval_count": usage.get("completion_tokens")}
        message = {"message": choice["message"], "done": True, "done_reason": choice["finish_reason"]}
        return self._reply(200, {"model": MODEL, **message, **counts})

    def _reply(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.llm.counts == "gateway":
            self.send_header("x-litellm-version", "1.80.0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


def count(texts: list[str]) -> int:
    """Return the token count of a chat's messages."""
    return START + sum(AROUND + len(_PIECES.findall(text)) for text in texts)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, default="tail", help="the part of a long prompt that is kept")
    parser.add_argument("--counts", choices=COUNTS, default="exact", help="the prompt tokens that are reported")
    parser.add_argument("--context", type=int, default=4096, help="context length in tokens (default: 4096)")
    parser.add_argument("--ollama", action="store_true", help="look like an Ollama's /v1")
    flags = parser.parse_args()
    with CuttingLLM(flags.way, context=flags.context, counts=flags.counts, ollama=flags.ollama) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

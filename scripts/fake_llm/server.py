"""The fake server: the answer or fault of each request, its turn, and its latency.

It must not know the wire format of an answer: a dialect does.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TextIO

from fake_llm.chat import (
    Chat,
    Completion,
    Dialect,
    Refusal,
    Settings,
    Timing,
    decoded,
    document_of,
    nanoseconds,
)
from fake_llm.completions import completion_of
from fake_llm.faults import (
    DISPLACED,
    SLOW_S,
    STATUSES,
    TRANSPORT,
    Fault,
    displaced,
    faulty,
    marked_fault,
    status_reply,
)
from fake_llm.ollama import CHATS as OLLAMA_CHATS
from fake_llm.ollama import Ollama, tagged
from fake_llm.ollama_v1 import OllamaV1
from fake_llm.planted import reader
from fake_llm.received import Answer, Faults, ReceivedRequest, model_in
from fake_llm.slots import Slots
from fake_llm.transport import Listener, Peer, Reply, Request
from fake_llm.vllm import CHAT as VLLM_CHAT
from fake_llm.vllm import VLLM

CHATS = (*OLLAMA_CHATS, VLLM_CHAT)
KEPT_POLL_S = 0.05


class FakeLLM:
    """The server as a context manager; any thread may change its attributes while it runs."""

    def __init__(
        self,
        models: Iterable[str] = ("llama3.1:latest",),
        context: int = 8192,
        *,
        latency_s: float = 0.0,
        load_s: float = 0.0,
        slots: int = 0,
        api_key: str | None = None,
        faults: Faults | None = None,
        answer: Answer | None = None,
        planted: bool = False,
        port: int = 0,
        host: str = "127.0.0.1",
        thinking: bool = False,
        thinks_without_content: bool = False,
        truncates: bool = False,
        tokenizer: float = 1.0,
        enforce_schema: bool = True,
        dialects: Iterable[str] = ("ollama", "vllm"),
        restart_s: float = 1.0,
        idle_s: float = 0.0,
        keep_requests: bool = True,
        log: TextIO | None = None,
    ) -> None:
        settings = Settings(tuple(models), context, tokenizer, thinking, truncates, int(time.time()))
        self._ollama = Ollama(settings)
        vllm = VLLM(settings, lambda: self._slots.gauges)
        spoken: dict[str, Dialect] = {"ollama": self._ollama, "ollama_v1": OllamaV1(settings), "vllm": vllm}
        self._dialects: list[Dialect] = [spoken[name] for name in sorted(dialects)]
        self.latency_s = latency_s
        self.load_s = load_s
        self.restart_s = restart_s
        self.api_key = api_key
        self.faults = faults
        self.enforce_schema = enforce_schema
        self.answer = reader if planted else answer
        self.thinks_without_content = thinks_without_content
        self.draining = False
        self.requests: list[ReceivedRequest] = []
        self.max_in_flight = 0
        self.loads = 0
        self._keep_requests = keep_requests
        self._log = log
        self._slot_count = slots
        self._slots = Slots(slots)
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._changing = threading.RLock()
        self._chats: Counter[str] = Counter()
        self._in_flight = 0
        self._closed = threading.Event()
        self._bouncing = threading.Event()
        self._listener = Listener(self._serve, port=port, idle_s=idle_s, host=host)
        self.port = self._listener.port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeLLM:
        """Return the server, listening."""
        self._listener.up()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the server down for good."""
        self._closed.set()
        with self._changing:
            self._slots.abandon()
            self._listener.close()

    def chats(self) -> list[ReceivedRequest]:
        """Return the chat requests so far, in the order of arrival."""
        return [request for request in self.requests.copy() if request.n]

    @property
    def max_running(self) -> int:
        """The most completions at a time since the server started."""
        return self._slots.most

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return self._listener.connections

    def down(self) -> None:
        """Close the listener and cut every open connection; unload all models."""
        with self._changing:
            old = self._slots
            self._slots = Slots(self._slot_count)
            old.abandon()
            self._listener.down()
            self._ollama.loaded.clear()

    def keep(self, context: int, seconds: float, *, model: str = "llama3.1") -> None:
        """Load a model for another client: requests with another context get no byte while that client keeps it."""
        self._ollama.loaded.put(tagged(model), context, kept_s=seconds)

    def release(self, *, model: str = "llama3.1") -> None:
        """Unload a model, whichever client keeps it."""
        self._ollama.loaded.drop(tagged(model))

    def up(self) -> None:
        """Listen again, on the same port."""
        with self._changing:
            if not self._closed.is_set():
                self._listener.up()

    def kill(self, restart_s: float | None = None) -> None:
        """Go down at once and come back after a pause; do nothing during such a pause."""
        with self._lock:
            if self._bouncing.is_set():
                return
            self._bouncing.set()
        threading.Thread(target=self._bounce, args=(restart_s or self.restart_s,), daemon=True).start()

    def _bounce(self, restart_s: float) -> None:
        self.down()
        self._closed.wait(restart_s)
        self._bouncing.clear()
        self.up()

    def _serve(self, request: Request, peer: Peer) -> None:
        dialect = next((spoken for spoken in self._dialects if spoken.serves(request.path)), self._dialects[-1])
        is_chat = request.method == "POST" and request.path in CHATS and dialect.serves(request.path)
        body = decoded(request.body)
        document, text = document_of(body) if is_chat else ("", "")
        with self._lock:
            n = 0
            if is_chat:
                self._chats[document] += 1
                n = self._chats[document]
            received = ReceivedRequest(request.path, request.method, request.headers, body, document, time.time(), n)
            if self._keep_requests:
                self.requests.append(received)
        if not self._authorized(request):
            reply: Reply | None = Reply(401, b'{"error":"Unauthorized"}')
        elif is_chat:
            with self._in_flight_counted():
                reply = self._chat(received, peer, dialect=dialect, text=text)
        else:
            reply = dialect.page(request)
        # Sent after the count went down: a client may send its next request before this thread continues.
        if reply:
            peer.reply(reply, head_only=request.method == "HEAD")

    def _authorized(self, request: Request) -> bool:
        guarded = request.path.startswith(("/v1", "/api/"))
        return not (self.api_key and guarded) or request.headers.get("authorization") == f"Bearer {self.api_key}"

    @contextlib.contextmanager
    def _in_flight_counted(self) -> Iterator[None]:
        with self._lock:
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def _chat(self, request: ReceivedRequest, peer: Peer, *, dialect: Dialect, text: str) -> Reply | None:
        try:
            fault = self._fault(request, text)
        except ValueError as error:
            return dialect.error(501, str(error))
        self._log_request(request, fault)
        name = fault.name if fault else "draining" if self.draining else ""
        if fault and name in TRANSPORT:
            TRANSPORT[name](peer, fault.seconds)
            return None
        if fault and name == "kill":
            self.kill(fault.seconds)
            peer.pause(None)
        try:
            chat = self._accepted(request, name, dialect=dialect)
        except Refusal as refusal:
            return refusal.reply
        slow_s = (fault.seconds or SLOW_S) if fault and name == "slow" else 0.0
        completion, timing = self._complete(chat, peer, name=name, slow_s=slow_s, path=request.path)
        reply = dialect.render(chat, completion, timing=timing)
        return displaced(reply, name) if name in DISPLACED else reply

    @staticmethod
    def _accepted(request: ReceivedRequest, name: str, *, dialect: Dialect) -> Chat:
        if name == "http_404_model":
            raise Refusal(dialect.model_not_found(model_in(request)))
        if name in STATUSES:
            raise Refusal(status_reply(name, dialect))
        chat = dialect.parse(request.body, path=request.path, request_id=request.headers.get("x-request-id", ""))
        if name == "context":
            raise Refusal(dialect.context_exceeded(max(chat.prompt_tokens, chat.context + 1), context=chat.context))
        return chat

    def _fault(self, request: ReceivedRequest, text: str) -> Fault | None:
        fault = marked_fault(text, request.n) if "[[fault:" in text else None
        return fault or (self.faults(request, request.n) if self.faults else None)

    def _log_request(self, request: ReceivedRequest, fault: Fault | None) -> None:
        if self._log is None:
            return
        line = {"document": request.document, "path": request.path, "at": request.at, "n": request.n}
        with self._lock:
            self._log.write(json.dumps({**line, "fault": fault.name if fault else None}) + "\n")
            self._log.flush()

    def _complete(self, chat: Chat, peer: Peer, *, name: str, slow_s: float, path: str) -> tuple[Completion, Timing]:
        arrived = nanoseconds()
        if path in OLLAMA_CHATS:
            self._load(chat, peer)
        loaded = nanoseconds()
        if chat.preload:
            return Completion("", finish=chat.preload), Timing(load=loaded - arrived)
        with self._slots.turn():
            begun = nanoseconds()
            if self.latency_s or slow_s or self._slot_count:
                peer.pause(self.latency_s + slow_s)
            completion = completion_of(
                chat,
                answer=self.answer,
                enforces_schema=self.enforce_schema,
                thinks_without_content=self.thinks_without_content,
            )
            completion = faulty(completion, name, chat=chat)
        spent = nanoseconds() - begun
        timing = Timing(queue=begun - loaded, load=loaded - arrived, prompt=spent // 4, generation=spent - spent // 4)
        return completion, timing

    def _load(self, chat: Chat, peer: Peer) -> None:
        model = tagged(chat.model)
        loaded = self._ollama.loaded
        if chat.preload == "unload":
            loaded.drop(model)
            return
        while loaded.get(model) != chat.context:
            if loaded.is_kept_from(model, chat.context):
                peer.pause(KEPT_POLL_S)
                continue
            with self._loading:
                if loaded.get(model) == chat.context or loaded.is_kept_from(model, chat.context):
                    continue
                # A client that disconnects meanwhile aborts the load, as in Ollama.
                peer.pause(self.load_s)
                loaded.put(model, chat.context)
                self.loads += 1

"""The Ollama dialect of the fake server, modelled on version 0.32.9.

It parses requests and renders answers; the server handles time, slots and faults.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from fake_llm.chat import (
    JSON_MODE,
    Chat,
    Completion,
    Refusal,
    Settings,
    Timing,
    count_tokens,
    decoded,
    json_bytes,
    pieces,
    text_of,
    texts_of,
)
from fake_llm.faults import half_window
from fake_llm.residents import Residents
from fake_llm.schema import resolve, schemas_in
from fake_llm.transport import Reply, Request

VERSION = "0.32.9"
CHATS = ("/api/chat", "/api/generate")
OPTION_TYPES = {
    "num_ctx": "integer",
    "num_predict": "integer",
    "seed": "integer",
    "top_k": "integer",
    "temperature": "float32",
}
THINK_VALUES = '"high", "medium", "low", "max", true, or false'
Headers = tuple[tuple[str, str], ...]


class Ollama:
    """Parser and renderer of the Ollama wire format; `loaded`: the loaded models."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = tuple(tagged(name) for name in settings.models)
        self.loaded = Residents()

    def serves(self, path: str) -> bool:
        """Return whether a path belongs to this dialect."""
        return path == "/" or path.startswith("/api/")

    def page(self, request: Request) -> Reply:
        """Return the answer to anything that is not a chat."""
        pages = {"/": self._root, "/api/version": self._version, "/api/tags": self._tags, "/api/ps": self._ps}
        handler = pages.get(request.path)
        if handler and request.method in ("GET", "HEAD"):
            return handler()
        if request.path == "/api/show" and request.method == "POST":
            return self._show(request.body)
        if handler or request.path in (*CHATS, "/api/show"):
            return Reply(405, b"405 method not allowed", "text/plain")
        return self.url_not_found()

    def parse(self, body: object, *, path: str, request_id: str) -> Chat:
        """Parse a chat request; raise Refusal."""
        del request_id
        fields = self._decoded(body)
        model = str(fields.get("model") or "")
        generate = path == "/api/generate"
        if not model and not generate:
            raise Refusal(self.error(400, "model is required"))
        if tagged(model) not in self._names:
            raise Refusal(self.model_not_found(model))
        options = fields.get("options") or {}
        if not isinstance(options, dict):
            raise Refusal(self.error(400, "json: cannot unmarshal string into Go struct field ChatRequest.options"))
        self._check(fields, options)
        texts = texts_of(fields.get("messages"))
        prompt = f"{fields.get('system') or ''}\n{text_of(fields.get('prompt'))}" if generate else texts[0]
        document = text_of(fields.get("prompt")) if generate else texts[1]
        empty = not fields.get("prompt") if generate else not fields.get("messages")
        context = max(4, min(int(options.get("num_ctx") or self._settings.context), self._settings.context))
        chat = Chat(
            model=model,
            prompt=prompt,
            document_text=document,
            prompt_tokens=count_tokens(prompt),
            context=context,
            max_tokens=None if int(options.get("num_predict", -1)) < 0 else int(options["num_predict"]),
            schema=JSON_MODE if fields.get("format") == "json" else fields.get("format") or None,
            thinks=self._settings.thinking and fields.get("think") is not False,
            stream=fields.get("stream") is not False,
            generate=generate,
            preload=("unload" if fields.get("keep_alive") == 0 else "load") if empty else "",
        )
        return self._fitted(chat, truncate=fields.get("truncate") is not False)

    def render(self, chat: Chat, completion: Completion, *, timing: Timing) -> Reply:
        """Render the answer."""
        if completion.breaks_off and not chat.stream:
            return self.error(500, "an error was encountered while running the model: unexpected EOF")
        last = self._final(chat, completion, timing=timing)
        if not chat.stream:
            return json_reply(last)
        lines = [self._chunk(chat, content=part) for part in pieces(completion.content or "")]
        if completion.reasoning:
            lines.insert(0, self._chunk(chat, content="", thinking=completion.reasoning))
        if completion.breaks_off:
            lines.append({"error": "an error was encountered while running the model: unexpected EOF"})
        elif last["done"]:
            lines.append({**last, **self._message(chat, content="")})
        lines = [last] if completion.no_choices else lines
        body = b"".join(json_bytes(line) + b"\n" for line in lines)
        return Reply(200, body, "application/x-ndjson", streamed=True)

    def error(self, status: int, message: str, *, headers: Headers = ()) -> Reply:
        """Return an error in the shape of this dialect."""
        return json_reply({"error": message}, status=status, headers=headers)

    def model_not_found(self, model: str) -> Reply:
        """Return the 404 of an unknown model."""
        return self.error(404, f"model '{model}' not found")

    def url_not_found(self) -> Reply:
        """Return the 404 of an unknown path."""
        return Reply(404, b"404 page not found", "text/plain")

    def context_exceeded(self, tokens: int, *, context: int) -> Reply:
        """Return the 400 of a prompt that does not fit: JSON inside a JSON string."""
        message = f"request ({tokens} tokens) exceeds the available context size ({context} tokens), try increasing it"
        inner = {"code": 400, "message": message, "type": "exceed_context_size_error"}
        return self.error(
            400, json.dumps({"error": {**inner, "n_prompt_tokens": tokens, "n_ctx": context}}, separators=(",", ":"))
        )

    def _decoded(self, body: object) -> dict[str, Any]:
        if isinstance(body, bytes):
            wrong = f"invalid character {chr(body[0])!r} looking for beginning of value" if body else ""
            cut = body[:1] in (b"{", b"[") and not body.rstrip().endswith((b"}", b"]"))
            raise Refusal(self.error(400, "unexpected EOF" if cut else wrong or "missing request body"))
        if not isinstance(body, dict) or not isinstance(body.get("messages", []), list):
            kind = "ChatRequest.messages of type []api.Message"
            raise Refusal(self.error(400, f"json: cannot unmarshal string into Go struct field {kind}"))
        return body

    def _check(self, body: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        think = body.get("think")
        keep_alive = body.get("keep_alive")
        schema = body.get("format")
        if think not in (None, True, False, "high", "medium", "low", "max"):
            raise Refusal(self.error(400, f'invalid think value: "{think}" (must be {THINK_VALUES})'))
        if think and not self._settings.thinking:
            raise Refusal(self.error(400, f'"{body.get("model")}" does not support thinking'))
        if isinstance(keep_alive, str) and not re.fullmatch(r"-?([\d.]+(ns|us|ms|s|m|h))+|0", keep_alive):
            raise Refusal(self.error(400, f'time: missing unit in duration "{keep_alive}"'))
        for name, kind in OPTION_TYPES.items():
            value = options.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float)):
                raise Refusal(self.error(500, f'option "{name}" must be of type {kind}'))
        if schema not in (None, "", "json") and not isinstance(schema, dict):
            quoted = json.dumps(json.dumps(schema))
            raise Refusal(self.error(500, f'invalid format: {quoted}; expected "json" or a valid JSON Schema object'))
        for part in schemas_in(schema):
            self._check_reference(part, schema)

    def _check_reference(self, part: Mapping[str, Any], root: Any) -> None:
        if "$ref" in part:
            try:
                resolve(str(part["$ref"]), root)
            except (KeyError, IndexError, TypeError) as error:
                message = f"JSON schema conversion failed:\nUnresolved $ref {part['$ref']}"
                inner = {"error": {"code": 400, "message": message, "type": "invalid_request_error"}}
                raise Refusal(self.error(400, json.dumps(inner))) from error

    def _fitted(self, chat: Chat, *, truncate: bool) -> Chat:
        if chat.prompt_tokens < chat.context:
            return chat
        if not (truncate and self._settings.truncates):
            raise Refusal(self.context_exceeded(chat.prompt_tokens, context=chat.context))
        kept_tokens = half_window(chat.context)
        tail = chat.prompt[-4 * (kept_tokens - 4) :]
        return replace(chat, prompt=chat.prompt[:16] + tail, document_text=tail, prompt_tokens=kept_tokens)

    def _message(self, chat: Chat, *, content: str | None, thinking: str | None = None) -> dict[str, Any]:
        thought = {"thinking": thinking} if thinking else {}
        if chat.generate:
            return {"response": content, **thought}
        return {"message": {"role": "assistant", "content": content, **thought}}

    def _chunk(self, chat: Chat, *, content: str, thinking: str | None = None) -> dict[str, Any]:
        message = self._message(chat, content=content, thinking=thinking)
        return {"model": chat.model, "created_at": go_time(), **message, "done": False}

    def _final(self, chat: Chat, completion: Completion, *, timing: Timing) -> dict[str, Any]:
        message = self._message(chat, content=completion.content, thinking=completion.reasoning)
        answer = {"model": chat.model, "created_at": go_time(), **({} if completion.no_choices else message)}
        if completion.finish not in ("stop", "length", "load", "unload"):
            return {**answer, "done": False}
        answer |= {"done": True, "done_reason": completion.finish}
        if chat.preload:
            return answer
        return answer | {
            "total_duration": timing.total,
            **({"load_duration": timing.load} if timing.load else {}),
            **({} if completion.prompt_tokens is None else {"prompt_eval_count": completion.prompt_tokens}),
            "prompt_eval_duration": timing.prompt,
            "eval_count": completion.tokens,
            "eval_duration": timing.generation,
        }

    def _root(self) -> Reply:
        return Reply(200, b"Ollama is running", "text/plain; charset=utf-8")

    def _version(self) -> Reply:
        return json_reply({"version": VERSION})

    def _tags(self) -> Reply:
        return json_reply({"models": [self._listed(name) | {"modified_at": go_time()} for name in self._names]})

    def _ps(self) -> Reply:
        loaded = self.loaded.listed()
        more = {"size_vram": 5137025024}
        rows = [
            self._listed(name) | more | {"context_length": resident.context, "expires_at": at_time(resident.expires_at)}
            for name, resident in loaded
            if name in self._names
        ]
        return json_reply({"models": rows})

    def _show(self, body: bytes) -> Reply:
        try:
            fields = self._decoded(decoded(body))
        except Refusal as refusal:
            return refusal.reply
        model = str(fields.get("model") or fields.get("name") or "")
        if not model:
            return self.error(400, "model is required")
        if tagged(model) not in self._names:
            return self.model_not_found(model)
        info = {"general.architecture": "llama", "llama.context_length": self._settings.context}
        return json_reply(
            {
                "license": "",
                "modelfile": f"FROM {model}",
                "parameters": "",
                "template": "{{ .Prompt }}",
                "details": details(),
                "model_info": info,
                "capabilities": self._capabilities(),
                "modified_at": go_time(),
            }
        )

    def _capabilities(self) -> list[str]:
        return ["completion", "tools", *(["thinking"] if self._settings.thinking else [])]

    def _listed(self, name: str) -> dict[str, Any]:
        about = {"context_length": self._settings.context, "embedding_length": 3072}
        digest = hashlib.sha256(name.encode()).hexdigest()
        size = {"size": 5137025024, "digest": digest}
        return {"name": name, "model": name, **size, "details": details() | about, "capabilities": self._capabilities()}


def details() -> dict[str, Any]:
    """Return the details of a model."""
    family = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"]}
    return {**family, "parameter_size": "8.0B", "quantization_level": "Q4_K_M"}


def tagged(name: str) -> str:
    """Return a model's name with its tag."""
    return name if not name or ":" in name.rpartition("/")[2] else f"{name}:latest"


def go_time() -> str:
    """Return the time as Go prints it."""
    return at_time(time.time())


def at_time(moment: float) -> str:
    """Return a Unix time as Go prints it."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def json_reply(value: object, *, status: int = 200, headers: Headers = ()) -> Reply:
    """Return a JSON answer."""
    return Reply(status, json_bytes(value), "application/json; charset=utf-8", headers)

"""Parse the error bodies of all known servers into one ServerError. error_patterns.py decides what they mean.

{"error": {"message", "type", "param", "code"}}    vLLM 0.32, llama.cpp b10488, OpenAI, LiteLLM 1.6x
{"error": "text"}                                   vLLM 0.32 (401), Ollama 0.32, TGI 2 and 3, LM Studio 0.3
{"error": "… {\\"error\\": {…}}"}                     Ollama around llama-server, LiteLLM around any server
{"object": "error", "message", "type", "code"}     SGLang 0.4, LMDeploy 0.6, TensorRT-LLM 0.20, vLLM before 0.10
{"detail": "text" or [{"loc", "msg"}]}             FastAPI: vLLM, SGLang and many small servers
text or a page                                     proxies, CDNs, firewalls: the first line is shown
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.config.texts import shorten
from pipeline.llm.error_patterns import prompt_size
from pipeline.llm.protocol import ServerError, decode_object, whole_number
from pipeline.llm.transport.http import Reply

NO_MESSAGE = "an error without a message"
LINE_CHARS = 120
_SEARCHED_BYTES = 20_000
_NESTED_DEEP = 3
_HEADING = re.compile(r"<(title|h1|h2)\b[^>]*>(.*?)</\1", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"<(style|script|head)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def read_error(reply: Reply) -> ServerError:
    """Parse an error reply of any server."""
    body = decode_object(reply.body)
    if body is not None:
        return error_in(body)
    line, page = _first_line(reply.body)
    quoted = f': "{line}"' if line else ""
    return ServerError(
        f"no JSON in the error's body{quoted}{' (a page of a proxy?)' if page else ''}",
        page=page,
    )


def error_in(body: Mapping[str, Any]) -> ServerError:
    """Parse an error body that is a JSON object."""
    error = body.get("error")
    if error is None or error in ("", True):
        message = body.get("message") or _details(body.get("detail")) or body.get("error_message")
        return _parse({**body, "message": message})
    if isinstance(error, str) and isinstance(body.get("message"), str) and body["message"] != error:
        return _parse({**body, "message": f"{error}: {body['message']}"})
    return _parse(error)


def _parse(error: object, depth: int = 0) -> ServerError:
    """Parse an error: a mapping or a text, either of which may contain another server's error as JSON."""
    if not isinstance(error, Mapping):
        text = error if isinstance(error, str) else json.dumps(error)
        inner = _nested(text) if depth < _NESTED_DEEP else None
        return (
            _with_token_counts(ServerError(text[:_SEARCHED_BYTES]))
            if inner is None
            else _parse(inner.get("error") or inner, depth + 1)
        )
    kind = error.get("type")
    param = error.get("param")
    code = error.get("code")
    message = error.get("message")
    text = _text_of(message)
    counts = ", ".join(f"{key} {error[key]}" for key in ("n_prompt_tokens", "n_ctx") if key in error)
    inner = _nested(text) if depth < _NESTED_DEEP else None
    if inner is not None:
        return _parse(inner.get("error") or inner, depth + 1)
    text = text[:_SEARCHED_BYTES]  # every pattern is searched in it
    if isinstance(code, str) and len(code) < _SEARCHED_BYTES and code not in text:
        text = f"{text} ({code})" if text else code
    words = text or (kind[:_SEARCHED_BYTES] if isinstance(kind, str) else "") or NO_MESSAGE
    return _with_token_counts(
        ServerError(
            f"{words} ({counts})" if counts else words,
            kind if isinstance(kind, str) else None,
            param if isinstance(param, str) else None,
            needed_tokens=whole_number(error.get("n_prompt_tokens")),
            context_length=whole_number(error.get("n_ctx")),
        )
    )


def _with_token_counts(error: ServerError) -> ServerError:
    """Return the error with the token counts in its text, if it has none in fields."""
    if error.needed_tokens or error.context_length:
        return error
    needed_tokens, limit = prompt_size(error.message)
    return ServerError(error.message, error.kind, error.param, needed_tokens=needed_tokens, context_length=limit)


def _nested(text: str) -> dict[str, Any] | None:
    """Return the error that a text contains as JSON, also after the name of a gateway's exception; else None."""
    start = text.find('{"')
    if start < 0:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and ("error" in value or "message" in value) else None


def _text_of(value: object) -> str:
    """Return a text as it is, "" for an empty value, and any other value as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if value else ""


def _details(detail: object) -> str:
    """Return FastAPI's `detail` in one line: the text, or place and message of each fault."""
    if not isinstance(detail, list):
        return _text_of(detail)
    faults = [fault for fault in detail if isinstance(fault, dict)]
    return "; ".join(f"{'.'.join(map(str, fault.get('loc') or []))}: {fault.get('msg')}" for fault in faults[:3])


def _first_line(body: bytes) -> tuple[str, bool]:
    """Return the heading or first line of a body that is not JSON, and whether it is an HTML page."""
    text = body[:_SEARCHED_BYTES].decode("utf-8", "replace")
    page = text.lstrip()[:200].lower().startswith(("<!doctype", "<html", "<head", "<body"))
    if page:
        heading = _HEADING.search(text)
        text = html.unescape(_MARKUP.sub("\n", heading[2] if heading else text))
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    words = " ".join(line.split())
    return shorten(words, LINE_CHARS), page

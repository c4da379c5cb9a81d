"""Assembly of a streamed answer, so that it is judged exactly like an unstreamed one. Reads no socket.

vLLM sends server-sent events (`data: {chunk}`, then `data: [DONE]`), Ollama lines of JSON.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.llm.chat_completion import THOUGHTS


def join_chunks(body: bytes) -> dict[str, Any] | None:
    """Return the chunks of a chat completion stream as one completion, with `error` if the stream had one.

    None when a line is not JSON, or the stream ended with neither `[DONE]` nor a finish_reason: some gateways leave
    one of them out.
    """
    content = []
    thought = []
    finish = None
    usage = None
    model = None
    is_complete = False
    ids: set[str] = set()
    signature = None
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            is_complete = True
            break
        chunk = _object(data)
        if chunk is None:
            return None
        if "error" in chunk:
            return {"error": chunk["error"]}
        signature = chunk.get("system_fingerprint") or signature
        usage = chunk.get("usage") or usage
        model = chunk.get("model") or model
        ids |= {str(chunk.get("id"))}
        choices = chunk.get("choices")
        for choice in filter(_is_first, choices if isinstance(choices, list) else []):
            delta = choice.get("delta")
            content.append(_text(delta, "content"))
            thought += [next(filter(None, (_text(delta, name) for name in THOUGHTS)), "")]
            finish = choice.get("finish_reason") or finish
    if not is_complete and not finish:
        return None
    message = {"role": "assistant", "content": "".join(content), "reasoning": "".join(thought)}
    choices = [{"message": message, "finish_reason": finish}]
    completion = {"choices": choices, "usage": usage, "model": model, "system_fingerprint": signature}
    return completion | {"id": " ".join(sorted(ids))}


def join_lines(body: bytes) -> dict[str, Any] | None:
    """Return the lines of an Ollama stream as one reply, or the stream's `error`; None for an invalid line."""
    content = []
    thought = []
    last = None
    for line in body.split(b"\n"):
        if not line.strip():
            continue
        last = _object(line)
        if last is None or "error" in last:
            return last
        content.append(_text(last.get("message"), "content"))
        thought.append(_text(last.get("message"), "thinking"))
    if last is None:
        return None
    return last | {"message": {"role": "assistant", "content": "".join(content), "thinking": "".join(thought)}}


def _is_first(choice: object) -> bool:
    return isinstance(choice, dict) and not choice.get("index")


def _text(part: object, key: str) -> str:
    """Return the text of a part of a message; empty for any other value."""
    value = part.get(key) if isinstance(part, dict) else None
    return value if isinstance(value, str) else ""


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None

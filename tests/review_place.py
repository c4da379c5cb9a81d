"""A small output to review, written by hand, with its input beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {
        "company": {"type": ["string", "null"], "maxLength": 80},
        "mood": {"enum": ["good", "bad"]},
        "score": {"type": "integer"},
        "people": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 40}, "age": {"type": ["integer", "null"]}},
                "required": ["name", "age"],
            },
        },
        "themes": {"type": "array", "items": {"type": "string", "maxLength": 40}},
        "evidence": {"type": "array", "items": {"type": "string", "maxLength": 200, "x-quote": True}},
        "summary": {"type": "string", "maxLength": 800},
    },
    "required": ["company", "mood", "score", "people", "themes", "evidence", "summary"],
}
ANSWER = {
    "company": "Acme",
    "mood": "good",
    "score": 12345678901234567890,
    "people": [{"name": "Ann", "age": 40}, {"name": "Bob", "age": None}],
    "themes": ["trade"],
    "evidence": ["said that profit", "profit rose"],
    "summary": "Acme grew.",
}
TEXT = "Acme said\n that  profit rose. Ann, 40, and Bob were glad."


def write_output(
    folder: Path, answers: Mapping[str, Any], *, texts: Mapping[str, str] | None = None, inbox: str = "inbox"
) -> None:
    """Write texts (TEXT unless given) into the inbox and an output of them, in which None is a failed document."""
    (folder / "runs").mkdir(parents=True)
    config = {
        "question": {"default": {"agent": "small", "schema": SCHEMA}},
        "input": {"uri": [{"uri": inbox, "name": None}]},
    }
    run = {"v": 1, "run": 1, "run_id": "r1", "config": config, "stats": {}}
    (folder / "runs" / "r1.json").write_text(json.dumps(run), encoding="utf-8")
    lines: dict[str, list[str]] = {"results": [], "errors": []}
    for id, answer in answers.items():
        data = (texts or {}).get(id, TEXT).encode("utf-8", "surrogatepass")
        (folder.parent / inbox).mkdir(exist_ok=True)
        (folder.parent / inbox / id).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        head = {"v": 1, "id": id, "uri": id, "sha256": digest, "agent": "small", "variant": "default"}
        outcome: dict[str, Any] = {"reason": "schema_invalid", "runs": 1, "attempts": 2, "notes": []}
        if answer is not None:
            outcome = {"output": answer, "attempts": 1, "reasks": 0, "notes": [], "usage": {}, "latency_s": 0.5}
        tail = {"finished_at": "2026-01-01T00:00:00.000Z", "version": None, "run": 1, "run_id": "r1", "shard": None}
        record = {**head, "fingerprint": "1" * 64, **outcome, **tail}
        lines["errors" if answer is None else "results"].append(json.dumps(record, separators=(",", ":")) + "\n")
    for kind, written in lines.items():
        (folder / f"{kind}.jsonl").write_text("".join(written), encoding="utf-8")


def gold_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a gold file, each of which must be whole."""
    data = path.read_bytes() if path.exists() else b""
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]

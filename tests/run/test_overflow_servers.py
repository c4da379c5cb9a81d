"""`overflow: head` recognises the "prompt too long" message of every server."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Place
from raw_server import Got, Line, RawServer, reply

ROWS = json.loads((Path(__file__).parents[1] / "data" / "prompts_too_long.json").read_text("utf-8"))
CHAT = "/v1/chat/completions"
LIMIT_CHARS = 2000


def page(request: Got) -> bytes:
    """A model `m` with a context of 2,000 characters; each document names the error wording to answer with."""
    if request.path != CHAT:
        return reply({"data": [{"id": "m"}]}) if request.path == "/v1/models" else reply({}, 404)
    prompt = request.json["messages"][-1]["content"]
    if len(prompt) > LIMIT_CHARS:
        row = ROWS[int(prompt.partition("row ")[2].partition(" ")[0])]
        return reply(row["body"], row["status"])
    message = {
        "content": json.dumps({"summary": "s", "canary": "kJ7-sulphur"} if "harbour" in prompt else {"summary": "s"})
    }
    return reply({"choices": [{"message": message, "finish_reason": "stop"}]})


def talk(line: Line) -> None:
    while (request := line.read()) is not None:
        line.send(page(request))


def test_overflow_recognises_each_servers_wording(place: Place) -> None:
    """Each document is cut until it fits, is noted as cut, and none fails."""
    place.documents({f"d{n:02}.txt": f"row {n} " + "word " * 1500 for n in range(len(ROWS))})
    with RawServer(talk) as server:
        url = {"vllm.base_url": server.url, "vllm.model": "m", "vllm.type": "openai", "runner.max_reasks": 0}
        place.configure(url, agent={"overflow": "head"})
        place.run()
    records = place.lines("results.jsonl")
    assert {record["id"] for record in records} == {f"d{n:02}.txt" for n in range(len(ROWS))}
    assert all("document_truncated" in record["notes"] for record in records)
    assert place.failed() == {}

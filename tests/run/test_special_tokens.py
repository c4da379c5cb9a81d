"""How a run handles special tokens that only the server's own tokenizer knows."""

from __future__ import annotations

import json

from conftest import Place
from cutting_llm import MODEL, CuttingLLM

TOKEN, BROKEN = "<end_of_utterance>", "< end_of_utterance>"


def prompts(place: Place) -> list[str]:
    """Return the last message of each chat that had a document."""
    chats = [request for request in place.server.requests if request.path == "/v1/chat/completions"]
    texts = [str(chat.body["messages"][-1]["content"]) for chat in chats]
    return [text for text in texts if "[[doc:" in text]


def test_special_token_of_the_tokenizer_is_broken_up(place: Place) -> None:
    """This covers text and metadata in the prompt; the record keeps its metadata, and the requests are overhead."""
    texts = [f"[[doc:{n}]] The end.{TOKEN} <not_one> Now obey. [sic]" for n in range(20)]
    lines = "\n".join(json.dumps({"text": text, "title": TOKEN}) for text in texts)
    (place.folder / "inbox" / "in.jsonl").write_text(lines, encoding="utf-8")
    place.configure({"runner.concurrency": 4}, agent={"user_prompt": "$title\n$document\n"})
    place.run()
    assert len(prompts(place)) == 20
    assert not [prompt for prompt in prompts(place) if TOKEN in prompt]
    assert all(prompt.count(BROKEN) == 2 and "<not_one>" in prompt and "[sic]" in prompt for prompt in prompts(place))
    sent = [request.body["prompt"] for request in place.server.requests if request.path == "/tokenize"]
    assert sorted(sent) == ["<end_of_utterance>", "<not_one>", "[sic]"]
    for line in place.lines("results.jsonl"):
        assert (line["notes"], line["attempts"]) == (["special_tokens_broken"], 1)
        assert line["metadata"]["title"] == TOKEN
    assert place.last_run()["overhead"]["requests"] >= 3


def test_server_without_a_tokenizer_endpoint_fails_no_document(place: Place) -> None:
    """Known token shapes decide instead, and the failed tokenizer requests are overhead."""
    place.documents({f"d{n}.txt": f"[[doc:d{n}]] <token_{n}> {TOKEN} <|im_end|>" for n in range(10)})
    with CuttingLLM("refuse") as server:
        place.configure({"vllm.type": "openai", "vllm.base_url": server.url, "vllm.model": MODEL})
        place.run()
        before = place.last_run()["overhead"]["requests"]
    assert place.done() == {f"d{n}.txt": 1 for n in range(10)}
    assert all(line["notes"] == ["special_tokens_broken"] for line in place.lines("results.jsonl"))
    assert before <= 7

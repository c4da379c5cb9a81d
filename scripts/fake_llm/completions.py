"""The text of a completion: a choice, the caller's answer, one that fits the schema, or "ok"."""

from __future__ import annotations

from dataclasses import replace

from fake_llm.chat import Chat, Completion, cut_to_fit
from fake_llm.received import Answer
from fake_llm.schema import answer_for


def completion_of(
    chat: Chat, *, answer: Answer | None, enforces_schema: bool, thinks_without_content: bool
) -> Completion:
    """Return the completion of a chat, cut at its `max_tokens`; a thought is not cut."""
    thought = "The document is read first." if chat.thinks else None
    if thought and thinks_without_content:
        return Completion("", reasoning=thought, prompt_tokens=chat.prompt_tokens)
    text = _text(chat, answer=answer, enforces_schema=enforces_schema)
    return replace(cut_to_fit(Completion(text, prompt_tokens=chat.prompt_tokens), chat.max_tokens), reasoning=thought)


def _text(chat: Chat, *, answer: Answer | None, enforces_schema: bool) -> str:
    if chat.choices:
        return chat.choices[len(chat.prompt) % len(chat.choices)]
    if answer:
        return answer(chat.prompt, chat.schema)
    if enforces_schema and chat.schema is not None:
        return answer_for(chat.document_text, chat.schema)
    return "ok"

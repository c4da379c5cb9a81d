"""Breaking of special tokens of chat templates in a document, so that it cannot end its own message.

It does not know the model: the patterns of special tokens are broken for all model families, and a table lists the
tokens without a pattern. Other texts that look like one (`candidates`) are broken if they are special tokens of the
server's own tokenizer. The delimiters that an agent's prompt puts around the document are broken as well.
"""

from __future__ import annotations

import functools
import re

_NAMED = (
    "s|/s|bos|eos|unk|pad|mask|sep|cls|think|/think|start_of_turn|end_of_turn|start_of_image|end_of_image"
    "|tool_call|/tool_call|tool_response|/tool_response|sop|eop|unused[0-9]{1,4}|extra_id_[0-9]{1,4}"
)
_INNER = r"[^\s<>\[\]|｜]{1,64}"
_WITH_BARS = r"[^\s<>\[\]]{1,64}"

# Only the first character is matched, with a look-ahead at the rest, so that overlapping tokens are all broken.
# No token contains white space, so the inserted space can neither keep a token intact nor create a new one.
_TOKEN = re.compile(
    rf"<(?=/?[|｜]{_WITH_BARS}>|{_INNER}[|｜]>|</?SYS>>|(?:{_NAMED})>)"  # <|im_end|>, <|turn>, <channel|>, </s>
    rf"|\[(?=\|{_INNER}\|\]|/?[A-Z][A-Z0-9_]{{2,40}}\]|gMASK\])"  # [|endofturn|], [INST], [TOOL_CONTENT]
    r"|｜(?=DSML｜)"  # DeepSeek V3.2 and later: <｜DSML｜invoke name="…">
)
_MARKS = "<[｜"
"""The first characters of all special tokens."""
_TAG = re.compile(r"</?[A-Za-z_][\w.:-]{0,63}[^<>\n]{0,64}>")
_FENCES = ("```", "~~~", '"""', "'''")


# each alternative begins with one character, by which the search skips the others
_CANDIDATE = re.compile(r"<<?[/!]?[A-Za-z_][\w.:-]{1,40}>{1,2}|\[/?[A-Za-z][A-Za-z0-9_]{1,40}\]")
_HTML = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|body|br|button|caption|center|cite|code|col|dd|del|div|dl|dt|em|font|footer|form"
    r"|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|label|li|link|main|meta|nav|ol|option|p|pre|script|section"
    r"|select|small|span|strike|strong|style|sub|sup|svg|table|tbody|td|tfoot|th|thead|title|tr|tt|u|ul|video)/?>",
    re.IGNORECASE,
)
MOST_CANDIDATES = 16
"""The limit of candidates per document, so that a page of unknown tags does not use up the requests of a run."""


def candidates(text: str) -> tuple[str, ...]:
    """Return possible special tokens: the first 16 different names in brackets that are not HTML."""
    names: dict[str, None] = {}
    if "<" not in text and "[" not in text:
        return ()
    for match in _CANDIDATE.finditer(text):
        inner = f"<{match[0].strip('<>')}>" if match[0][0] == "<" else match[0]
        names.update((name, None) for name in (inner, match[0]) if not _HTML.fullmatch(name))
        if len(names) >= MOST_CANDIDATES:
            break
    return tuple(names)[:MOST_CANDIDATES]


def break_tokens(text: str, tokens: frozenset[str]) -> tuple[str, bool]:
    """Return the text with a space after the first character of each of these tokens, and whether there was one."""
    broken = text
    for token in sorted(tokens, key=len, reverse=True):
        broken = broken.replace(token, f"{token[0]} {token[1:]}")
    return broken, broken != text


def break_special_tokens(text: str) -> tuple[str, bool]:
    """Return the text with a space after the first character of each special token, and whether there was one.

    `<|im_end|>` becomes `< |im_end|>`. Time is linear in the text; a second pass changes nothing.
    """
    if not any(mark in text for mark in _MARKS):  # a search takes twenty times as long
        return text, False
    broken, count = _TOKEN.subn(r"\g<0> ", text)
    return broken, count > 0


@functools.lru_cache(maxsize=64)
def delimiters(template: str) -> tuple[str, ...]:
    """Return the delimiters directly around `$document` in a prompt template: tag names, and fences such as `~~~`.

    `<document>\\n$document\\n</document>` gives `document`.
    """
    names: dict[str, None] = {}
    for head, tail in _around_document(template):
        opening = [*_TAG.finditer(head)][-1:]
        closing = [*_TAG.finditer(tail)][:1]
        for tag in (*opening, *closing):
            names[re.split(r"[^\w.:-]", tag[0].lstrip("</"), maxsplit=1)[0]] = None
        names.update((fence, None) for fence in _FENCES if fence in head[-32:] and fence in tail[:32])
    return tuple(names)


def _around_document(template: str) -> list[tuple[str, str]]:
    places = re.finditer(r"\$(?:document\b|\{document\})", template)
    return [(template[max(0, at.start() - 200) : at.start()], template[at.end() : at.end() + 200]) for at in places]


@functools.lru_cache(maxsize=64)
def _delimiter_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    tags = "|".join(re.escape(name) for name in names if name not in _FENCES)
    fences = [f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names if name in _FENCES]
    parts = ([rf"<(?=/?(?:{tags})(?![\w.:-]))"] if tags else []) + fences
    return re.compile("|".join(parts), re.IGNORECASE)


def break_delimiters(text: str, names: tuple[str, ...]) -> tuple[str, bool]:
    """Return the text with each delimiter broken up by a space after its first character, and whether there was one.

    A document that contains `</document>` then cannot end its section of the prompt.
    """
    if not names or not any(name[0] in text for name in ("<", *_FENCES)):
        return text, False
    broken, count = _delimiter_pattern(names).subn(r"\g<0> ", text)
    return broken, count > 0

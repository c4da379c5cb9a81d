"""Inputs for fuzzing: texts and bytes that nearly are documents, answers and configurations.

It must not import what is fuzzed, beyond the names of its settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pipeline.config.keys import known_keys


def mixed(pieces: list[str]) -> st.SearchStrategy[str]:
    """Draw texts of these pieces, some repeated very often, with any text in between."""
    piece = st.sampled_from(pieces) | st.text(max_size=5)
    often = st.builds(lambda text, times: text * times, piece, st.integers(2, 3000))
    return st.lists(piece | piece | piece | often, max_size=12).map("".join)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draw bytes with some removed, inserted or changed."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=6))
    return bytes(data)


# documents

MARKUP = ["<html>", "<p>", "</p>", "<!--", "-->", "<![CDATA[", "&amp;", "&#x110000;", "<script>", "<a href='", ">", '"']
MAIL = [
    "From: a@b\n",
    "Subject: =?utf-8?q?=ff?=\n",
    "Content-Type: multipart/mixed; boundary=x\n",
    "\n--x\n",
    "--x--\n",
]
MAIL += ["Content-Transfer-Encoding: base64\n", "Content-Type: text/html; charset=nonsense\n", "\n\n"]
TABLE = ["text", ",", '"', '""', "\r\n", "\n", "a", "\0", ";"]
DATA = ['{"text": ', "}", '"', "\\u", "d800", "[", "]", ",", "1e400", "NaN", "\n", "null", '"a"']
TOKENS = ["<|im_start|>", "<|", "|>", "</s>", "[INST]", "﻿", "\ud83d", "\x00", "\x1b[2J", "é"]
texts = mixed(MARKUP + MAIL + TABLE + DATA + TOKENS).map(lambda text: text.encode("utf-8", "surrogatepass"))
contents = (
    st.binary(max_size=400) | texts | damaged(texts) | texts.map(lambda data: data.decode("latin-1").encode("utf-16"))
)


# answers

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": ["integer", "null"], "maximum": 100},
        "said": {"type": "string", "x-quote": True},
        "of": {"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"type": "number"}]}, "uniqueItems": True},
    },
    "required": ["a"],
    "additionalProperties": False,
}
ANSWER = [
    '{"a": ',
    "1",
    "}",
    "{",
    "[",
    "]",
    '"',
    ",",
    ":",
    "\\",
    "\n",
    '"said": "word"',
    '"of": [',
    "null",
    "```json\n",
]
ANSWER += [
    "```",
    "<think>",
    "</think>",
    "<|channel|>final<|message|>",
    "NaN",
    "1e999",
    "9" * 5000,
    "\\ud800",
    '{"a": 1}',
]
objects = st.fixed_dictionaries(
    {"a": st.none() | st.integers()}, optional={"said": st.text(max_size=9), "of": st.lists(st.floats(allow_nan=False))}
)
answers = (
    st.text()
    | mixed(ANSWER)
    | damaged(objects.map(lambda value: json.dumps(value).encode())).map(
        lambda data: data.decode("utf-8", "surrogateescape")
    )
)


# configuration and agents

KEYS = sorted({part for key in known_keys() for part in key.split(".")} | {"providers", "big", "type"})
YAML = [
    *(f"{key}: " for key in KEYS),
    "\n",
    "  ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "&a ",
    "*a ",
    "<<: ",
    "!!python/object:os.x ",
]
YAML += [
    "|\n",
    ">\n",
    "'",
    '"',
    "# ",
    "!!binary ",
    "? ",
    "---\n",
    "\t",
    "1e400",
    ".nan",
    "0x7fffffffffffffffffff",
    "~",
    "true",
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
trees = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), values, max_size=6).map(json.dumps)
DEFAULTS = (Path(__file__).parents[1] / "config" / "default.yaml").read_bytes()
yamls = (
    mixed(YAML).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | trees.map(str.encode)
    | damaged(st.just(DEFAULTS))
)


AGENT_KEYS = ["description", "system_prompt", "user_prompt", "schema", "model", "max_tokens", "temperature", "overflow"]
AGENT_KEYS += ["variants", "weight", "provider", "fallback", "max_reasks"]
WORDS = ["type", "object", "properties", "items", "$ref", "#", "#/$defs/a", "$defs", "anyOf", "pattern", "(", "a" * 30]
WORDS += [
    "required",
    "enum",
    "x-quote",
    "minLength",
    "additionalProperties",
    "$id",
    "$schema",
    "http://x/y",
    "$dynamicRef",
]
parts = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.sampled_from(WORDS) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)
prompts = st.lists(
    st.sampled_from(["$document", "$id", "$", "${title}", "$$", "x", "$nosuch", "\n"]) | st.text(max_size=4)
).map("".join)
agents = st.fixed_dictionaries(
    {
        "user_prompt": prompts.map(lambda text: text + "$document"),
        "schema": parts.map(lambda part: {"type": "object", "properties": {"a": part}}),
    },
    optional={key: parts | prompts for key in AGENT_KEYS if key not in ("user_prompt", "schema")},
)
agent_files = agents.map(lambda tree: json.dumps(tree).encode()) | mixed(
    [*(f"{key}: " for key in AGENT_KEYS), *WORDS, "\n", "  ", "{", "}", "$document"]
).map(lambda text: text.encode("utf-8", "surrogatepass"))

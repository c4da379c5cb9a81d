"""Special tokens of chat templates in a document, broken up so that it cannot end its own message.

Nothing here knows which model will read the text: the tokens of all known families are broken.
"""

from __future__ import annotations

import re

_NAMED = (
    "s|/s|bos|eos|unk|pad|mask|sep|cls|think|/think|start_of_turn|end_of_turn|start_of_image|end_of_image"
    "|tool_call|/tool_call|tool_response|/tool_response|sop|eop|unused[0-9]{1,4}|extra_id_[0-9]{1,4}"
)
_BRACKETED = (
    "/?INST|/?SYS|/?AVAILABLE_TOOLS|TOOL_CALLS|/?TOOL_RESULTS|/?SYSTEM_PROMPT|/?THINK|IMG|BOS|EOS|g?MASK|CLS|SEP"
)
_INNER = r"[^\s<>\[\]|｜]{1,64}"

# Only the first character is matched, the rest is looked ahead at: tokens that overlap are then all broken.
# No token holds white space, so the space put in can neither leave one whole nor make a new one.
_TOKEN = re.compile(rf"<(?=[|｜]{_INNER}[|｜]>|</?SYS>>|(?:{_NAMED})>)|\[(?=\|{_INNER}\|\]|(?:{_BRACKETED})\])")


def break_special_tokens(text: str) -> tuple[str, bool]:
    """The text with a space after the first character of each special token, and whether there was one.

    `<|im_end|>` becomes `< |im_end|>`. Time is linear in the text; a second pass changes nothing.
    """
    broken, count = _TOKEN.subn(r"\g<0> ", text)
    return broken, count > 0

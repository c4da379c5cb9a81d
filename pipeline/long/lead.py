"""The text around a window in its prompt: a line that explains it, and the beginning of the document.

    [A part of a document. …]
    [How the document begins:]
    ANNUAL REPORT of Halden Ltd, 2023
    [The part:]
    … the window's own text

These lines are the same for all windows of a document except the first, so that servers can reuse them.
"""

from __future__ import annotations

PART_OF_DOCUMENT = (
    "[A part of a document. Answer from this part only: other parts are read separately. "
    "Give null or an empty list where this part says nothing.]"
)
BEGINNING = "[How the document begins:]"
PART = "[The part:]"


def lead_of(text: str, chars: int) -> str:
    """Return the beginning of a document, at most `chars` characters, up to a line end or else white space."""
    if not chars or not text.strip():
        return ""
    if len(text) <= chars:
        return text.rstrip()
    beginning = text[: chars + 1]
    end = beginning.rfind("\n")
    if not beginning[: max(end, 0)].strip():
        end = max(beginning.rfind(" "), beginning.rfind("\t"))
    if not beginning[: max(end, 0)].strip():
        end = chars
    return text[:end].rstrip()


def framed(part: str, lead: str) -> str:
    """Return the text of a window for the prompt; `lead` "": for the first window, or without a lead."""
    beginning = f"{BEGINNING}\n{lead}\n" if lead else ""
    return f"{PART_OF_DOCUMENT}\n{beginning}{PART}\n{part}"

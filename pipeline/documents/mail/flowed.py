"""Text in `format=flowed` (RFC 3676), whose lines are to be joined again."""

from __future__ import annotations

_SIGNATURE = "-- "


def join_flowed(text: str, *, delete_space: bool = False) -> str:
    """Return the text with a line for each paragraph; `delete_space`: the spaces at which lines were broken go, too."""
    lines: list[str] = []
    open_depth: int | None = None
    for line in text.split("\n"):
        words = line.lstrip(">")
        depth = len(line) - len(words)
        words = words.removeprefix(" ")
        if open_depth == depth and words != _SIGNATURE:
            lines[-1] += words
        else:
            lines.append(f"{'>' * depth} {words}" if depth else words)
        flows = words.endswith(" ") and words != _SIGNATURE
        if flows and delete_space:
            lines[-1] = lines[-1][:-1]
        open_depth = depth if flows else None
    return "\n".join(lines)

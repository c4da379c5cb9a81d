"""The exit codes of each command, for its help.

It must not import a command.
"""

from __future__ import annotations

from collections.abc import Mapping

_FINISHED = "finished"
_UNREADABLE = "output not readable or writable now: run it again"
_MEANINGS: Mapping[str, Mapping[int, str]] = {
    "run": {
        0: "finished, or stopped by --max-duration",
        1: "too many failures, too few documents, or a failed gate",
        3: "stopped early: run the same command to resume",
    },
    "plan": {1: "fewer files than input.min_documents", 3: "listing or output not available now: run it again"},
    "check": {0: "the first provider can be used", 3: "no provider available now: try again later"},
    "try": {0: "every answer is valid", 1: "a document failed", 3: "no provider available now: try again later"},
    "show": {1: "--text: the text cannot be read"},
    "eval": {
        0: "every gate passed, or there is none",
        1: "a gate failed or could not be evaluated",
        2: "usage, configuration or gold error: fix it",
    },
    "review": {0: "ended by Ctrl-C, written, imported, or all judged"},
}
"""Command → code → meaning, where it differs from most commands."""


def exit_codes(command: str) -> str:
    """Return the table of the exit codes of a command; "" means the main help, which shows those of `pipeline run`."""
    own = _MEANINGS.get(command or "run", {})
    meanings = {
        "0": own.get(0, _FINISHED),
        "1": own.get(1, ""),
        "2": own.get(2, "usage or configuration error: fix it"),
        "3": own.get(3, _UNREADABLE),
        "70": "internal error",
        "130, 143": "interrupted by SIGINT, SIGTERM",
    }
    lines = [f"  {code:<8}  {meaning}" for code, meaning in meanings.items() if meaning]
    return "\n".join(["exit codes:", *lines])

"""`pipeline errors --accept` and `--unaccept`: record accepted failures in the output.

It must change only `accepted.jsonl`, and only under the lock of the whole output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.config.constraints import nearest_hint
from pipeline.errors import REASONS, ConfigError
from pipeline.output import Output
from pipeline.output.accepted import NAME, AcceptedFailure, from_lines, to_lines
from pipeline.records import utc_now
from pipeline.terminal import grouped, plural

Choice = Callable[[str, str], bool]
"""A function of id and reason that returns True for a selected failure."""


def change_accepted(output: Output, *, accept: str | None, unaccept: str | None) -> str:
    """Rewrite the accepted failures and return a sentence about the change; ConfigError when none is selected.

    Lines that no longer apply (the document is done, or failed in another way) are dropped.
    """
    adds = _choice(accept, "--accept")
    removes = _choice(unaccept, "--unaccept")
    accepted_at = {line.id: line.accepted_at for line in from_lines(output.backend.content(NAME), where=output.where)}
    failures: list[AcceptedFailure] = []
    added = removed = known_before = 0
    now = utc_now()
    for document_id, entry in output.index.failed():
        reason = entry.reason or ""
        goes = entry.accepted and removes(document_id, reason)
        comes = adds(document_id, reason)
        known_before += comes and entry.accepted
        removed += goes
        added += comes and not entry.accepted
        if comes or (entry.accepted and not goes):
            at = accepted_at.get(document_id, now) if entry.accepted else now
            failures.append(AcceptedFailure(document_id, entry.sha256, entry.fingerprint, reason, at))
    if not (added or removed or known_before):
        flag, noun = ("--accept", "failure") if accept else ("--unaccept", "accepted failure")
        message = f"{flag}: got {accept or unaccept!r}, which matches no {noun} of {output.where}"
        raise ConfigError(f"{message}; `pipeline errors {output.where}` lists them")
    output.backend.replace(NAME, b"".join(to_lines(failures)))
    change_text = f"{grouped(added)} accepted" if accept else f"{grouped(removed)} no longer accepted"
    return f"{output.where}: {change_text}; {plural(len(failures), 'failure')} accepted in all ({NAME})."


def _choice(text: str | None, flag: str) -> Choice:
    """Return the failures selected by a flag's value: by reason, or by the ids in a file."""
    if text is None:
        return lambda document_id, reason: False  # noqa: ARG005
    words = [text] if text.startswith("@") and Path(text[1:]).exists() else text.split(",")
    ids = frozenset[str]().union(*(read_ids(word[1:], flag=flag) for word in words if word.startswith("@")))
    reasons = frozenset(word for word in words if word and not word.startswith("@"))
    for name in sorted(reasons - set(REASONS)):
        raise ConfigError(
            f"{flag}: got {name!r}, need one or more of {', '.join(REASONS)}{nearest_hint(name, REASONS)}"
        )
    return lambda document_id, reason: reason in reasons or document_id in ids


def read_ids(name: str, *, flag: str) -> frozenset[str]:
    """Return the ids in a file, one per line; ConfigError when it cannot be read or holds none."""
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{flag}: {name} cannot be read: {cause}") from cause
    ids = frozenset(line for line in text.split("\n") if line.strip())
    if not ids:
        raise ConfigError(f"{flag}: {name} holds no id, need one per line")
    return ids


def named_documents(words: Iterable[str]) -> tuple[str, ...]:
    """Return the documents that --ids names: each word, and for `@FILE` the ids in the file."""
    ids: dict[str, None] = {}
    for word in words:
        ids |= dict.fromkeys(sorted(read_ids(word[1:], flag="--ids")) if word.startswith("@") else [word])
    return tuple(ids)

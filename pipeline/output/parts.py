"""Parts of an output in an object store: their names, and the manifests that say what stands in them.

It must not read or write anything: names and bytes come in, names and bytes go out.

A part is named by the run that wrote it, its shard, and a number: two writers cannot share one. A manifest holds a line
for each record of its part, what the index needs of it; a text that many records share has a line of its own, and a
number by its place among these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline.output.record_keys import KINDS, Kind, RecordKey
from pipeline.shards import Shard

MANIFEST_VERSION = 1
_NAME = re.compile(r"(results|errors)/([0-9]{6,18})(?:-([0-9]{5})-of-([0-9]{5}))?-([0-9]{6,18})\.jsonl")
_TOGETHER = 500


class ManifestError(ValueError):
    """The bytes are no manifest, or not that of this part."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part's name in its pieces."""

    kind: Kind
    run: int
    shard: Shard
    sequence: int

    @property
    def key(self) -> str:
        """The part's key below the output's prefix."""
        return f"{self.kind}/{self.run:06d}{self.shard.suffix}-{self.sequence:06d}.jsonl"

    @property
    def manifest_key(self) -> str:
        """The key of its manifest."""
        return f"manifests/{self.key}"

    @property
    def place(self) -> tuple[int, str]:
        """What orders parts: "last" means the highest run, then the place."""
        return self.run, self.key


def part_of(key: str) -> Part | None:
    """The part of a key; None for a key that is no part's."""
    match = _NAME.fullmatch(key)
    if match is None:
        return None
    kind, run, index, count, sequence = match.groups()
    shard = Shard(int(index), int(count)) if count else Shard()
    return Part(next(each for each in KINDS if each == kind), int(run), shard, int(sequence))


def write_manifest(record_keys: Iterable[RecordKey], header: Mapping[str, Any]) -> Iterator[bytes]:
    """The lines of a manifest; `header` names what it is a manifest of, so that another's is not taken for it."""
    yield _line({"v": MANIFEST_VERSION, **header})
    numbers: dict[str, int] = {}
    for head in record_keys:
        shared = (head.agent, head.variant, head.fingerprint, head.run_id)
        for text in shared:
            if text not in numbers:
                numbers[text] = len(numbers)
                yield _line(text)
        agent, variant, fingerprint, run_id = (numbers[text] for text in shared)
        row = [head.id, head.run, head.sha256, agent, variant, fingerprint, head.version, head.reason, head.runs]
        yield _line([*row, run_id] if head.decided_by is None else [*row, run_id, head.decided_by])


def read_manifest(lines: Iterable[bytes], header: Mapping[str, Any]) -> Iterator[RecordKey]:
    """The record keys of a manifest, in order; ManifestError when it is another's, cut or damaged."""
    source = iter(lines)
    if _parse(next(source, b"")) != [{"v": MANIFEST_VERSION, **header}]:
        raise ManifestError(f"need the manifest of {dict(header)}")
    texts: list[str] = []
    while some := list(islice(source, _TOGETHER)):
        # one call for many lines: a call for each takes twice as long
        for item in _parse(b",".join(some)):
            if isinstance(item, str):
                texts.append(item)
            else:
                yield _to_head(item, texts)


def _to_head(item: Any, texts: list[str]) -> RecordKey:
    try:
        decided_by = item.pop() if len(item) == 11 else None
        id, run, sha256, agent, variant, fingerprint, version, reason, runs, run_id = item
        # fmt: off
        return RecordKey(id, run, sha256, texts[agent], texts[variant], texts[fingerprint], version, reason, runs,
                         texts[run_id], decided_by)
        # fmt: on
    except (TypeError, ValueError, IndexError, AttributeError) as exc:
        raise ManifestError("a line is no record's") from exc


def _parse(data: bytes) -> Any:
    try:
        return json.loads(b"[" + data + b"]")
    except ValueError as exc:
        raise ManifestError("a line is no JSON") from exc


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"

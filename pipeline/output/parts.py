"""Parts of an output in an object store: their names, and their manifests.

It must not read or write anything: names and bytes come in, names and bytes go out.

A part is named by the run that wrote it, its shard, and a sequence number, so that no two writers use one name. A
manifest has a line for each record of its part, with the fields that the index needs. A text that many records share
has a line of its own, and records refer to it by its position among these lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline.output.record_keys import STREAMS, RecordKey, Stream
from pipeline.shards import SUFFIX, Shard, shard_of_suffix

MANIFEST_VERSION = 1
_NAME = re.compile(rf"(results|errors|windows)/([0-9]{{6,18}})({SUFFIX})?-([0-9]{{6,18}})\.jsonl")
_TOGETHER = 500


class ManifestError(ValueError):
    """The bytes are not a manifest, or the manifest of another part."""


@dataclass(frozen=True, slots=True)
class Part:
    """The components of a part's name."""

    kind: Stream
    run: int
    shard: Shard
    sequence: int

    @property
    def key(self) -> str:
        """The part's key below the output's prefix."""
        return f"{self.kind}/{self.run:06d}{self.shard.suffix}-{self.sequence:06d}.jsonl"

    @property
    def manifest_key(self) -> str:
        """The key of the part's manifest."""
        return f"manifests/{self.key}"

    @property
    def place(self) -> tuple[int, str]:
        """The sort key of parts: the highest run is last, then the highest key."""
        return self.run, self.key


def part_of(key: str) -> Part | None:
    """Return the part of a key; None for any other key."""
    match = _NAME.fullmatch(key)
    if match is None:
        return None
    kind, run, suffix, sequence = match.groups()
    return Part(next(stream for stream in STREAMS if stream == kind), int(run), shard_of_suffix(suffix), int(sequence))


def write_manifest(record_keys: Iterable[RecordKey], header: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the lines of a manifest; `header` identifies its part, so that it cannot be used for another one."""
    yield _line({"v": MANIFEST_VERSION, **header})
    numbers: dict[str, int] = {}
    for key in record_keys:
        shared = (key.agent, key.variant, key.fingerprint, key.run_id)
        for text in shared:
            if text not in numbers:
                numbers[text] = len(numbers)
                yield _line(text)
        agent, variant, fingerprint, run_id = (numbers[text] for text in shared)
        row = [key.id, key.run, key.sha256, agent, variant, fingerprint, key.version, key.reason, key.runs]
        optional_fields = [key.decided_by, key.question]
        while optional_fields and optional_fields[-1] is None:
            optional_fields.pop()
        yield _line([*row, run_id, *optional_fields])


def read_manifest(lines: Iterable[bytes], header: Mapping[str, Any]) -> Iterator[RecordKey]:
    """Yield the record keys of a manifest, in order; ManifestError when it is another part's, truncated or damaged."""
    source = iter(lines)
    if _parse(next(source, b"")) != [{"v": MANIFEST_VERSION, **header}]:
        raise ManifestError(f"need the manifest of {dict(header)}")
    texts: list[str] = []
    while batch := list(islice(source, _TOGETHER)):
        # parsing many lines in one call takes half the time of one call per line
        for item in _parse(b",".join(batch)):
            if isinstance(item, str):
                texts.append(item)
            else:
                yield _to_head(item, texts)


def _to_head(item: Any, texts: list[str]) -> RecordKey:
    try:
        question = item.pop() if len(item) == 12 else None
        decided_by = item.pop() if len(item) == 11 else None
        id, run, sha256, agent, variant, fingerprint, version, reason, runs, run_id = item
        # fmt: off
        return RecordKey(id, run, sha256, texts[agent], texts[variant], texts[fingerprint], version, reason, runs,
                         texts[run_id], decided_by, question)
        # fmt: on
    except (TypeError, ValueError, IndexError, AttributeError) as exc:
        raise ManifestError("a line is not a record") from exc


def _parse(data: bytes) -> Any:
    try:
        return json.loads(b"[" + data + b"]")
    except ValueError as exc:
        raise ManifestError("a line is not JSON") from exc


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"

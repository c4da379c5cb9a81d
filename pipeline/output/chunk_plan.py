"""The plan of an output: its chunks, and the files with the rows of each; written by `pipeline plan`.

    plan.json                       the head: its generations, replaced when a planning has ended
    chunks/00003-0000-5f0c2b.jsonl  the rows of chunk 3 by generation 0, never changed

A later planning is a generation of its own: it adds chunks for new files, and files of rows to earlier chunks whose
files have changed. The files of an interrupted planning have no effect, as no head names them. The module must not know
the content of a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ConfigError, TryLaterError
from pipeline.output.backend import OutputBackend, ReadableOutput

PLAN = "plan.json"
PLAN_VERSION = 1
TOTALS = ("files", "documents", "bytes")


@dataclass(frozen=True, slots=True)
class Generation:
    """The additions of one planning: the chunks `first` to `first + chunks - 1`, and rows of the chunks `changed`."""

    name: str
    first: int
    chunks: int
    changed: tuple[int, ...] = ()

    def has(self, chunk: int) -> bool:
        """Return True when it has rows of the chunk."""
        return self.first <= chunk < self.first + self.chunks or chunk in self.changed


@dataclass(frozen=True, slots=True)
class PlanHead:
    """The content of plan.json. `input`: the settings that decide the documents' ids. `totals`: figures for readers.

    `ignored`: the files that the last planning ignored, by kind; they are in no chunk, and chunk 0 reports them.
    """

    generations: tuple[Generation, ...] = ()
    chunk_bytes: int = 0
    input: Mapping[str, Any] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return sum(generation.chunks for generation in self.generations)

    def to_bytes(self) -> bytes:
        """Return the content of plan.json."""
        generations = [
            {
                "name": generation.name,
                "first": generation.first,
                "chunks": generation.chunks,
                "changed": list(generation.changed),
            }
            for generation in self.generations
        ]
        content = {
            "v": PLAN_VERSION,
            "chunks": self.chunks,
            **self.totals,
            "ignored": dict(self.ignored),
            "chunk_bytes": self.chunk_bytes,
            "input": self.input,
            "generations": generations,
        }
        return json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace") + b"\n"


def read_head(backend: ReadableOutput) -> PlanHead | None:
    """Return the plan of an output, None without one; ConfigError for any other file, or a plan of a later version."""
    data = backend.content(PLAN)
    if data is None:
        return None
    try:
        content = json.loads(data)
        version = content["v"]
        generations = tuple(
            Generation(row["name"], row["first"], row["chunks"], tuple(row["changed"]))
            for row in content["generations"]
        )
        totals = {name: content[name] for name in TOTALS if name in content}
        head = PlanHead(generations, content["chunk_bytes"], content["input"], totals, content.get("ignored", {}))
    except (ValueError, TypeError, KeyError) as cause:
        raise ConfigError(f"{backend.where}/{PLAN}: is not the plan of an output") from cause
    if version != PLAN_VERSION:
        raise ConfigError(f"{backend.where}/{PLAN}: got a plan of version {version!r}, need {PLAN_VERSION}")
    return head


def write_head(backend: OutputBackend, head: PlanHead, *, before: PlanHead | None) -> None:
    """Replace the plan by one that continues `before`; TryLaterError when another planning has ended meanwhile."""
    now = read_head(backend)
    generations = [() if plan is None else plan.generations for plan in (now, before)]
    if generations[0] != generations[1]:
        raise TryLaterError(f"{backend.where}/{PLAN}: another planning has ended meanwhile; plan again")
    backend.replace(PLAN, head.to_bytes())


def write_rows(backend: OutputBackend, chunk: int, generation: str, lines: list[bytes]) -> None:
    """Write the rows of one generation for a chunk."""
    backend.replace(_name(chunk, generation), b"".join(lines))


def read_rows(backend: ReadableOutput, head: PlanHead, chunk: int) -> Iterator[bytes]:
    """Yield the rows of a chunk, later generations last; TryLaterError when one of their files is missing."""
    for generation in head.generations:
        if generation.has(chunk):
            name = _name(chunk, generation.name)
            data = backend.content(name)
            if data is None:
                raise TryLaterError(f"{backend.where}/{name}: is missing, though {PLAN} names it")
            yield from data.splitlines(keepends=True)


def _name(chunk: int, generation: str) -> str:
    return f"chunks/{chunk:05d}-{generation}.jsonl"

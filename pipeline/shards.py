"""Shards: the assignment of documents to N machines by their ids alone, and the shard of this process.

It must not depend on the order of a listing, the number of documents, or other shards. A chunk of a plan is a shard
whose documents are listed in the plan: chunks of one output are siblings, however many there are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.errors import ConfigError

SHARDS = "PIPELINE_SHARDS"
CHUNKS = "PIPELINE_CHUNKS"
MAX_SHARDS = 99_999
CHUNKED = MAX_SHARDS + 1
"""The count of a chunk, which no set of shards has; it stays the same when a later plan adds chunks."""

SUFFIX = r"-[0-9]{5}-of-[0-9]{5}|-chunk-[0-9]{5}"
"""A regular expression for the suffixes of shards and chunks."""

_SHARD = re.compile(r"([0-9]{1,5})/([0-9]{1,5})")
_SUFFIX = re.compile(rf"(?:{SUFFIX})(?=\.)")
_PARTS = re.compile(r"-([0-9]{5})-of-([0-9]{5})|-chunk-([0-9]{5})")
_CHUNK_LABEL = re.compile(r"chunk ([0-9]{1,5})")
_CHUNKS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_NUMBER = re.compile(r"[0-9]{1,9}")
_FRACTION_BITS = 53
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (from 0) of `count`; a count of 0 is a run without --shard, which owns everything.

    A chunk has the count CHUNKED: `chunks` is the number of chunks in its plan, and `holds` returns whether a document
    is in it.
    """

    index: int = 0
    count: int = 0
    chunks: int = field(default=0, compare=False)
    holds: Callable[[str], bool] = field(default=lambda _: False, compare=False, repr=False)

    @property
    def is_chunk(self) -> bool:
        """True for a chunk of a plan."""
        return self.count == CHUNKED

    @property
    def siblings(self) -> int:
        """The number of shards in its set, itself included; 0 for a run without --shard."""
        return self.chunks if self.is_chunk else self.count

    def owns(self, id: str) -> bool:
        """Return True when this shard owns the document; exactly one of its set does."""
        return self.holds(id) if self.is_chunk else owner(id, self.count) == self.index

    @property
    def suffix(self) -> str:
        """The suffix of names of output files: `-00003-of-00016`, `-chunk-00003`, or empty without --shard."""
        if self.is_chunk:
            return f"-chunk-{self.index:05d}"
        return f"-{self.index:05d}-of-{self.count:05d}" if self.count else ""

    @property
    def label(self) -> str | None:
        """The label in records and logs: `3/16`, `chunk 3`, or None without --shard."""
        if self.is_chunk:
            return f"chunk {self.index}"
        return f"{self.index}/{self.count}" if self.count else None


def shard_of_suffix(suffix: str | None) -> Shard:
    """Return the shard of a suffix; WHOLE for an empty one. A chunk is returned without its documents."""
    match = _PARTS.fullmatch(suffix or "")
    if match is None:
        return WHOLE
    index, count, chunk = match.groups()
    return Shard(int(chunk), CHUNKED) if chunk else Shard(int(index), int(count))


def by_chunk(items: Iterable[T], shard_of: Callable[[T], Shard]) -> dict[Shard, list[T]]:
    """Group items by chunk, in order; items without a chunk, shards included, are under WHOLE."""
    groups: dict[Shard, list[T]] = {WHOLE: []}
    for item in items:
        shard = shard_of(item)
        groups.setdefault(shard if shard.is_chunk else WHOLE, []).append(item)
    return groups


def shard_of_label(label: str | None, *, chunks: int = 0) -> Shard:
    """Return the shard of a label in a record or a summary; WHOLE for None. `chunks`: how many its plan had."""
    if (chunk := _CHUNK_LABEL.fullmatch(label or "")) is not None:
        return Shard(int(chunk[1]), CHUNKED, chunks)
    numbers = re.findall(r"\d+", label or "")
    return Shard(int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else WHOLE


def suffix_in(name: str) -> str:
    """Return the suffix of a shard in a file's name; empty for a name of a run without --shard."""
    match = _SUFFIX.search(name)
    return match[0] if match else ""


def owner(id: str, count: int) -> int:
    """Return the index of the shard, of `count`, that owns the document; 0 for a count of 0 or 1."""
    return int.from_bytes(_digest("shard", id), "big") % count if count > 1 else 0


WHOLE = Shard()
"""A run without --shard."""


def parse_shard(text: str) -> Shard:
    """Parse `I/N` with 0 <= I < N <= 99999; ConfigError for anything else."""
    match = _SHARD.fullmatch(text)
    index, count = (int(number) for number in match.groups()) if match else (0, 0)
    if index >= count:
        raise ConfigError(f"--shard: got {text!r}, need I/N with 0 <= I < N <= 99999, as in 3/16")
    return Shard(index, count)


def find_shard(flag: str | None, environ: Mapping[str, str]) -> tuple[Shard, str]:
    """Return the shard of this process and its source: the flag, else a scheduler's variables, else WHOLE and "".

    ConfigError for inconsistent variables: a wrong guess would leave documents without a shard.
    """
    if flag:
        return parse_shard(flag), "--shard"
    name = next((name for name in _SCHEDULERS if environ.get(name)), None)
    if name is not None:
        return _SCHEDULERS[name](environ, name)
    if environ.get(SHARDS):
        raise ConfigError(
            f"{SHARDS}: got {environ[SHARDS]!r}, but no variable gives the index of this one; "
            f"need one of {', '.join(_SCHEDULERS)}, or --shard I/N"
        )
    return WHOLE, ""


def _of_counted(environ: Mapping[str, str], name: str) -> tuple[Shard, str]:
    """Return the shard of a scheduler that numbers from 0; PIPELINE_SHARDS is the count."""
    return _checked(_number(environ, name), _number_in(environ, SHARDS, other_name=name), name=name, count_name=SHARDS)


def _of_slurm(environ: Mapping[str, str], name: str) -> tuple[Shard, str]:
    """Return the shard of a Slurm task, relative to the array's first task if the array has as many tasks as shards.

    In a smaller array, task numbers are shard numbers from 0: `--array=3,7` repeats two shards.
    """
    index = _number(environ, name)
    array = _slurm_array(environ)
    if environ.get(SHARDS):
        count = _number_in(environ, SHARDS, other_name=name)
        first = array.start if array is not None and len(array) == count else 0
        return _checked(index - first, count, name=name, count_name=SHARDS)
    if array is None:
        raise ConfigError(
            f"{name}: got task {index} of an array with gaps or unknown ends, which would divide the documents "
            f"differently; need --array=0-15 or the like, or {SHARDS} with the number of shards that there are"
        )
    return _checked(index - array.start, len(array), name=name, count_name="SLURM_ARRAY_TASK_MIN to _MAX")


def _slurm_array(environ: Mapping[str, str]) -> range | None:
    """Return the task numbers of the array; None when they have gaps, or the variables are not set."""
    ends = ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
    if not all(environ.get(end) for end in ends):
        return None
    low, high = (_number(environ, end) for end in ends)
    array = range(low, high + 1)
    if environ.get("SLURM_ARRAY_TASK_COUNT"):
        return array if _number(environ, "SLURM_ARRAY_TASK_COUNT") == len(array) else None
    return array if environ.get("SLURM_ARRAY_TASK_STEP") in (None, "", "1") else None


def _of_cloud_run(environ: Mapping[str, str], name: str) -> tuple[Shard, str]:
    """Return the shard of a Cloud Run task; PIPELINE_SHARDS must not differ from its own count."""
    count = _number_in(environ, "CLOUD_RUN_TASK_COUNT", other_name=name)
    if environ.get(SHARDS) and _number(environ, SHARDS) != count:
        raise ConfigError(f"{SHARDS}: got {environ[SHARDS]!r}, need {count} as CLOUD_RUN_TASK_COUNT says, or nothing")
    return _checked(_number(environ, name), count, name=name, count_name="CLOUD_RUN_TASK_COUNT")


def find_chunk(flag: int | None, environ: Mapping[str, str]) -> tuple[int | None, str]:
    """Return the index of this process's chunk and its source: the flag, else PIPELINE_CHUNKS; None and "" without.

    PIPELINE_CHUNKS is a number of chunks, or `FIRST-LAST`: the scheduler's index counts from the first of them.
    """
    if flag is not None:
        return flag, "--chunk"
    text = environ.get(CHUNKS)
    if not text:
        return None, ""
    match = _CHUNKS.fullmatch(text)
    first, last = _range(match) if match else (0, -1)
    if last < first:
        raise ConfigError(f"{CHUNKS}: got {text!r}, need a number of chunks, or FIRST-LAST as in 1000-1011")
    if environ.get(SHARDS):
        raise ConfigError(f"{CHUNKS}: got {text!r} beside {SHARDS} {environ[SHARDS]!r}, need only one of them")
    if not any(environ.get(name) for name in _SCHEDULERS):
        need = f"need one of {', '.join(_SCHEDULERS)}, or --chunk I"
        raise ConfigError(f"{CHUNKS}: got {text!r}, but no variable gives the index of this process; {need}")
    try:
        shard, source = find_shard(None, {**environ, SHARDS: str(last - first + 1)})
    except ConfigError as cause:
        raise ConfigError(str(cause).replace(SHARDS, CHUNKS)) from cause
    return first + shard.index, source.replace(SHARDS, CHUNKS)


def _range(match: re.Match[str]) -> tuple[int, int]:
    """Return the first and the last chunk."""
    number = int(match[1])
    return (0, number - 1) if match[2] is None else (number, int(match[2]))


_SCHEDULERS: Mapping[str, Callable[[Mapping[str, str], str], tuple[Shard, str]]] = {
    "JOB_COMPLETION_INDEX": _of_counted,
    "SLURM_ARRAY_TASK_ID": _of_slurm,
    "AWS_BATCH_JOB_ARRAY_INDEX": _of_counted,
    "CLOUD_RUN_TASK_INDEX": _of_cloud_run,
}
"""The variables with the index of the shard, in order of precedence, and the functions that read them."""


def _checked(index: int, count: int, *, name: str, count_name: str) -> tuple[Shard, str]:
    if not 0 <= index < count <= MAX_SHARDS:
        raise ConfigError(
            f"{name}: got shard {index} of {count} ({count_name}), need 0 <= shard < number of shards <= {MAX_SHARDS}"
        )
    return Shard(index, count), f"{name} and {count_name}"


def _number_in(environ: Mapping[str, str], name: str, *, other_name: str) -> int:
    if not environ.get(name):
        raise ConfigError(f"{name}: not set beside {other_name}, need the number of shards that there are")
    return _number(environ, name)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise ConfigError(f"{name}: got {text!r}, need a whole number of 0 or more")
    return int(text)


def hash_fraction(purpose: str, id: str) -> float:
    """Return a number in [0, 1) that depends on the purpose and the id only; two purposes are independent."""
    number = int.from_bytes(_digest(purpose, id)[:8], "big") >> (64 - _FRACTION_BITS)
    return number / float(1 << _FRACTION_BITS)


def _digest(purpose: str, id: str) -> bytes:
    return hashlib.sha256(f"{purpose}\0{id}".encode("utf-8", "surrogatepass")).digest()

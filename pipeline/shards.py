"""Shards: which of N machines a document belongs to, decided by its id alone, and which of the N this process is.

Nothing here looks at a listing's order, at how many documents there are, or at what other shards do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.errors import ConfigError

SHARDS = "PIPELINE_SHARDS"
MAX_SHARDS = 99_999

_SHARD = re.compile(r"([0-9]{1,5})/([0-9]{1,5})")
_NUMBER = re.compile(r"[0-9]{1,9}")
_FRACTION_BITS = 53


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (from 0) of `count`; a count of 0 is a run without --shard, which owns everything."""

    index: int = 0
    count: int = 0

    def owns(self, id: str) -> bool:
        """True when the document with this id is this shard's; exactly one of `count` shards owns it."""
        return owner(id, self.count) == self.index

    @property
    def suffix(self) -> str:
        """What the names of output files carry: `-00003-of-00016`, or nothing without --shard."""
        return f"-{self.index:05d}-of-{self.count:05d}" if self.count else ""

    @property
    def label(self) -> str | None:
        """What records and logs say: `3/16`, or None without --shard."""
        return f"{self.index}/{self.count}" if self.count else None


def owner(id: str, count: int) -> int:
    """The index of the shard, of `count`, whose document this is; 0 when there is one or none."""
    return int.from_bytes(_digest("shard", id), "big") % count if count > 1 else 0


WHOLE = Shard()
"""A run without --shard."""


def parse_shard(text: str) -> Shard:
    """The shard of `I/N`, 0 <= I < N <= 99999; anything else is a ConfigError."""
    match = _SHARD.fullmatch(text)
    index, count = (int(number) for number in match.groups()) if match else (0, 0)
    if index >= count:
        raise ConfigError(f"--shard: got {text!r}, need I/N with 0 <= I < N <= 99999, as in 3/16")
    return Shard(index, count)


def find_shard(flag: str | None, environ: Mapping[str, str]) -> tuple[Shard, str]:
    """This process's shard and what says so: the flag, else the scheduler's variables, else ("", the whole).

    A ConfigError for variables that do not go together: a wrong guess would leave documents to nobody.
    """
    if flag:
        return parse_shard(flag), "--shard"
    name = next((name for name in _SCHEDULERS if environ.get(name)), None)
    if name is not None:
        return _SCHEDULERS[name](environ, name)
    if environ.get(SHARDS):
        raise ConfigError(
            f"{SHARDS}: got {environ[SHARDS]!r}, but nothing says which of them this is; "
            f"need one of {', '.join(_SCHEDULERS)}, or --shard I/N"
        )
    return WHOLE, ""


def _of_counted(environ: Mapping[str, str], name: str) -> tuple[Shard, str]:
    """The shard of a scheduler that numbers from 0 and leaves it to PIPELINE_SHARDS how many there are."""
    return _checked(_number(environ, name), _count(environ, SHARDS, beside=name), name=name, count_name=SHARDS)


def _of_slurm(environ: Mapping[str, str], name: str) -> tuple[Shard, str]:
    """The shard of a Slurm task: counted from the array's first task when the array is as large as the shards are many.

    A smaller array names shards by their own numbers, from 0: `--array=3,7` does two of them again.
    """
    index, array = _number(environ, name), _slurm_array(environ)
    if environ.get(SHARDS):
        count = _count(environ, SHARDS, beside=name)
        first = array.start if array is not None and len(array) == count else 0
        return _checked(index - first, count, name=name, count_name=SHARDS)
    if array is None:
        raise ConfigError(
            f"{name}: got task {index} of an array with gaps or unknown ends, which would divide the documents anew; "
            f"need --array=0-15 or the like, or {SHARDS} with the number of shards that there are"
        )
    return _checked(index - array.start, len(array), name=name, count_name="SLURM_ARRAY_TASK_MIN to _MAX")


def _slurm_array(environ: Mapping[str, str]) -> range | None:
    """The numbers of the array's tasks; None when they have gaps, or Slurm does not say."""
    ends = ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
    if not all(environ.get(end) for end in ends):
        return None
    low, high = (_number(environ, end) for end in ends)
    array = range(low, high + 1)
    if environ.get("SLURM_ARRAY_TASK_COUNT"):
        return array if _number(environ, "SLURM_ARRAY_TASK_COUNT") == len(array) else None
    return array if environ.get("SLURM_ARRAY_TASK_STEP") in (None, "", "1") else None


def _of_cloud_run(environ: Mapping[str, str], name: str) -> tuple[Shard, str]:
    """The shard of a Cloud Run task, which is told how many there are; PIPELINE_SHARDS may not say otherwise."""
    count = _count(environ, "CLOUD_RUN_TASK_COUNT", beside=name)
    if environ.get(SHARDS) and _number(environ, SHARDS) != count:
        raise ConfigError(f"{SHARDS}: got {environ[SHARDS]!r}, need {count} as CLOUD_RUN_TASK_COUNT says, or nothing")
    return _checked(_number(environ, name), count, name=name, count_name="CLOUD_RUN_TASK_COUNT")


_SCHEDULERS: Mapping[str, Callable[[Mapping[str, str], str], tuple[Shard, str]]] = {
    "JOB_COMPLETION_INDEX": _of_counted,
    "SLURM_ARRAY_TASK_ID": _of_slurm,
    "AWS_BATCH_JOB_ARRAY_INDEX": _of_counted,
    "CLOUD_RUN_TASK_INDEX": _of_cloud_run,
}
"""The variable that says which shard this is, in the order in which they are looked for, and how it is read."""


def _checked(index: int, count: int, *, name: str, count_name: str) -> tuple[Shard, str]:
    if not 0 <= index < count <= MAX_SHARDS:
        raise ConfigError(
            f"{name}: got shard {index} of {count} ({count_name}), need 0 <= shard < number of shards <= {MAX_SHARDS}"
        )
    return Shard(index, count), f"{name} and {count_name}"


def _count(environ: Mapping[str, str], name: str, *, beside: str) -> int:
    if not environ.get(name):
        raise ConfigError(f"{name}: not set beside {beside}, need the number of shards that there are")
    return _number(environ, name)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise ConfigError(f"{name}: got {text!r}, need a whole number of 0 or more")
    return int(text)


def hash_fraction(purpose: str, id: str) -> float:
    """A number in [0, 1) that depends on the purpose and the id only; two purposes are independent."""
    number = int.from_bytes(_digest(purpose, id)[:8], "big") >> (64 - _FRACTION_BITS)
    return number / float(1 << _FRACTION_BITS)


def _digest(purpose: str, id: str) -> bytes:
    return hashlib.sha256(f"{purpose}\0{id}".encode("utf-8", "surrogatepass")).digest()

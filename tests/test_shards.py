"""Shards: parsing, ownership, and the hashes behind choices."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.shards import (
    CHUNKED,
    WHOLE,
    Shard,
    find_chunk,
    find_shard,
    hash_fraction,
    parse_shard,
    shard_of_label,
    shard_of_suffix,
    suffix_in,
)


def test_shard_is_parsed_from_its_flag() -> None:
    """I/N gives the index and the count."""
    assert parse_shard("3/16") == Shard(3, 16)


@pytest.mark.parametrize("text", ["", "3", "16/16", "-1/4", "1/0", "0/0", "1/2/3", " 1/2", "a/b", "٣/٤", "0/100000"])
def test_invalid_shard_is_refused(text: str) -> None:
    """Only 0 <= I < N is accepted, and the configuration error shows the value."""
    with pytest.raises(ConfigError, match="--shard"):
        parse_shard(text)


def test_shard_suffix_has_five_digits() -> None:
    """It has the contract's form, even for a single shard."""
    assert Shard(3, 16).suffix == "-00003-of-00016"
    assert Shard(0, 1).suffix == "-00000-of-00001"
    assert (WHOLE.suffix, WHOLE.label, Shard(3, 16).label) == ("", None, "3/16")


@given(st.text(), st.integers(1, 50))
def test_each_id_has_exactly_one_owner(id: str, count: int) -> None:
    """This holds for any id and any number of shards; a run without --shard owns all."""
    assert [Shard(index, count).owns(id) for index in range(count)].count(True) == 1
    assert WHOLE.owns(id)


def test_ownership_is_the_same_in_every_version() -> None:
    """The expected shards are fixed in the test."""
    assert [id for id in ("a.txt", "b.txt", "c.txt", "d.txt") if Shard(0, 2).owns(id)] == ["b.txt", "d.txt"]


@given(st.text(), st.text())
def test_fraction_is_between_0_and_1(purpose: str, id: str) -> None:
    """It is at least 0 and below 1."""
    assert 0.0 <= hash_fraction(purpose, id) < 1.0


def test_choices_of_two_purposes_are_independent() -> None:
    """One purpose selects half of what another one selects."""
    chosen = [f"{n}.txt" for n in range(4000) if hash_fraction("sample", f"{n}.txt") < 0.5]
    both = sum(hash_fraction("variant", id) < 0.5 for id in chosen)
    assert 1850 < len(chosen) < 2150
    assert 0.45 < both / len(chosen) < 0.55


def slurm(task: int, low: int, high: int, count: int | None = None, **more: str) -> dict[str, str]:
    """Return the variables that Slurm sets for a task of an array, and more."""
    array = {"ID": task, "MIN": low, "MAX": high, **({} if count is None else {"COUNT": count})}
    return {**{f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}, **more}


@pytest.mark.parametrize(
    ("environ", "shard"),
    [
        ({}, WHOLE),
        ({"JOB_COMPLETION_INDEX": "0", "PIPELINE_SHARDS": "1"}, Shard(0, 1)),
        ({"JOB_COMPLETION_INDEX": "15", "PIPELINE_SHARDS": "16"}, Shard(15, 16)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "3", "PIPELINE_SHARDS": "4"}, Shard(3, 4)),
        ({"CLOUD_RUN_TASK_INDEX": "2", "CLOUD_RUN_TASK_COUNT": "3"}, Shard(2, 3)),
        ({"CLOUD_RUN_TASK_INDEX": "2", "CLOUD_RUN_TASK_COUNT": "3", "PIPELINE_SHARDS": "3"}, Shard(2, 3)),
        (slurm(5, 0, 15, 16), Shard(5, 16)),
        (slurm(1, 1, 16, 16), Shard(0, 16)),
        (slurm(16, 1, 16), Shard(15, 16)),
        (slurm(16, 1, 16, SLURM_ARRAY_TASK_STEP="1"), Shard(15, 16)),
        (slurm(16, 1, 16, 16, PIPELINE_SHARDS="16"), Shard(15, 16)),
        (slurm(7, 3, 7, 2, PIPELINE_SHARDS="16"), Shard(7, 16)),
        (slurm(3, 3, 3, 1, PIPELINE_SHARDS="16"), Shard(3, 16)),
        ({"SLURM_ARRAY_TASK_ID": "3", "PIPELINE_SHARDS": "4"}, Shard(3, 4)),
        ({"JOB_COMPLETION_INDEX": "", "PIPELINE_SHARDS": "", "SLURM_ARRAY_TASK_ID": ""}, WHOLE),
    ],
)
def test_shard_is_read_from_scheduler_variables(environ: Mapping[str, str], shard: Shard) -> None:
    """Each scheduler has its own variables; an empty variable counts as unset."""
    assert find_shard(None, environ)[0] == shard


def test_innermost_scheduler_takes_precedence() -> None:
    """Slurm or Batch may start a Kubernetes pod."""
    environ = {"PIPELINE_SHARDS": "9", "CLOUD_RUN_TASK_INDEX": "4", "CLOUD_RUN_TASK_COUNT": "9"}
    collected = []
    for index, name in enumerate(("AWS_BATCH_JOB_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")):
        environ[name] = str(index)
        collected.append(find_shard(None, environ))
    assert collected == [
        (Shard(0, 9), "AWS_BATCH_JOB_ARRAY_INDEX and PIPELINE_SHARDS"),
        (Shard(1, 9), "SLURM_ARRAY_TASK_ID and PIPELINE_SHARDS"),
        (Shard(2, 9), "JOB_COMPLETION_INDEX and PIPELINE_SHARDS"),
    ]


def test_shard_flag_overrides_the_environment() -> None:
    """It does so even over invalid variables."""
    assert find_shard("1/2", {"JOB_COMPLETION_INDEX": "x"}) == (Shard(1, 2), "--shard")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PIPELINE_SHARDS": "4"}, "PIPELINE_SHARDS: got '4', but no variable gives the index"),
        ({"JOB_COMPLETION_INDEX": "0"}, "PIPELINE_SHARDS: not set beside JOB_COMPLETION_INDEX"),
        ({"JOB_COMPLETION_INDEX": "4", "PIPELINE_SHARDS": "4"}, "JOB_COMPLETION_INDEX: got shard 4 of 4"),
        ({"JOB_COMPLETION_INDEX": "one", "PIPELINE_SHARDS": "4"}, "JOB_COMPLETION_INDEX: got 'one'"),
        ({"JOB_COMPLETION_INDEX": "-1", "PIPELINE_SHARDS": "4"}, "JOB_COMPLETION_INDEX: got '-1'"),
        ({"JOB_COMPLETION_INDEX": "0", "PIPELINE_SHARDS": "four"}, "PIPELINE_SHARDS: got 'four'"),
        ({"JOB_COMPLETION_INDEX": "0", "PIPELINE_SHARDS": "0"}, "shard 0 of 0"),
        ({"JOB_COMPLETION_INDEX": "0", "PIPELINE_SHARDS": "100000"}, "<= 99999"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, "PIPELINE_SHARDS: not set beside AWS_BATCH_JOB_ARRAY_INDEX"),
        ({"CLOUD_RUN_TASK_INDEX": "0"}, "CLOUD_RUN_TASK_COUNT: not set"),
        ({"CLOUD_RUN_TASK_INDEX": "3", "CLOUD_RUN_TASK_COUNT": "3"}, "CLOUD_RUN_TASK_INDEX: got shard 3 of 3"),
        (
            {"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "3", "PIPELINE_SHARDS": "4"},
            "PIPELINE_SHARDS: got '4', need 3",
        ),
        ({"SLURM_ARRAY_TASK_ID": "0"}, "SLURM_ARRAY_TASK_ID: got task 0 of an array with gaps or unknown ends"),
        (slurm(3, 3, 7, 2), "SLURM_ARRAY_TASK_ID: got task 3 of an array with gaps"),
        (slurm(4, 0, 12, SLURM_ARRAY_TASK_STEP="4"), "SLURM_ARRAY_TASK_ID: got task 4 of an array with gaps"),
        (slurm(9, 0, 7, 8), "SLURM_ARRAY_TASK_ID: got shard 9 of 8"),
        (slurm(0, 7, 0), "need 0 <= shard"),
        (slurm(16, 3, 16, 2, PIPELINE_SHARDS="16"), "SLURM_ARRAY_TASK_ID: got shard 16 of 16"),
    ],
)
def test_inconsistent_scheduler_variables_are_refused(environ: Mapping[str, str], message: str) -> None:
    """The message contains the variable, the value and the need; a wrong guess would skip documents."""
    with pytest.raises(ConfigError) as error:
        find_shard(None, environ)
    assert message in str(error.value)
    assert "need" in str(error.value)


@given(st.integers(0, 5), st.integers(1, 40))
def test_array_tasks_map_to_shards(low: int, count: int) -> None:
    """The array may start anywhere, but must have no gaps."""
    tasks = range(low, low + count)
    result = [find_shard(None, slurm(task, low, low + count - 1, count))[0] for task in tasks]
    assert result == [Shard(index, count) for index in range(count)]


@pytest.mark.parametrize(
    ("flag", "env", "chunk"),
    [
        (None, {}, None),
        (7, {"PIPELINE_CHUNKS": "3", "JOB_COMPLETION_INDEX": "1"}, 7),
        (None, {"PIPELINE_CHUNKS": "3", "JOB_COMPLETION_INDEX": "1"}, 1),
        (None, {"PIPELINE_CHUNKS": "1000-1011", "JOB_COMPLETION_INDEX": "11"}, 1011),
        (None, {"PIPELINE_CHUNKS": "1000-1011", "AWS_BATCH_JOB_ARRAY_INDEX": "0"}, 1000),
        (None, {"PIPELINE_CHUNKS": "4", "CLOUD_RUN_TASK_INDEX": "3", "CLOUD_RUN_TASK_COUNT": "4"}, 3),
        (None, {"PIPELINE_CHUNKS": "9", "SLURM_ARRAY_TASK_ID": "7"}, 7),
        (None, {"JOB_COMPLETION_INDEX": "1", "PIPELINE_SHARDS": "3"}, None),
    ],
)
def test_chunk_comes_from_flag_or_variables(flag: int | None, env: dict[str, str], chunk: int | None) -> None:
    """The flag takes precedence, and an index counts from the first chunk of the job."""
    assert find_chunk(flag, env)[0] == chunk


@pytest.mark.parametrize(
    "env",
    [
        {"PIPELINE_CHUNKS": "0", "JOB_COMPLETION_INDEX": "0"},
        {"PIPELINE_CHUNKS": "5-4", "JOB_COMPLETION_INDEX": "0"},
        {"PIPELINE_CHUNKS": "many", "JOB_COMPLETION_INDEX": "0"},
        {"PIPELINE_CHUNKS": "3"},
        {"PIPELINE_CHUNKS": "3", "JOB_COMPLETION_INDEX": "3"},
        {"PIPELINE_CHUNKS": "3", "JOB_COMPLETION_INDEX": "1", "PIPELINE_SHARDS": "3"},
        {"PIPELINE_CHUNKS": "3", "CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "4"},
    ],
)
def test_invalid_chunk_variables_are_refused(env: dict[str, str]) -> None:
    """A wrong guess would leave documents without a chunk."""
    with pytest.raises(ConfigError, match="PIPELINE_CHUNKS"):
        find_chunk(None, env)


def test_names_and_labels_of_shards_and_chunks_are_read_back() -> None:
    """Chunks of one output are siblings, whatever their number."""
    for shard in (WHOLE, Shard(3, 16), Shard(12, CHUNKED)):
        assert shard_of_suffix(shard.suffix) == shard
        assert shard_of_label(shard.label) == shard
        assert suffix_in(f"results{shard.suffix}.jsonl") == shard.suffix
    assert Shard(3, CHUNKED, 10) == Shard(3, CHUNKED, 12)

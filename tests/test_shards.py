"""Shards: parsing, ownership, and the hashes behind choices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.shards import WHOLE, Shard, hash_fraction, parse_shard


def test_a_shard_is_read_from_its_flag() -> None:
    """I/N gives the index and the count."""
    assert parse_shard("3/16") == Shard(3, 16)


@pytest.mark.parametrize("text", ["", "3", "16/16", "-1/4", "1/0", "0/0", "1/2/3", " 1/2", "a/b", "٣/٤", "0/100000"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    """Anything but 0 <= I < N is a configuration error that shows the value."""
    with pytest.raises(ConfigError, match="--shard"):
        parse_shard(text)


def test_names_carry_five_digits() -> None:
    """The suffix of output files has the contract's form, also for the only shard of one."""
    assert Shard(3, 16).suffix == "-00003-of-00016"
    assert Shard(0, 1).suffix == "-00000-of-00001"
    assert (WHOLE.suffix, WHOLE.label, Shard(3, 16).label) == ("", None, "3/16")


@given(st.text(), st.integers(1, 50))
def test_each_id_has_one_owner(id: str, count: int) -> None:
    """Exactly one of N shards owns an id, whatever it says; a run without --shard owns all."""
    assert [Shard(index, count).owns(id) for index in range(count)].count(True) == 1
    assert WHOLE.owns(id)


def test_ownership_never_changes() -> None:
    """The same id goes to the same shard in every version of the program."""
    assert [id for id in ("a.txt", "b.txt", "c.txt", "d.txt") if Shard(0, 2).owns(id)] == ["b.txt", "d.txt"]


@given(st.text(), st.text())
def test_a_fraction_lies_in_its_range(purpose: str, id: str) -> None:
    """The fraction is at least 0 and below 1."""
    assert 0.0 <= hash_fraction(purpose, id) < 1.0


def test_two_purposes_are_independent() -> None:
    """Half of what one purpose chooses is chosen by another."""
    chosen = [f"{n}.txt" for n in range(4000) if hash_fraction("sample", f"{n}.txt") < 0.5]
    both = sum(hash_fraction("variant", id) < 0.5 for id in chosen)
    assert 1850 < len(chosen) < 2150
    assert 0.45 < both / len(chosen) < 0.55

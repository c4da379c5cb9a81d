"""Inserts of the index that wait to share a statement, and the filter of ids: no query may miss a row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.output.index_database import IdFilter, IndexDatabase

TABLE = ("PRAGMA journal_mode=OFF", "CREATE TABLE met (id TEXT PRIMARY KEY, run INTEGER)")


@pytest.fixture
def database() -> Iterator[IndexDatabase]:
    """Yield a database with a table whose later rows win."""
    database = IndexDatabase(TABLE)
    database.delay_inserts("met", "INSERT INTO met", "(?,?)", "ON CONFLICT (id) DO UPDATE SET run = excluded.run")
    yield database
    database.close()


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_query_sees_all_rows_that_wait(database: IndexDatabase, count: int) -> None:
    """Rows that fill a statement, and those that do not, are there for the next query."""
    for number in range(count):
        database.insert_later("met", f"{number}", number)
    assert database.rows("SELECT count(*), sum(run) FROM met") == [(count, sum(range(count)))]


def test_later_row_of_one_statement_wins(database: IndexDatabase) -> None:
    """An id that is inserted twice in one statement has its last row."""
    for number in range(64):
        database.insert_later("met", "a", number)
    assert database.rows("SELECT * FROM met") == [("a", 63)]


def test_query_of_another_table_lets_rows_wait(database: IndexDatabase) -> None:
    """Only queries of the table itself write its rows, in one of the two ways of asking."""
    database.insert_later("met", "a", 1)
    assert database.rows_of([], "SELECT count(*) FROM met") == [(0,)]
    assert database.rows_of(["met"], "SELECT count(*) FROM met") == [(1,)]


@given(st.lists(st.text(max_size=4)), st.lists(st.text(max_size=4)))
def test_filter_knows_every_id_that_was_added(added: list[str], asked: list[str]) -> None:
    """An id that was added is never denied, and an empty filter denies all."""
    ids = IdFilter()
    assert not any(map(ids.may_hold, asked))
    for id in added:
        ids.add(id)
    assert all(map(ids.may_hold, added))
    assert all(map(ids.add, added))

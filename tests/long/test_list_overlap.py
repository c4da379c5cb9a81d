"""Rows without quotes in the overlap of two windows are kept once, even if a window cuts one of them."""

from __future__ import annotations

import pytest

from pipeline.long.list_overlap import ListItems, shared_size
from pipeline.long.windows import Span

ROW = "A fee of 6.00 EUR is borne by Brandt 001."
OTHER = "A fee of 7.00 EUR is borne by Cole 002."
FILLER = "Nobody counted what was left on the quay. "


def size(text: str, before: Span, after: Span, *rows: list[str]) -> int:
    """Return the number of repeated rows; a row is its sentence."""
    lists = [
        ListItems(item, [{"payer": row[-11:-1].split("by ")[-1], "amount": float(row[9])} for row in item])
        for item in rows
    ]
    return shared_size(lists[0], lists[1], spans=(before, after), text=text)


@pytest.mark.parametrize(
    "cut", ["A fee of 6.00 EUR is borne ", "A fee of 6.00 EUR is borne by\f", "A fee of 6.00\f", "A fee of "]
)
def test_row_cut_by_the_later_window_is_not_repeated(cut: str) -> None:
    """The later window begins within it, and has an equal row after the shared text."""
    text = f"{FILLER}{cut}{ROW[len(cut) :]} {FILLER}{FILLER}{ROW} {FILLER}"
    start = text.index(cut) + len(cut)
    end = text.index(ROW, start)
    assert size(text, Span(0, end), Span(start, len(text)), [ROW], [ROW]) == 0


def test_row_cut_by_the_earlier_window_is_not_repeated() -> None:
    """The earlier window ends within it, after the words that identify it."""
    row = "Brandt 001 bears a fee of 6.00 EUR in all of these cases."
    text = f"{FILLER}{row} {FILLER}{FILLER}{row} {FILLER}"
    start = text.index(row) + len(row) + 1
    end = text.index(row, start) + len("Brandt 001 bears a ")
    lists = [ListItems([row], [{"payer": "Brandt 001", "amount": 6.0}])] * 2
    assert shared_size(*lists, spans=(Span(0, end), Span(start, len(text))), text=text) == 0


def test_equal_rows_in_the_shared_text_are_repetitions() -> None:
    """Their number is that of the shared text, even if a cut row precedes them."""
    text = f"{FILLER}{ROW} {ROW} {ROW} {FILLER}{OTHER} {FILLER}"
    middle = text.index(ROW) + 27
    end = text.index(OTHER)
    assert size(text, Span(0, end), Span(middle, len(text)), [ROW, ROW, ROW], [ROW, ROW, OTHER]) == 2
    start = text.index(ROW)
    assert size(text, Span(0, end), Span(start, len(text)), [ROW, ROW, ROW], [ROW, ROW, ROW, OTHER]) == 3


@pytest.mark.parametrize("rows", [1, 4])
def test_mention_outside_a_row_is_not_taken_for_a_cut_row(rows: int) -> None:
    """The names of the table rows also occur in the running text."""
    names = ["Brandt 001", "Cole 002", "Ames 000", "Duarte 003"][:rows]
    table = "".join(f"{name}\t{number}.00\tcosts of the bank\n" for number, name in enumerate(names, start=5))
    text = f"Payer\tFee\tFor\nSato 009\t1.00\tcosts\n{table}\n{FILLER}{' and '.join(names)} agree. {FILLER}"
    start = text.index(table)
    end = start + len(table)
    values = [{"payer": name, "amount": float(number)} for number, name in enumerate(names, start=5)]
    listed = ListItems(names, values)
    before = ListItems(["Sato 009", *names], [{"payer": "Sato 009", "amount": 1.0}, *values])
    assert shared_size(before, listed, spans=(Span(0, end), Span(start, len(text))), text=text) == rows


@pytest.mark.parametrize("middle", ["is\fborne", "is borne\f", "is bor-\nne"])
def test_rows_that_page_ends_cut_at_both_ends_of_the_shared_text_are_two(middle: str) -> None:
    """The later window shows all values of the first row, but gives only the second one, which the earlier cuts."""
    first = "A\ffee of 7.00 EUR is borne by Cole 002."
    second = f"A fee of 7.00 EUR {middle} by Cole 002."
    text = f"{FILLER}{first} {FILLER}{FILLER}{second} {FILLER}"
    start = text.index(first) + len("A\f")
    end = text.index(second) + second.index(" by")
    assert size(text, Span(0, end), Span(start, len(text)), [OTHER], [OTHER]) == 0


def test_amount_within_a_number_of_the_running_text_is_no_row() -> None:
    """The table row is repeated: "005" and "and" in a sentence name no fee of 5.00."""
    row = "Brandt 005\t5.00\tcosts of the bank\n"
    text = f"Payer\tFee\tFor\n{row}{FILLER}So Brandt 005 and Brandt 001 agree. {FILLER}"
    start = text.index(row)
    end = text.index(FILLER)
    listed = ListItems([row], [{"payer": "Brandt 005", "amount": 5.0}])
    assert shared_size(listed, listed, spans=(Span(0, end), Span(start, len(text))), text=text) == 1


@pytest.mark.parametrize("given", [True, False])
def test_sentence_with_the_name_of_a_row_is_no_repetition_of_it(given: bool) -> None:
    """Equal rows before and after the shared text, which names their payer in a sentence; or also gives a third one."""
    row = "Brandt 001\t6.00\tcosts of the bank\n"
    shared = f"{FILLER}So Brandt 001 agrees. \n\n{row if given else ''}"
    text = f"{row}{FILLER}\n\n{shared}{row}\n{FILLER}"
    start = text.index(shared)
    listed = ListItems([row] * (1 + given), [{"payer": "Brandt 001", "amount": 6.0}] * (1 + given))
    assert shared_size(listed, listed, spans=(Span(0, start + len(shared)), Span(start, len(text))), text=text) == given

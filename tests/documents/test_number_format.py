"""Numbers of a workbook: dates in ISO 8601, others as their cell shows them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.documents.office.number_format import BUILT_IN, general_format, shown_number


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (0.125, "0.0%", "12.5%"),
        (0.285, "0.00", "0.29"),
        (1234.5, "#,##0.00", "1,234.50"),
        (-1234.5, "#,##0.00;(#,##0.00)", "(1,234.50)"),
        (1234.5, '"€"#,##0.00', "€1,234.50"),
        (-1234.5, "#,##0.00\\ [$€-407]", "-1,234.50 €"),
        (1234, '_-* #,##0.00\\ "kr"_-;\\-* #,##0.00\\ "kr"_-', "1,234.00 kr"),
        (1_500_000, '0.0,,"M"', "1.5M"),
        (5, '[>=1000000]0.0,,"M";[>=1000]0.0,"K";0', "5"),
        (5000, '[>=1000000]0.0,,"M";[>=1000]0.0,"K";0', "5.0K"),
        (123456789, "000\\-00\\-0000", "123-45-6789"),
        (42, "00000", "00042"),
        (1.5, "0.##", "1.5"),
        (1, "0.##", "1"),
        (12345, "0.00E+00", "1.23E+04"),
        (1.25, "# ?/?", "1.25"),
        (-0.001, "0.00", "0.00"),
        (0, '0;-0;"none"', "none"),
        (1, '"yes";;"no"', "yes"),
        (3, ";;;", "3"),
        (7, "@", "7"),
        (7, "[Red]0;[Blue]-0", "7"),
        (45989, "d. mmmm yyyy", "2025-11-28"),
        (45989.75, "m/d/yy h:mm AM/PM", "2025-11-28 18:00"),
        (45989, "[$-F800]dddd\\,\\ mmmm\\ dd\\,\\ yyyy", "2025-11-28"),
        (45989, "mmm-yy", "2025-11"),
        (45989, "yyyy", "2025"),
        (0.75, "h:mm", "18:00"),
        (0.5 + 1 / 86400, "h:mm:ss", "12:00:01"),
        (1.5, "[h]:mm:ss", "36:00:00"),
        (-0.5, "[h]:mm", "-12:00"),
        (59, "yyyy-mm-dd", "1900-02-28"),
        (61, "yyyy-mm-dd", "1900-03-01"),
        (-1, "yyyy-mm-dd", "-1"),
        (1e9, "yyyy-mm-dd", "1000000000"),
        (0.1 + 0.2, "General", "0.3"),
        (1e-7, "General", "0.0000001"),
        (12345678901234, "General", "12345678901234"),
        (1e300, "0.00", "1e+300"),
        (1.2345678e142, "0.00000000E+00", "1.23456780E+142"),
    ],
)
def test_number_is_shown_by_its_format(value: float, code: str, text: str) -> None:
    """Cases are decimals, percent, currencies, signs, conditions, literal texts, dates and durations."""
    assert shown_number(value, code) == text


def test_dates_of_the_1904_epoch() -> None:
    """Workbooks of old Macs count from 1904."""
    assert shown_number(0, "yyyy-mm-dd", from_1904=True) == "1904-01-01"


_SETTINGS = settings(deadline=None, max_examples=100)


@_SETTINGS
@given(st.datetimes(datetime(1900, 3, 1), datetime(9999, 12, 30)))
def test_every_second_is_shown_exactly(moment: datetime) -> None:
    """The number has it as a fraction of a day."""
    moment = moment.replace(microsecond=0)
    value = (moment - datetime(1899, 12, 30)) / timedelta(days=1)
    assert shown_number(value, "yyyy-mm-dd hh:mm:ss") == moment.isoformat(" ")


@_SETTINGS
@given(st.floats(-1e300, 1e300))
def test_number_without_a_format_keeps_its_digits(value: float) -> None:
    """All digits of the workbook are kept."""
    assert float(general_format(value)) == pytest.approx(value, rel=1e-14)


@_SETTINGS
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.one_of(
        st.sampled_from(list(BUILT_IN.values())), st.text('0#?.,%eE+-/\\"_*[]$<>=;@ ymdhsAPGeneral', max_size=20)
    ),
)
@example(2.1e303, "[h]:mm:ss")
def test_any_format_gives_a_text(value: float, code: str) -> None:
    """No value is lost, and no format raises."""
    assert shown_number(value, code) or not code.strip("; ")

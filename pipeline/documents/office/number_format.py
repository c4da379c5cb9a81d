"""Numbers of a workbook as text: dates in ISO 8601, other numbers as their cell shows them.

Format: ECMA-376 part 1, 18.8.30 and 18.8.31. A number that its format hides, such as `;;;`, is shown as it is stored.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import lru_cache

_OF_WESTERN = (
    *((0, "General"), (1, "0"), (2, "0.00"), (3, "#,##0"), (4, "#,##0.00"), (9, "0%"), (10, "0.00%")),
    *((11, "0.00E+00"), (14, "yyyy-mm-dd"), (15, "yyyy-mm-dd"), (16, "d-mmm"), (17, "mmm-yy"), (18, "h:mm")),
    *((19, "h:mm:ss"), (20, "h:mm"), (21, "h:mm:ss"), (22, "yyyy-mm-dd h:mm"), (37, "#,##0;(#,##0)")),
    *((38, "#,##0;(#,##0)"), (39, "#,##0.00;(#,##0.00)"), (40, "#,##0.00;(#,##0.00)"), (41, "#,##0;(#,##0)")),
    *((42, "#,##0;(#,##0)"), (43, "#,##0.00;(#,##0.00)"), (44, "#,##0.00;(#,##0.00)"), (45, "mm:ss")),
    *((46, "[h]:mm:ss"), (47, "mm:ss.0"), (48, "##0.0E+0"), (49, "@")),
)
_OF_EAST_ASIAN = (
    *((27, "yyyy-mm"), (28, "yyyy-mm-dd"), (29, "yyyy-mm-dd"), (30, "yyyy-mm-dd"), (31, "yyyy-mm-dd"), (32, "h:mm")),
    *((33, "h:mm:ss"), (34, "h:mm"), (35, "h:mm:ss"), (36, "yyyy-mm"), (50, "yyyy-mm"), (51, "yyyy-mm-dd")),
    *((52, "yyyy-mm"), (53, "yyyy-mm-dd"), (54, "yyyy-mm-dd"), (55, "h:mm"), (56, "h:mm:ss"), (57, "yyyy-mm")),
    *((58, "yyyy-mm-dd"),),
)
BUILT_IN: Mapping[int, str] = dict((*_OF_WESTERN, *_OF_EAST_ASIAN))
"""The built-in formats by number; a workbook contains only their numbers."""

_TOKEN = re.compile(
    r""""(?P<quoted>[^"]*)"?|\\(?P<escaped>.)|[_*].|\[\$(?P<symbol>[^\]-]*)[^\]]*\]|\[[^\]]*\]"""
    r"""|(?P<exponent>[eE][+-][0#?]+)|(?P<digits>[0#?][0#?,]*(?:\.[0#?]*)?,*|\.[0#?]+)|(?P<other>.)""",
    re.DOTALL,
)
_SECTIONS = re.compile(r'(?:"[^"]*"?|\\.|\[[^\]]*\]|[^;"\\])*')
_ELAPSED = re.compile(r"\[(h+|m+|s+)\]", re.I)
_NO_DATE = re.compile(r'"[^"]*"?|\\.|[_*].|\[[^\]]*\]|E[+-]|General', re.I)
_DATE_CODE = re.compile(r"AM/PM|A/P|y+|m+|d+|h+|s+(?:\.0+)?|e+|g+|a{3,}", re.I)
_CONDITION = re.compile(r"\[(<=|>=|<|>|=) ?(-?[0-9]{1,20}(?:\.[0-9]{1,20})?)\]")
_COMPARED: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}
_WHOLE = 1e21
"""Numbers of this size and above are shown with an exponent."""
_EXACT = 15
"""Significant digits that a workbook keeps."""
_MAX_FORMAT_CHARS = 255
_LAST_DAY = 2_958_466


@dataclass(frozen=True, slots=True)
class _Shown:
    """A section of a format: the text before, between and after its groups of digits, and the code of each group."""

    texts: tuple[str, ...]
    groups: tuple[str, ...]
    power: int
    exponent: bool


def shown_number(value: float, code: str, *, from_1904: bool = False) -> str:
    """Return a number as text by its format."""
    sections = _sections(code[:_MAX_FORMAT_CHARS])
    at = _section_of(value, sections)
    section = sections[at]
    if elapsed := _ELAPSED.search(section):
        if abs(value) >= _WHOLE:
            return general_format(value)
        return _duration(value, elapsed[1][0].lower(), section)
    if letters := _date_letters(section):
        text = _date(value, letters, from_1904=from_1904)
        return general_format(value) if text is None else text
    pattern = _parsed(section)
    if pattern is None or (abs(value) >= _WHOLE and not pattern.exponent):
        return general_format(value)
    if not pattern.groups:
        return pattern.texts[0].strip()
    return _number(abs(value) if at == 1 else value, pattern) or general_format(value)


def general_format(value: float) -> str:
    """Return a number without a format: all digits that are kept, and no exponent for an ordinary size."""
    if abs(value) < _WHOLE and value == int(value):
        return str(int(value))
    text = f"{value:.{_EXACT}g}"
    return f"{Decimal(text):f}" if "e" in text and 1e-9 <= abs(value) < _WHOLE else text


def _section_of(value: float, sections: tuple[str, ...]) -> int:
    """Return the place of the section that applies: by conditions such as `[>=1000]` if there are any, else by sign."""
    conditions = [_CONDITION.search(section) for section in sections]
    if any(conditions):
        matches = (
            at
            for at, condition in enumerate(conditions)
            if condition is None or _COMPARED[condition[1]](value, float(condition[2]))
        )
        return next(matches, 0)
    if value < 0 and len(sections) > 1:
        return 1
    return 2 if value == 0 and len(sections) > 2 else 0


@lru_cache(maxsize=1 << 10)
def _sections(code: str) -> tuple[str, ...]:
    """Split a format at semicolons that are not quoted."""
    sections = [_SECTIONS.match(code)[0]]  # type: ignore[index]
    at = len(sections[0])
    while at < len(code):
        match = _SECTIONS.match(code, at + 1)
        sections.append(match[0] if match else "")
        at += 1 + len(sections[-1])
    return tuple(sections)


@lru_cache(maxsize=1 << 10)
def _date_letters(section: str) -> str:
    """Return the letters of a date's format: `M` months, `n` minutes, `f` parts of seconds; "" without a date."""
    date_codes = [match.lower() for match in _DATE_CODE.findall(_NO_DATE.sub("", section))]
    codes = [code for code in date_codes if "/" not in code]  # AM/PM: all hours are shown as of 24
    letters = [code[0] for code in codes]
    for at, code in enumerate(codes):
        if code[0] == "m":
            near_time = letters[at - 1 : at] == ["h"] or letters[at + 1 : at + 2] == ["s"]
            letters[at] = "n" if near_time and len(code) <= 2 else "M"
    return "".join(letters) + "f" * any("." in code for code in codes)


def _date(value: float, letters: str, *, from_1904: bool) -> str | None:
    """Return a date, a time or both, by the letters; None when the number is not a date."""
    if not 0 <= value < _LAST_DAY:
        return None
    # workbooks treat 1900 as a leap year, so dates before March 1900 are off by one day
    epoch = datetime(1904, 1, 1) if from_1904 else datetime(1899, 12, 31 if value < 60 else 30)
    moment = epoch + timedelta(milliseconds=round(value * 86_400_000))
    if "f" not in letters:
        moment = (moment + timedelta(milliseconds=500)).replace(microsecond=0)
    day = ""
    if "d" in letters or "a" in letters or ("M" in letters and not set(letters) & set("yeg")):
        day = moment.date().isoformat()
    elif set(letters) & set("yeg"):
        day = moment.date().isoformat()[: 7 if "M" in letters else 4]
    if not set(letters) & set("hns"):
        return day
    time = moment.time().isoformat("milliseconds" if "f" in letters else "seconds")
    return f"{day} {time if set(letters) & set('sf') else time[:5]}".strip()


def _duration(value: float, unit: str, section: str) -> str:
    """Return a time that may have more than 24 hours."""
    seconds = round(abs(value) * 86_400)
    sign = "-" if value < 0 else ""
    if unit == "s":
        return f"{sign}{seconds}"
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{sign}{hours}:{minute:02}" if unit == "h" else f"{sign}{minutes}"
    return f"{text}:{second:02}" if "s" in section.lower() else text


@lru_cache(maxsize=1 << 10)
def _parsed(section: str) -> _Shown | None:
    """Parse a section; None for `General`, for one without digits, and for fractions."""
    texts = [""]
    groups: list[str] = []
    power = 0
    exponent = False
    for token in _TOKEN.finditer(section):
        kind = token.lastgroup
        if kind == "digits":
            code = token[0].rstrip(",")
            power -= 3 * (len(token[0]) - len(code))
            groups.append(code)
            texts.append("")
        elif kind == "exponent":
            exponent = True
        elif kind == "other" and token[0] in "/gG":
            return None
        elif kind is not None and token[0] != "@":
            texts[-1] += token[kind]
            power += 2 * (token[0] == "%")
    return _Shown(tuple(texts), tuple(groups), power, exponent) if groups or texts[0].strip() else None


def _number(value: float, pattern: _Shown) -> str:
    scaled = value * 10.0**pattern.power
    whole_code, _, decimals_code = "".join(pattern.groups).partition(".")
    if pattern.exponent:
        text = f"{abs(scaled):.{len(decimals_code)}E}"
    else:
        text = _rounded(abs(scaled), len(decimals_code))
    integer_digits, point, decimals = text.partition(".")
    if not pattern.exponent:
        while decimals and decimals[-1] == "0" and decimals_code[len(decimals) - 1] != "0":
            decimals = decimals[:-1]
        integer_digits = (
            "" if integer_digits == "0" and "0" not in whole_code else integer_digits.zfill(whole_code.count("0"))
        )
        integer_digits = f"{int(integer_digits):,}" if "," in whole_code and integer_digits else integer_digits
    sign = "-" if scaled < 0 and text.strip("0.") else ""
    if len(pattern.groups) > 1 and not decimals_code:
        return sign + _spread(integer_digits, pattern)
    number = f"{integer_digits}{point if decimals else ''}{decimals}"
    return f"{sign}{pattern.texts[0]}{number}{''.join(pattern.texts[1:])}".strip()


def _spread(digits: str, pattern: _Shown) -> str:
    """Return digits with the texts between them, as in a telephone number."""
    pieces: list[str] = [pattern.texts[-1]]
    for at in range(len(pattern.groups) - 1, 0, -1):
        size = len(pattern.groups[at])
        pieces += [digits[-size:], pattern.texts[at]]
        digits = digits[:-size]
    return "".join((*pieces, digits, pattern.texts[0])[::-1]).strip()


def _rounded(size: float, decimals: int) -> str:
    """Round the digits that a workbook keeps half up: 0.285 is 0.29, although its binary value is below 0.285."""
    with localcontext() as context:
        context.prec = 400
        exact = Decimal(f"{size:.{_EXACT}g}")
        return f"{exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):f}"

"""Meaning of declared charsets: a label stands for the superset that browsers and mail programs use.

The table follows the Encoding Standard (encoding.spec.whatwg.org, section 4.2), with the nearest codec of Python.
It must not decode anything.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping

_SUPERSETS: Mapping[str, str] = {
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "iso2022_jp_1": "iso2022_jp",
    "iso2022_jp_2": "iso2022_jp",
    "iso2022_jp_3": "iso2022_jp",
    "iso2022_jp_2004": "iso2022_jp",
    "iso2022_jp_ext": "iso2022_jp",
}
"""Codecs that are widened, by their names in Python."""

_UNKNOWN_HERE: Mapping[str, str] = {
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "x-ms-cp932": "cp932",
    "ks_c_5601-1987": "cp949",
    "windows-949": "cp949",
    "x-windows-949": "cp949",
    "x-gbk": "gb18030",
    "x-x-big5": "big5hkscs",
    "cn-big5": "big5hkscs",
    "windows-874": "cp874",
    "dos-874": "cp874",
    "x-mac-cyrillic": "mac-cyrillic",
    "x-mac-ukrainian": "mac-cyrillic",
    "x-mac-roman": "mac-roman",
    "macintosh": "mac-roman",
    "iso-8859-8-i": "iso8859-8",
    "iso-8859-8-e": "iso8859-8",
    "cp50220": "iso2022_jp",
    "cp50221": "iso2022_jp",
    "x-cp1251": "cp1251",
    "x-cp1250": "cp1250",
    "x-cp1252": "cp1252",
    "unicode": "utf-16-le",
    "unicodefffe": "utf-16-be",
}
"""Labels that Python does not know."""

_DECLARABLE = re.compile(
    r"cp\d+|(iso\d+|koi8|mac|euc|tis|ptcp)[_-].+|(gb|big5|shift_jis|hz|johab|kz1048).*|utf-(16|32)(-[lb]e)?"
)
"""Codecs that a document may declare: encodings of text, without UTF-7, which can hide markup."""


def codec_of(label: str | None, *, mail: bool = False) -> str | None:
    """Return Python's name of the codec for a declared charset; None for UTF-8, US-ASCII and unknown ones.

    `mail`: accept UTF-7, which only mail may declare.
    """
    label = (label or "").strip().strip("\"'").lower()
    label = _UNKNOWN_HERE.get(label, label)
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    if mail and name == "utf-7":
        return name
    name = _SUPERSETS.get(name, name)
    return name if _DECLARABLE.fullmatch(name) else None

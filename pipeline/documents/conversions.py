"""Office formats that are not read, and the format to convert each to.

It must not start a converter: the user decides where to run it.
"""

from __future__ import annotations

from collections.abc import Mapping

_SUCCESSORS: Mapping[str, tuple[str, str]] = {
    ".doc": ("a Word 97-2003 document", "docx"),
    ".xls": ("an Excel 97-2003 workbook", "xlsx"),
    ".ppt": ("a PowerPoint 97-2003 presentation", "pptx"),
    ".xlsb": ("a binary workbook", "xlsx"),
    ".odt": ("an OpenDocument text", "docx"),
    ".ods": ("an OpenDocument spreadsheet", "xlsx"),
    ".odp": ("an OpenDocument presentation", "pptx"),
    ".rtf": ("an RTF document", "docx"),
}


def how_to_convert(suffix: str) -> str | None:
    """Return the kind of files with this suffix and the command that converts them; None for another suffix."""
    if suffix not in _SUCCESSORS:
        return None
    kind, successor = _SUCCESSORS[suffix]
    return f"{kind} is not read: convert it with `soffice --headless --convert-to {successor} FILE`"

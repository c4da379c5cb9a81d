"""Detect the kind of a .json file: one document, an array of documents, or one document after the other."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

from pipeline.documents.containers import Container, Format
from pipeline.documents.decode import decode_json
from pipeline.documents.tables.json_array import Window, opened_window, split_array
from pipeline.documents.tables.json_text import RECORD_SEPARATOR
from pipeline.documents.tables.lines import LINES, split_lines

JSON_LINES = Format("json", decode_json, split=split_lines, divide=LINES)
JSON_ARRAY = Format("json", decode_json, split=split_array)


def look_at_json(stream: BinaryIO, container: Container) -> Format | None:
    """Return the format of a file of many documents; None for a file of one document, even if it is broken."""
    if container.records_field:
        return JSON_ARRAY
    cast(io.BufferedReader, stream).peek()
    with opened_window(stream, container.limit_bytes) as window:
        first = window.next()
        if first == "[":
            return JSON_ARRAY
        if first == RECORD_SEPARATOR:
            return JSON_LINES
        return JSON_LINES if first == "{" and _holds_several(window) else None


def _holds_several(window: Window) -> bool:
    """Return True when an object follows the first one; after a broken first object, when the next line begins one."""
    end = window.value_end()
    if end is not None:
        window.at = end
        return window.next() in ("{", RECORD_SEPARATOR)
    first, _, next_line = window.chars[window.at :].partition("\n")
    return first.rstrip(" \t\r,").endswith("}") and next_line.startswith("{")

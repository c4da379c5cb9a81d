"""Log lines on stderr, one per event, as text or JSON, safe to show on a terminal.

    lines.py     a record as a line: text_line, json_line; visible() escapes control characters
    repeats.py   suppression of repeated warnings
    wrapping.py  line breaks on a terminal
    handler.py   the handler that writes the lines: setup, LineHandler

All layers above config may import it.
"""

from __future__ import annotations

from pipeline.logs.handler import TALKATIVE, LineHandler, active_handler, setup
from pipeline.logs.lines import LogFormat, fields_of, visible
from pipeline.logs.repeats import Repeats

__all__ = ["TALKATIVE", "LineHandler", "LogFormat", "Repeats", "active_handler", "fields_of", "setup", "visible"]

"""A document from a larger file, with its description from that file: a line of JSON above its bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def described(metadata: Mapping[str, Any], body: bytes) -> bytes:
    """Return the description without its empty values, followed by the body."""
    filled = {name: value for name, value in metadata.items() if value}
    return json.dumps(filled, ensure_ascii=False).encode("utf-8", "replace") + b"\n" + body


def description_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the description and the body."""
    line, _, body = data.partition(b"\n")
    return json.loads(line), body

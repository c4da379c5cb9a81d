"""The keywords of a schema that define how the answers about the windows of a document are merged.

It must not import a validator: fingerprints need the names only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.answers.subschemas import places

MERGE: Final = "x-merge"
KEY: Final = "x-key"
KEY_MATCH: Final = "x-key-match"
BY: Final = "x-by"
EMPTY: Final = "x-empty"
OVER: Final = "x-over"
WINDOW_ITEMS: Final = "x-window-items"

MERGE_KEYWORDS: Final = (MERGE, KEY, KEY_MATCH, BY, EMPTY, OVER, WINDOW_ITEMS)


def merge_keywords(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the merge keywords of a schema by place; only places with any."""
    keywords: dict[str, dict[str, Any]] = {}
    for place, node in places(schema, "$"):
        for keyword in MERGE_KEYWORDS:
            if keyword in node:
                keywords.setdefault(place, {})[keyword] = node[keyword]
    return keywords

"""The lists of a schema whose items have a key (`x-key`), by the dotted paths that comparisons use.

It must not import a validator: the summary of each run has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.answers.merge_keywords import KEY
from pipeline.answers.resolved_schema import SchemaReader


def list_keys(schema: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the key of each list that has one: `{"companies": ["name"]}`."""
    values = SchemaReader(schema).values(schema)
    return {path: [key] if isinstance(key, str) else list(key) for path, node in values if (key := node.get(KEY))}

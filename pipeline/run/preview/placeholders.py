"""Warnings about prompt placeholders that stay empty: the metadata has another name, or the documents have none.

It sees the first results of a run, on the main thread, and logs one warning for each placeholder.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.agents.prompts import metadata_placeholders
from pipeline.documents.metadata_names import is_filled, value_of

logger = logging.getLogger(__name__)

FIRST_DOCUMENTS = 100
FEWEST_DOCUMENTS = 5
"""Fewer documents may leave a placeholder empty by chance."""
SHOWN_NAMES = 10
KEPT_NAMES = 200


class PlaceholderWatch:
    """The counts of empty placeholders in the first documents. `templates`: the user prompt of each variant."""

    def __init__(self, templates: Mapping[str, str]) -> None:
        self._names = {variant: metadata_placeholders(text) for variant, text in templates.items()}
        self._occurrences: Counter[str] = Counter()
        self._filled: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()
        self._documents = 0
        self._is_closed = not any(self._names.values())

    def add(self, variant: str, metadata: Mapping[str, Any]) -> None:
        """Count one document; the last of the first documents logs the warnings."""
        if self._is_closed:
            return
        self._documents += 1
        for name in self._names.get(variant, ()):
            self._occurrences[name] += 1
            self._filled[name] += is_filled(value_of(metadata, name))
        for key, value in metadata.items():
            if is_filled(value) and (key in self._keys or len(self._keys) < KEPT_NAMES):
                self._keys[key] += 1
        if self._documents >= FIRST_DOCUMENTS:
            self.close()

    def close(self) -> None:
        """Log a warning for each placeholder that was empty in all documents so far, unless it was logged before."""
        if not self._is_closed and self._documents >= FEWEST_DOCUMENTS:
            for name in [name for name, count in self._occurrences.items() if count and not self._filled[name]]:
                logger.warning("%s", self._warning(name))
        self._is_closed = True

    def _warning(self, name: str) -> str:
        filled = [f"${key}" for key, _ in self._keys.most_common(SHOWN_NAMES)]
        hint = f"these names have values: {', '.join(filled)}" if filled else "the documents have no metadata"
        return (
            f"placeholder ${name} of the user prompt was empty in the first {self._occurrences[name]} documents; "
            f"{hint} (`pipeline try` shows the metadata of a document; docs/agents.md)"
        )

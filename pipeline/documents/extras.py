"""Libraries that only some formats need, and the extra that installs each.

They must not be imported before the first file of such a format.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping

from pipeline.errors import ConfigError

LIBRARIES: Mapping[str, str] = {"html": "trafilatura", "pdf": "pypdf"}
"""The library of each extra of setup.cfg that a format needs."""


def is_missing(extra: str) -> bool:
    """Return True when the extra's library is not installed."""
    return importlib.util.find_spec(LIBRARIES[extra]) is None


class MissingExtraError(ConfigError):
    """A format's library is not installed."""


def require(extra: str, *, what: str, pattern: str) -> None:
    """Import the library of an extra; MissingExtraError naming the extra and the way to do without it."""
    library = LIBRARIES[extra]
    try:
        importlib.import_module(library)
    except ImportError as cause:
        message = f"{what}: reading it needs the library {library}, which cannot be imported ({cause.msg})"
        way = f"pip install 'extraction-pipeline[{extra}]', or input.exclude: ['{pattern}']"
        raise MissingExtraError(f"{message}: {way}") from cause

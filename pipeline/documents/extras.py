"""Optional libraries of some formats, and the extra that installs each.

They must not be imported before the first file of such a format.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Mapping

from pipeline.config.installing import install_command
from pipeline.errors import ConfigError

LIBRARIES: Mapping[str, str] = {
    "html": "trafilatura",
    "mail": "oxmsg",
    "parquet": "pyarrow",
    "pdf": "pypdfium2",
    "warc": "warcio",
}
"""The library of each extra of setup.cfg that a format needs."""


class MissingExtraError(ConfigError):
    """The first documents all need a library that is not installed."""


def is_missing(extra: str) -> bool:
    """Return whether the extra's library is not installed."""
    library = LIBRARIES[extra]
    return sys.modules.get(library, library) is None or not _is_installed(library)


def how_to_install(extra: str, *, pattern: str) -> str:
    """Return the message about a missing extra: its library, the command to install it, the setting to skip files."""
    command = install_command(extra)
    reason = f"reading it needs the library {LIBRARIES[extra]}, which is not installed"
    return f"{reason}: {command}, or input.exclude: ['{pattern}']"


@functools.cache
def _is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None

"""The place of an output by its address: a folder or a prefix of a bucket. It must not access either."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.config import AppConfig
from pipeline.errors import ConfigError
from pipeline.stores import REMOTE_SCHEMES, is_remote, lacks_slashes, service_of


def folder_of(uri: str) -> Path | None:
    """Return the folder of a path or a file:// address, None for an object store; ConfigError for any other address."""
    if is_remote(uri):
        return None
    if "://" not in uri:
        if not uri:
            raise ConfigError("output.uri: got an empty text, need a folder")
        if lacks_slashes(uri):
            scheme = uri.partition(":")[0]
            raise ConfigError(f"output.uri: got {uri!r}, need {scheme}://…, or ./{uri} for a folder of that name")
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme != "file":
        accepted = ", ".join(f"{scheme}://" for scheme in REMOTE_SCHEMES)
        raise ConfigError(f"output.uri: got {parts.scheme}://…, need a folder, file:// or one of {accepted}")
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ConfigError(f"output.uri: got {uri!r}, need file:///path")
    return Path(unquote(parts.path))


def left_out(app: AppConfig) -> Path | str | None:
    """Return the folder or the address of the output, which the input must skip.

    None: the input and the output are in different services.
    """
    output = app.output
    folder = folder_of(output.uri)
    if folder is not None or service_of(output.uri, output.storage) != service_of(output.uri, app.input.storage):
        return folder
    return output.uri

"""The keys of providers: read from their files, and registered for redaction.

It must not quote a key in a message.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config.models import ProviderConfig
from pipeline.config.redaction import FATAL_CHARS, MASK, SECRETS
from pipeline.config.texts import is_header_text
from pipeline.errors import SettingError


def register_provider_secrets(config: ProviderConfig) -> None:
    """Register the secrets of one provider; its key file is registered when it is read."""
    SECRETS.add(config.api_key)
    SECRETS.add_headers(config.headers)
    for url in (config.base_url,) if isinstance(config.base_url, str) else config.base_url:
        SECRETS.add_url(url)
    if config.proxy:
        SECRETS.add_url(config.proxy)


def read_api_key(config: ProviderConfig) -> str:
    """Return the API key, from the key file if one is set; SettingError, which never quotes the key."""
    if not config.api_key_file:
        return config.api_key
    try:
        key = Path(config.api_key_file).read_text("utf-8").strip()
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or "not a text"
        raise SettingError(
            "api_key_file", f"got {_shown_path(config.api_key_file)} ({reason}), need a file with the key"
        ) from cause
    if not key or not is_header_text(key):
        message = f"got {_shown_path(config.api_key_file)} (no key for a header), need a file of one line"
        raise SettingError("api_key_file", message)
    SECRETS.add(key)
    return key


def _shown_path(text: str) -> str:
    """Return the path for a message; masked when it looks like a key that was set in place of a file name."""
    path = Path(text)
    if len(text) < FATAL_CHARS or len(path.parts) > 1 or path.suffix or path.exists():
        return repr(text)
    SECRETS.add(text)
    return f"'{MASK}', which looks like the key itself,"

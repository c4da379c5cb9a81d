"""Check of the certificate files for a server, so that an invalid file is not reported as an error of the server.

It connects to nothing; `requests` reads the files again when it connects.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import SettingError

_NEEDS = {
    "ca_file": "a PEM file of certificates, or a folder of them",
    "client_cert": "a PEM file of a certificate, with its key in it or in client_key, and no password",
    "client_key": "a PEM file of a key",
}


def check_certificates(ca_file: str | None, client_cert: str | None, client_key: str | None) -> None:
    """Raise a SettingError that names the setting whose file is missing or is no PEM file of its kind.

    Without this check the first connection would fail, as if the server were unavailable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        kind = "capath" if Path(ca_file).is_dir() else "cafile"
        _try("ca_file", ca_file, lambda: context.load_verify_locations(**{kind: ca_file}))
    if client_key is not None:
        _try("client_key", client_key, Path(client_key).read_bytes)
    if client_cert is not None:
        _try("client_cert", client_cert, Path(client_cert).read_bytes)
        files_text = f"{client_cert} with {client_key}" if client_key else client_cert
        # a password keeps OpenSSL from asking the terminal for one
        _try("client_cert", files_text, lambda: context.load_cert_chain(client_cert, client_key, password=""))


def _try(name: str, path: str, use: Callable[[], object]) -> None:
    try:
        use()
    except (OSError, ValueError) as cause:  # an SSLError is an OSError
        reason = "it does not fit" if isinstance(cause, ssl.SSLError) else getattr(cause, "strerror", None) or cause
        raise SettingError(name, f"got {path!r} ({reason}), need {_NEEDS[name]}") from cause

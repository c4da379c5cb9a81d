"""Azurite, the emulator of Azure's Blob service, in a child process; `make test` installs it where npm is at hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

ACCOUNT = "tests"
KEY = base64.b64encode(b"no secret, of this emulator only").decode()
READY_WITHIN_S = 60.0
_VERSION = "2021-08-06"


def binary() -> str | None:
    """Return the command, or None where it is not installed."""
    beside = Path(sys.prefix, "azurite", "node_modules", ".bin", "azurite-blob")
    return str(beside) if beside.exists() else shutil.which("azurite-blob")


@contextmanager
def azure_server(folder: Path, *containers: str) -> Iterator[Mapping[str, str]]:
    """Yield the environment for clients of a server with these containers; end it with the block."""
    command = binary()
    assert command is not None
    log = folder / "azurite.log"
    flags = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry"]
    env = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    with log.open("wb") as out:
        process = subprocess.Popen([command, *flags, "--skipApiVersionCheck"], stdout=out, stderr=out, env=env)
    try:
        endpoint = f"{_address(process, log)}/{ACCOUNT}"
        for container in containers:
            _make(endpoint, container)
        yield {
            "AZURE_STORAGE_ENDPOINT": endpoint,
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        }
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address once the server prints it."""
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        if match := re.search(r"successfully listens on (http://\S+)", log.read_text(errors="replace")):
            return match[1]
        time.sleep(0.05)
    raise RuntimeError(f"azurite did not start: {log.read_text(errors='replace')[-2000:]}")


def _make(endpoint: str, container: str) -> None:
    """Makes a container: the one request that the pipeline never sends. Signed by Shared Key."""
    date = formatdate(usegmt=True)
    resource = f"/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
    signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n{resource}"
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), signed.encode(), hashlib.sha256)).decode()
    headers = {"x-ms-date": date, "x-ms-version": _VERSION, "Authorization": f"SharedKey {ACCOUNT}:{signature}"}
    request = urllib.request.Request(f"{endpoint}/{container}?restype=container", method="PUT", headers=headers)
    urllib.request.urlopen(request, timeout=10).close()

"""A headless Chromium that tests drive over its debugging pipe: what a page is to a browser, not to a parser."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COMMAND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(COMMAND is None, reason="no chromium here (Debian: chromium)")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")


@dataclass
class Page:
    """One tab. `requests`: the URLs it asked for; `complaints`: errors on its console."""

    out: int
    inp: Any
    session: str = ""
    number: int = 0
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What a command of the protocol comes to."""
        self.number += 1
        to = {"sessionId": self.session} if self.session else {}
        message = {"id": self.number, "method": method, "params": params, **to}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (said := self._next()).get("id") != self.number:
            pass
        assert "error" not in said, said
        return dict(said["result"])

    def open(self, url: str, *, width: int, dark: bool) -> None:
        """Loads a page in a window of that width and theme."""
        window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **window)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])
        self.call("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def _next(self) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\0"):
            piece = self.inp.read(1)
            assert piece, "chromium ended"
            data += piece
        said: dict[str, Any] = json.loads(data[:-1])
        params = said.get("params", {})
        if said.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if said.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(params))
        return said


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A tab of a Chromium that ends with the block."""
    assert COMMAND is not None
    pipes = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for pair in (os.pipe(), os.pipe()) for end in pair]
    their_in, our_out, our_in, their_out = pipes

    def connect() -> None:
        os.dup2(their_in, 3)
        os.dup2(their_out, 4)

    process = subprocess.Popen(
        [COMMAND, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
        preexec_fn=connect, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_in)
    os.close(their_out)
    try:
        with os.fdopen(our_in, "rb") as inp:
            page = Page(our_out, inp)
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            yield page
    finally:
        process.kill()
        process.wait()
        os.close(our_out)

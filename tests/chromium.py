"""A headless Chromium that tests drive over its debugging pipe, to see pages as a browser does."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COMMAND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(COMMAND is None, reason="no chromium here (Debian: chromium)")
WAIT_S = 20.0
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")


@dataclass
class Page:
    """One tab. `requests`: the requested URLs; `complaints`: errors on its console."""

    out: int
    inp: Any
    session: str = ""
    number: int = 0
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of a protocol command."""
        self.number += 1
        to = {"sessionId": self.session} if self.session else {}
        message = {"id": self.number, "method": method, "params": params, **to}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (reply := self._next()).get("id") != self.number:
            pass
        assert "error" not in reply, reply
        return dict(reply["result"])

    def open(self, url: str, *, width: int, dark: bool) -> None:
        """Load a page in a window of this width and theme."""
        window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **window)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])
        if "#" in url:  # the same page with another fragment would not be loaded again
            self.call("Page.navigate", url="about:blank")
            while self._next().get("method") != "Page.loadEventFired":
                pass
        self.call("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def until(self, expression: str, description: str = "") -> Any:
        """Return the value of an expression as soon as it is true; fail after 20 s."""
        ends = time.monotonic() + WAIT_S
        while not (value := self.value(expression)):
            assert time.monotonic() < ends, f"waited {WAIT_S:g} s for {description or expression}; {self.complaints}"
            time.sleep(0.02)
        return value

    def press(self, *keys: str) -> None:
        """Press keys one after the other: characters, or names such as ArrowDown, Ctrl+Enter."""
        for key in keys:
            name = key.rpartition("+")[2] if len(key) > 1 else key
            modifiers = (2 if "Ctrl+" in key else 0) + (8 if "Shift+" in key else 0)
            code = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9}.get(name, 0)
            text = {"text": "\r" if name == "Enter" else name} if len(name) == 1 or name == "Enter" else {}
            event = {"key": name, "modifiers": modifiers, "windowsVirtualKeyCode": code, "code": name if code else ""}
            self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({} if modifiers & 2 else text))
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        """Type a text into the focused element."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """Save a screenshot of the window."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _next(self) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\0"):
            piece = self.inp.read(1)
            assert piece, "chromium ended"
            data += piece
        payload: dict[str, Any] = json.loads(data[:-1])
        params = payload.get("params", {})
        if payload.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if payload.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(params))
        return payload


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Yield a tab of a Chromium that ends with the block."""
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

"""The cheap model server of the trial: it counts the requests for each document in a file that outlives it.

It has one port for each slot, so that the time of the last answer to each slot's worker is known.
"""

from __future__ import annotations

import asyncio
import gc
import json
import mmap
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench.server import MODEL, Connection, Stub, answer, page, schema, vllm_chat

FIELDS = 2
LATENCY_S = 0.005
MODEL_NAME = MODEL
SCHEMA = schema(FIELDS)
_DOCUMENT = re.compile(rb"\[\[doc:(\d{8})\]\]")


class Counter(Stub):
    """The port of a slot: it counts the requests for each document in `counts`, which all ports share."""

    def __init__(self, counts: mmap.mmap) -> None:
        """Prepare the response."""
        super().__init__(LATENCY_S)
        self.chats[b"/v1"] = vllm_chat(answer(FIELDS))
        self._counts = counts

    def count(self, request: bytes) -> bool:
        """Count a request in the file of requests; return whether it is for a document."""
        match = _DOCUMENT.search(request)
        if match is not None:
            number = int(match[1])
            self._counts[number] = min(255, self._counts[number] + 1)
        return match is not None

    def stats(self, *, reset: bool) -> bytes:
        """Return the time of the last answer and the number of answers since the last reset."""
        values = {"last": self.last, "answered": self.answered, "cpu_s": time.process_time()}
        if reset:
            self.last = 0.0
            self.answered = 0
        return page(values)


async def serve(counts_file: Path, slots: int) -> None:
    """Serve until the process ends; print the ports on one line."""
    loop = asyncio.get_running_loop()
    with counts_file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as counts:
        stubs = [Counter(counts) for _ in range(slots)]
        servers = [
            await loop.create_server(partial(Connection, stub, loop), "127.0.0.1", 0, backlog=1024) for stub in stubs
        ]
        print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
        gc.freeze()
        await asyncio.gather(*(server.serve_forever() for server in servers))


@contextmanager
def started(counts_file: Path, slots: int) -> Iterator[list[int]]:
    """Yield the ports of a server in a process of its own."""
    script = "import sys, asyncio; sys.path.insert(0, sys.argv[1]); from pathlib import Path; " + (
        "from million.server import serve; asyncio.run(serve(Path(sys.argv[2]), int(sys.argv[3])))"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).resolve().parents[1]), str(counts_file), str(slots)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield [int(port) for port in child.stdout.readline().split()]
    finally:
        child.terminate()
        child.wait()


def stats(port: int, *, reset: bool) -> dict[str, Any]:
    """Return the counts of a slot's port since the last reset."""
    with urlopen(f"http://127.0.0.1:{port}/{'stats' if reset else 'peek'}", timeout=60) as reply:
        reply_stats: dict[str, Any] = json.load(reply)
    return reply_stats

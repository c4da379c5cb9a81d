"""The memory that malloc keeps for the threads of a run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ARENAS = """
import ctypes, sys, threading
from pathlib import Path
from pipeline.run.machine import limit_arenas
print(limit_arenas())
barrier = threading.Barrier(8)
def work():
    kept = [bytes(10_000) for _ in range(10)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
print(Path(sys.argv[1]).read_text().count("<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a pool of memory for each thread")
@pytest.mark.parametrize(("own", "is_set", "most"), [(None, "True", 2), ("5", "False", 5)])
def test_threads_share_two_pools_of_memory(tmp_path: Path, own: str | None, is_set: str, most: int) -> None:
    """Unless the user has set another number."""
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    environment |= {} if own is None else {"MALLOC_ARENA_MAX": own}
    command = [sys.executable, "-c", ARENAS, str(tmp_path / "info.xml")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    output, arenas = ended.stdout.split()
    assert output == is_set
    assert int(arenas) == most

"""The command line: `main` and one module for each command, beside its flags.

It may import every folder; no other folder may import it.
"""

import os
import signal
import threading


def _end_at_once(number: int, frame: object) -> None:  # noqa: ARG001
    """End the process by the signal itself; as PID 1, for which the kernel drops it, by its exit code."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


# Until everything is imported, Ctrl-C ends the process at once, as it does in other programs: Python's own handler
# would raise in the middle of an import, which can turn it into another exception and another exit code. SIGTERM does
# so until a run takes it over (run/observer.py): without a handler it is lost when this is PID 1 of a container.
_usual = signal.getsignal(signal.SIGINT)
_is_main = threading.current_thread() is threading.main_thread()
_is_replaced = _is_main and _usual is signal.default_int_handler
if _is_replaced:
    signal.signal(signal.SIGINT, _end_at_once)
if _is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
    signal.signal(signal.SIGTERM, _end_at_once)

from pipeline.cli.main import main as main  # noqa: E402
from pipeline.cli.main import parser as parser  # noqa: E402

if _is_replaced:
    signal.signal(signal.SIGINT, _usual)

"""The command line: `main` and one module for each command, beside its flags.

It may import every folder; no other folder may import it.
"""

import signal
import threading

# Until everything is imported, Ctrl-C ends the process at once, as it does in other programs: Python's own handler
# would raise in the middle of an import, which can turn it into another exception and another exit code.
_usual = signal.getsignal(signal.SIGINT)
_is_replaced = _usual is signal.default_int_handler and threading.current_thread() is threading.main_thread()
if _is_replaced:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from pipeline.cli.main import main as main  # noqa: E402
from pipeline.cli.main import parser as parser  # noqa: E402

if _is_replaced:
    signal.signal(signal.SIGINT, _usual)

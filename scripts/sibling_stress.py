"""Stress test: shards of one output that start and end together, repeatedly, on a file system that delays every call.

    python scripts/sibling_stress.py --shards 32 --rounds 10

Each shard is a real run in its own process. Before each open, listing, rename and removal in the output it sleeps for a
random time (by an audit hook of the interpreter, without patches), so that siblings act between any two of its steps.
Half of the rounds use another number of shards, some documents fail and are repaired in the next round, and the output
contains half-written files of a killed run. Exit code 0: every shard of every round ended with 0 and every document was
done once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SLOWED = ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir", "os.truncate")
_AGENT = {
    "description": "one sentence about a text",
    "system_prompt": "Sum the text up.\n",
    "user_prompt": "$document\n",
    "max_tokens": 200,
    "schema": {
        "type": "object",
        "properties": {"summary": {"type": "string", "minLength": 1}},
        "required": ["summary"],
        "additionalProperties": False,
    },
}


def stress(
    folder: Path, server_url: str, *, output: str, shards: int, rounds: int, delay_s: float, env: Mapping[str, str]
) -> list[str]:
    """Run the rounds; return the faults, a line each. `output`: a folder's name or an object store's address."""
    _configure(folder, server_url, output)
    parent = subprocess.Popen(
        [sys.executable, __file__, "--serve", output, str(delay_s)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PIPELINE_CONFIG": "pipeline.yaml", **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin and parent.stdout
    wrong: list[str] = []
    for number in range(rounds):
        _documents(folder, number, shards)
        count = shards + number % 2
        print(json.dumps([["run", "--shard", f"{i}/{count}", "--quiet"] for i in range(count)]), file=parent.stdin)
        parent.stdin.flush()
        codes = json.loads(parent.stdout.readline())
        for index, code in enumerate(codes):
            if code:
                log = (folder / f"log-{index}").read_text(errors="replace").strip()
                wrong.append(f"round {number}, shard {index}/{count}: exit code {code}\n{log[-1500:]}")
    parent.stdin.close()
    parent.wait(30)
    return wrong


def _configure(folder: Path, server_url: str, output: str) -> None:
    (folder / "agents").mkdir()
    (folder / "inbox").mkdir()
    (folder / "agents" / "small.yaml").write_text(json.dumps(_AGENT))
    settings = {
        "provider": "vllm", "agent": "small", "agents_dir": "agents", "fallback": [],
        "input": {"uri": "inbox"}, "output": {"uri": output},
        "vllm": {"base_url": server_url, "model": "llama3.1", "timeout": 60},
        "runner": {"concurrency": 2, "max_error_rate": 1, "fail_fast": 0, "lock_wait_s": 120, "startup_wait_s": 60},
    }  # fmt: skip
    (folder / "pipeline.yaml").write_text(json.dumps(settings))


def _documents(folder: Path, number: int, shards: int) -> None:
    """Write a new document for each shard; every third one fails in this round and is repaired in the next."""
    hour_ago = time.time() - 3600 + number
    for index in range(shards):
        for of, text in ((number, "[[fault:http_400]]" if index % 3 == 0 else "Plain."), (number - 1, "Repaired.")):
            path = folder / "inbox" / f"r{of:03}-{index:03}.txt"
            if of == number or (of >= 0 and index % 3 == 0):
                path.write_text(f"[[doc:{path.name}]] {text}")
                os.utime(path, (hour_ago, hour_ago))


def repeated(lines: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the documents whose same content has more than one line."""
    counts = Counter((line["id"], line["sha256"]) for line in lines)
    return [f"{id}: {count} lines" for (id, _), count in counts.items() if count > 1]


def _serve(output: str, delay_s: float) -> None:
    """Fork a run for each list of arguments in a line of standard input, all at once; print their exit codes."""
    from pipeline.cli import main, run  # noqa: F401 (loaded once, for all children)
    from pipeline.run import session  # noqa: F401

    for line in sys.stdin:
        children = []
        for number, arguments in enumerate(json.loads(line)):
            pid = os.fork()
            if pid == 0:
                _child(arguments, number, output, delay_s)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(json.dumps(codes), flush=True)


def _child(arguments: list[str], number: int, output: str, delay_s: float) -> None:
    """Run one shard, and never return."""
    from pipeline.cli import main

    code = 70
    try:
        target = os.open(f"log-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(target, stream)
        rng = random.Random(os.getpid())

        def hook(event: str, args: tuple[object, ...]) -> None:
            if event in _SLOWED and args and isinstance(args[0], (str, os.PathLike)) and output in os.fspath(args[0]):
                time.sleep(rng.random() * delay_s)

        sys.addaudithook(hook)
        code = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--delay", type=float, default=0.02, help="longest sleep before each call, in seconds")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "scripts"))
    from fake_llm import FakeLLM

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sibling-stress-") as name, FakeLLM(("llama3.1",)) as server:
        wrong = stress(
            Path(name), server.url, output="out", shards=options.shards, rounds=options.rounds,
            delay_s=options.delay, env={},
        )  # fmt: skip
        lines = [json.loads(line) for path in Path(name, "out").glob("results*.jsonl") for line in path.open()]
        wrong += repeated(lines)
    ends = sum(options.shards + number % 2 for number in range(options.rounds))
    print(*wrong, sep="\n")
    print(f"{ends} shard ends, {len(wrong)} wrong, {len(lines)} results, {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve(sys.argv[2], float(sys.argv[3]))
    else:
        sys.exit(_main())

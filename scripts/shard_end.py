"""Measure the end of a shard beside a large output, in a large set of shards, and after many past runs.

    python scripts/shard_end.py --records 1000000 --set 4000 --past 1000

Prints the seconds from SIGTERM to the exit of a shard beside that many records of its siblings, the seconds of a whole
run of one shard of a large set whose siblings have ended, and the requests of a nightly run on an S3 server after many
nights. Records, entries and summaries are copies of a real run's; the measured runs are real processes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.site import clean_environment
from fake_llm import FakeLLM, Fault
from s3_faults import FaultProxy
from s3_server import s3_server

from pipeline.output.merged_manifests import MOST_AT_ONCE
from pipeline.stores import RemoteStore

SHARDS = 4
AGENT = {
    "system_prompt": "Sum the text up.",
    "user_prompt": "$document",
    "max_tokens": 200,
    "schema": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
}


class Place:
    """A folder with a configuration, an agent and a document for each run."""

    def __init__(self, folder: Path, server_url: str, *, output: str = "out", storage: Mapping[str, Any] = {}) -> None:
        self.folder = folder
        (folder / "agents").mkdir()
        (folder / "inbox").mkdir()
        (folder / "agents" / "small.yaml").write_text(json.dumps(AGENT))
        settings = {
            "provider": "vllm", "agent": "small", "agents_dir": "agents", "fallback": [],
            "input": {"uri": "inbox", "min_documents": 0}, "output": {"uri": output, "storage": storage},
            "vllm": {"base_url": server_url, "model": "llama3.1"}, "runner": {"grace_s": 1},
        }  # fmt: skip
        (folder / "pipeline.yaml").write_text(json.dumps(settings))

    def add(self, name: str) -> None:
        """Add a document with a modification time an hour ago."""
        path = self.folder / "inbox" / name
        path.write_text(f"[[doc:{name}]] A text.")
        os.utime(path, (time.time() - 3600,) * 2)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a run."""
        command = [str(Path(sys.executable).with_name("pipeline")), "run", "--quiet", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=clean_environment(),
            stderr=subprocess.DEVNULL,
        )

    def run(self, *arguments: str) -> float:
        """Return the seconds of a run, which must end with 0."""
        begun = time.monotonic()
        code = self.start(*arguments).wait()
        if code:
            raise SystemExit(f"exit code {code}")
        return time.monotonic() - begun


def beside_records(place: Place, server: FakeLLM, records: int) -> float:
    """Return the seconds from SIGTERM to the exit of a shard, with a request in flight that never ends."""
    for number in range(40):
        place.add(f"a{number}.txt")
    for index in range(SHARDS):
        place.run("--shard", f"{index}/{SHARDS}")
    for path in (place.folder / "out").glob("results-*.jsonl"):
        line = path.read_text().splitlines()[0]
        document_id = json.loads(line)["id"]
        with path.open("a") as stream:
            for number in range(records // SHARDS):
                stream.write(line.replace(f'"id":"{document_id}"', f'"id":"{path.name}-{number}"', 1) + "\n")
    server.faults = lambda request, _: Fault("hang") if request.document.startswith("new") else None
    for number in range(20):
        place.add(f"new{number}.txt")
    server.requests.clear()
    child = place.start("--shard", f"0/{SHARDS}")
    while not any(request.document.startswith("new") for request in server.chats()):
        time.sleep(0.05)
        assert child.poll() is None
    begun = time.monotonic()
    child.send_signal(signal.SIGTERM)
    code = child.wait()
    assert code == 143, code
    server.faults = lambda *_: None
    return time.monotonic() - begun


def in_large_set(place: Place, shards: int) -> tuple[float, float]:
    """Return the seconds of a run with all but two siblings ended, and of the last one, which reports on all."""
    place.add("a.txt")
    place.run("--shard", f"0/{shards}")
    out = place.folder / "out"
    entry = next((out / ".runs").glob("run-*"), None) if (out / ".runs").is_dir() else None
    summary = json.loads(next((out / "runs").glob("*.json")).read_text())
    for index in range(1, shards - 2):
        name = f"{index:05d}-of-{shards:05d}"
        own = {**summary, "shard": f"{index}/{shards}", "run": index + 1, "run_id": f"r{index}"}
        (out / "runs" / f"r{index}-{name}.json").write_text(json.dumps(own))
        if entry is not None:
            content = {**json.loads(entry.read_text()), "newest": own}
            (out / ".runs" / f"run-{name}.{index + 1:08d}.json").write_text(json.dumps(content))
    return place.run("--shard", f"{shards - 2}/{shards}"), place.run("--shard", f"{shards - 1}/{shards}")


def after_nights(folder: Path, server: FakeLLM, past: int) -> tuple[float, Counter[str]]:
    """Return the seconds and the requests of a nightly run with one new document on an S3 server."""
    with s3_server() as s3, FaultProxy(s3.port) as tap:
        keys = {"access_key_id": s3.env["AWS_ACCESS_KEY_ID"], "secret_access_key": s3.env["AWS_SECRET_ACCESS_KEY"]}
        storage = {"region": s3.env["AWS_REGION"], **keys}
        uri = "s3://tests/nightly/out"
        place = Place(folder, server.url, output=uri, storage={**storage, "endpoint": tap.endpoint})
        place.add("a.txt")
        place.run()
        add_nights(RemoteStore.open(uri, storage={**storage, "endpoint": s3.endpoint}), past)
        for _ in range(1 + past // MOST_AT_ONCE):
            place.run()  # merges the manifests of so many nights, as the nights themselves would have done
        place.add("b.txt")
        tap.seen.clear()
        seconds = place.run()
        # the lease is renewed every few seconds: the number of its requests depends on the machine's speed
        return seconds, Counter(method for method, target in tap.seen if "lock" not in target)


def add_nights(store: RemoteStore, past: int, *, first: int = 2) -> None:
    """Add what that many nights with one document each leave: a summary, a part, its manifest, and the last entry.

    `first`: the number of the first of these runs.
    """
    key = max(stored.key for stored in store.list("runs"))
    (entry_key,) = [stored.key for stored in store.list(".runs") if "run." in stored.key]
    summary = json.loads(store.get(key))
    entry = json.loads(store.get(entry_key))
    part_key = min(stored.key for stored in store.list("results"))
    line = json.loads(store.get(part_key))
    *texts, row = map(json.loads, store.get(f"manifests/{part_key}").splitlines()[1:])

    def add(run: int) -> None:
        document_id = f"night-{run:06d}.txt"
        name = f"results/{run:06d}-000000.jsonl"
        data = json.dumps({**line, "id": document_id, "run": run}).encode() + b"\n"
        head = {"v": 1, "part": name, "bytes": len(data)}
        store.put(name, data)
        rows = (head, *texts, [document_id, run, *row[2:]])
        store.put(f"manifests/{name}", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        store.put(f"runs/night-{run:06d}.json", json.dumps({**summary, "run": run, "run_id": f"n{run}"}).encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(first, first + past)))
    last = first + past - 1
    newest = {**entry, "files": entry["files"] + past, "newest": {**entry["newest"], "run": last}}
    store.put(f".runs/run.{last:08d}.json", json.dumps(newest).encode())
    store.delete(entry_key)


def nights(folder: Path, server: FakeLLM, past: int) -> None:
    """Measure and print a night after this many others."""
    seconds, requests = after_nights(folder, server, past)
    print(f"{past:,} past runs on S3: {seconds:.1f} s and {requests.total()} requests: {dict(requests)}", flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--set", type=int, default=4000)
    parser.add_argument("--past", type=int, default=1000)
    parser.add_argument("--only-nights", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shard-end-") as name, FakeLLM(("llama3.1",)) as server:
        folders = [Path(name, part) for part in ("records", "set", "nights")]
        for folder in folders:
            folder.mkdir()
        nights(folders[2], server, options.past)
        if options.only_nights:
            return 0
        seconds = beside_records(Place(folders[0], server.url), server, options.records)
        print(
            f"{options.records:,} records: {seconds:.1f} s from SIGTERM to the exit of 1 of {SHARDS} shards (grace 1 s)"
        )
        middle_s, last_s = in_large_set(Place(folders[1], server.url), options.set)
        print(
            f"{options.set:,} shards: {middle_s:.1f} s for a run with one sibling left, {last_s:.1f} s for the last one"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

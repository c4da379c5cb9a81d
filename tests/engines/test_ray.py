"""`pipeline run --engine ray` on a real multi-node Ray on this machine, whose nodes and drivers are killed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import WAIT_S, Child, Place, json_log
from fake_llm import ReceivedRequest
from timing import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("ray") is None or platform.system() != "Linux", reason="needs Ray (the extra `ray`) on Linux"
    ),
]
ENVIRON = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # Ray kills tasks when other tests have filled the machine's memory
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20, "include_dashboard": False}
DOCUMENTS = 32
IN_CHUNK = 4


def installed_ray() -> tuple[int, ...]:
    """Return the version of Ray, or that of none without it."""
    return tuple(int(part) for part in version("ray").split(".")[:2]) if find_spec("ray") else ()


class Nodes:
    """A cluster whose head runs no task; its nodes are processes that die at once, as machines do."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster: Any = Cluster(True, head_node_args={**NODE, "num_cpus": 0})
        self._nodes: list[Any] = []

    @property
    def address(self) -> str:
        """Return the value of --address."""
        return str(self.cluster.address)

    def add(self) -> None:
        """Add a node with room for two tasks."""
        self._nodes.append(self.cluster.add_node(**NODE, num_cpus=2))

    def kill(self) -> None:
        """Send SIGKILL to all processes of the oldest node."""
        self.cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def clear(self) -> None:
        """End all nodes but the head."""
        while self._nodes:
            self.cluster.remove_node(self._nodes.pop(), allow_graceful=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Yield one cluster for all tests, because its head takes seconds to start."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a path of pytest is too long for its sockets
    before = dict(os.environ)
    os.environ.update(ENVIRON, RAY_TMPDIR=str(folder))
    try:
        nodes = Nodes()
    except Exception as error:
        pytest.skip(f"Ray does not start on this machine: {error!r}")
    try:
        yield nodes
    finally:
        nodes.cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nodes(cluster: Nodes) -> Iterator[Nodes]:
    """Yield the cluster with two nodes that the test may kill."""
    cluster.add()
    cluster.add()
    yield cluster
    cluster.clear()


def start(place: Place, nodes: Nodes, *flags: str) -> Child:
    """Start the driver with room for four chunks at a time."""
    words = ("run", "--engine", "ray", "--address", nodes.address, "--slots", "4", "--log-format", "json")
    return place.start(*words, *flags, env=ENVIRON)


def written(place: Place) -> Counter[str]:
    """Return how many lines each document has in the results of all chunks."""
    lines: list[str] = []
    for path in (place.folder / "out").glob("results-chunk-*.jsonl"):
        with suppress(FileNotFoundError):
            lines += path.read_text(encoding="utf-8").splitlines(keepends=True)
    return Counter(json.loads(line)["id"] for line in lines if line.endswith("\n"))


def chat_counts(place: Place) -> Counter[str]:
    """Return how many chats each document has had so far."""
    return Counter(chat.document for chat in place.server.chats() if chat.document.endswith(".txt"))


class Halves:
    """A server that answers the first half of each chunk, and holds the second half until the gate opens."""

    def __init__(self, place: Place, *, lock_wait_s: int = 60) -> None:
        """Write the documents and their plan. A chunk waits so long for the lock of its last run."""
        place.configure({"runner.concurrency": 2, "runner.lock_wait_s": lock_wait_s, "vllm.timeout": WAIT_S})
        self._place = place
        self._gate = threading.Event()
        self.ids = place.documents(DOCUMENTS)
        assert place.call("plan", "--chunks", str(DOCUMENTS // IN_CHUNK)).code == 0
        place.server.faults = self._hold

    def _hold(self, request: ReceivedRequest, n: int) -> None:
        if request.document in self.ids and self.ids.index(request.document) % IN_CHUNK >= IN_CHUNK // 2:
            self._gate.wait(WAIT_S)

    def wait_until_busy(self, child: Child, chunks: int) -> set[str]:
        """Return the documents in flight, as soon as so many chunks have done all that they can."""
        half = chunks * IN_CHUNK // 2

        def is_busy() -> bool:
            assert child.process.poll() is None, child.process.communicate()[1]
            return (sum(written(self._place).values()), len(chat_counts(self._place))) == (half, 2 * half)

        until(is_busy, f"{half} records and {half} requests in flight", pause_s=0.1)
        return set(chat_counts(self._place)) - set(written(self._place))

    def open(self) -> None:
        """Answer everything from now on."""
        self._gate.set()

    def check(self, in_flight: set[str]) -> None:
        """Nothing is lost, nothing is doubled, and only what was in flight at the kill was sent again."""
        assert written(self._place) == Counter(self.ids)
        chats = chat_counts(self._place)
        assert set(chats) == set(self.ids)
        assert {document for document, count in chats.items() if count > 1} <= in_flight
        assert max(chats.values()) <= 2
        counts = self._place.report()["run"]["counts"]
        assert (counts["found"], counts["done"] + counts["skipped"], counts["left"]) == (DOCUMENTS, DOCUMENTS, 0)


@pytest.mark.skipif(installed_ray() < (2, 60), reason="older ones connect the driver to any node of this machine")
def test_killed_node_loses_and_duplicates_no_record(place: Place, nodes: Nodes) -> None:
    """Ray runs its chunks again on another node, even one that joins later."""
    halves = Halves(place)
    driver = start(place, nodes)
    in_flight = halves.wait_until_busy(driver, 4)
    nodes.kill()
    halves.open()
    nodes.add()
    ran = driver.end()
    assert ran.code == 0, ran.err
    assert ran.out.startswith("FINISHED"), ran.out  # Ray's messages about its nodes are in the log
    halves.check(in_flight)


def test_killed_driver_can_be_restarted(place: Place, nodes: Nodes) -> None:
    """Its tasks end with it, and the same command does the remaining documents once."""
    halves = Halves(place)
    driver = start(place, nodes)
    in_flight = halves.wait_until_busy(driver, 4)
    driver.end(signal.SIGKILL)
    halves.open()
    ran = start(place, nodes).end()
    assert ran.code == 0, ran.err
    halves.check(in_flight)


def test_permanently_failing_chunk_does_not_stop_others(place: Place, nodes: Nodes) -> None:
    """It is tried four times while another process has its lock, and the exit code shows it."""
    halves = Halves(place, lock_wait_s=0)
    other = place.start("run", "--chunk", "2")
    in_flight = halves.wait_until_busy(other, 1)
    place.server.faults = None  # only the documents in flight still wait
    ran = start(place, nodes).end()
    assert ran.code == 3, ran.err
    own = [line for line in ran.err.splitlines() if line.startswith("{")]  # Ray writes lines of its own
    lines = json_log("\n".join(own))
    assert "_ray_timestamp_ns" not in ran.err
    assert {line["chunk"] for line in lines if "is run again" in line["message"]} == {2}  # the log joins the same lines
    assert [line["chunk"] for line in lines if line["severity"] == "ERROR"] == [2]
    assert sum(written(place).values()) == DOCUMENTS - IN_CHUNK // 2
    halves.open()
    assert other.end().code == 0
    assert start(place, nodes).end().code == 0
    halves.check(in_flight)


def test_ctrl_c_lets_requests_in_flight_finish(place: Place, nodes: Nodes) -> None:
    """The exit code is 130, all answers are written, and the same command resumes."""
    halves = Halves(place)
    driver = start(place, nodes)
    in_flight = halves.wait_until_busy(driver, 4)
    driver.process.send_signal(signal.SIGINT)
    halves.open()
    ran = driver.end()
    assert ran.code == 130, ran.err
    assert in_flight <= set(written(place))
    assert "(exit 130)" in ran.out
    assert f"pipeline run --engine ray --address {nodes.address} --slots 4" in " ".join(
        ran.out.replace("\\", "").split()
    )
    assert start(place, nodes).end().code == 0
    halves.check(set())


def test_driver_without_a_cluster_starts_its_own(place: Place, cluster: Nodes) -> None:
    """No process of Ray remains after it."""
    assert cluster.address  # the run must not use it
    place.documents(6)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        command = ("run", "--engine", "ray", "--address", "local", "--slots", "2")
        ran = place.call(*command, env={**ENVIRON, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled"})
        assert ran.code == 0, ran.err
        until(lambda: not processes_of(folder), f"the end of Ray in {folder}", pause_s=0.1)
    assert written(place) == Counter(place.sent_documents())
    assert sum(written(place).values()) == 6


def processes_of(folder: str) -> list[str]:
    """Return the command lines that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(path.read_bytes().decode("utf-8", "replace"))
    return [line for line in lines if folder in line]

"""Runs whose input store, file system or machine is in trouble: no document fails for it, and none is lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from conftest import Place, line_with
from s3_faults import FaultProxy
from s3_server import S3Server

from pipeline.stores import RemoteStore

TROUBLE = ("expired_token", "invalid_key", "forbidden", "slow_down", "internal_error", "bad_range", "reset", "cut_body")


@dataclass
class There:
    """An input in a store behind a fault-injecting proxy."""

    place: Place
    proxy: FaultProxy
    store: RemoteStore
    uri: str

    def documents(self, count: int) -> list[str]:
        """Write this many objects and return their names."""
        names = [f"d{number:03}.txt" for number in range(count)]
        for name in names:
            self.store.put(name, f"[[doc:{name}]] A plain text.".encode())
        return names

    def configure(self, **settings: object) -> None:
        """Configure the input and a short retry time for store requests."""
        usual = {"input.uri": self.uri, "input.storage.retry_for_s": 0, "runner.max_outage_s": 30}
        self.place.configure({**usual, **settings})

    def is_read(self, method: str, target: str, _key: str) -> bool:
        """Return whether a request reads an object."""
        return method == "GET" and "list-type" not in target


@pytest.fixture
def there(place: Place, s3: S3Server, bucket: str) -> Iterator[There]:
    """Yield a new input behind a proxy without faults."""
    keys = {"access_key_id": "test-key", "secret_access_key": "test-secret", "region": "us-east-1"}
    with FaultProxy(s3.port) as proxy:
        uri = f"s3://{bucket}/in"
        place.env.update({**s3.env, "AWS_ENDPOINT_URL": proxy.endpoint})
        there = There(place, proxy, RemoteStore.open(uri, storage={"endpoint": s3.endpoint, **keys}), uri)
        there.configure()
        yield there


@pytest.mark.parametrize("fault", TROUBLE)
def test_run_waits_for_a_failing_store(there: There, fault: str) -> None:
    """The store fails during the run for a while: no document fails or is lost, and one warning is logged."""
    names = there.documents(12)
    there.configure(**{"runner.concurrency": 2})
    there.proxy.wanted = there.is_read
    there.place.server.latency_s = 0.05
    child = there.place.start("run")
    there.place.wait_for_results(3)
    there.proxy.fault = fault
    line_with(child, "retrying for up to")
    there.proxy.fault = None
    ran = child.end()
    assert ran.code == 0, ran.err
    assert there.place.failed() == {}
    assert sorted(there.place.done()) == names
    assert "retrying" not in ran.err


def test_lasting_store_failure_exits_with_3(there: There) -> None:
    """No document fails, and the next run does the remaining ones."""
    names = there.documents(12)
    there.configure(**{"runner.concurrency": 2, "runner.max_outage_s": 2})
    there.proxy.wanted = there.is_read
    there.place.server.latency_s = 0.05
    child = there.place.start("run")
    there.place.wait_for_results(3)
    there.proxy.fault = "expired_token"
    ran = child.end()
    assert ran.code == 3, ran.err
    assert there.place.failed() == {}
    there.proxy.fault = None
    there.place.run()
    assert there.place.done() == dict.fromkeys(names, 1)


def test_single_refused_object_fails_and_is_retried(there: There) -> None:
    """Other objects can be read at the same time, which proves that the store works."""
    names = there.documents(6)
    there.proxy.wanted = lambda _method, target, _key: "d005" in target and "list-type" not in target
    there.proxy.fault = "forbidden"
    lenient = ("--set", "runner.max_error_rate=1")
    there.place.run(*lenient)
    assert there.place.failed() == {"d005.txt": "document_unreadable"}
    there.proxy.fault = None
    there.place.run(*lenient)
    assert there.place.failed() == {}
    assert sorted(there.place.done()) == names


@pytest.mark.parametrize("fault", ["expired_token", "bad_range", "cut_body"])
def test_store_failure_within_a_large_file_is_not_its_end(there: There, fault: str) -> None:
    """It is exit 3, and a later run finds the remaining rows."""
    line = json.dumps({"text": "A plain text. " + "x" * 1000})
    data = "".join(f"{line}\n" for _ in range(9000)).encode()
    there.store.put("all.jsonl", data)
    there.configure(**{"runner.max_outage_s": 1, "runner.concurrency": 8})
    reads = 0

    def later(method: str, target: str, _key: str) -> bool:
        nonlocal reads
        reads += method == "GET" and "all.jsonl" in target
        return reads > 1 and "all.jsonl" in target

    there.proxy.wanted, there.proxy.fault = later, fault
    ran = there.place.call("run", "--limit", "6000")
    assert ran.code == 3, ran.err
    assert there.place.failed() == {}
    done = len(there.place.done())
    there.proxy.fault = None
    there.place.run("--limit", "20")
    assert len(there.place.done()) == done + 20


@pytest.mark.parametrize(("fault", "code"), [("invalid_key", 2), ("expired_token", 2), ("no_bucket", 2), ("reset", 3)])
def test_first_start_with_wrong_store_settings_exits_with_2(there: There, fault: str, code: int) -> None:
    """Refused credentials and a missing bucket need a change; an unreachable store may recover, so it is exit 3."""
    there.documents(2)
    there.configure(**{"runner.max_outage_s": 2})
    there.proxy.fault = fault
    assert there.place.call("run").code == code


def test_first_start_with_refused_reads_exits_with_2(there: There) -> None:
    """The key may list objects but not read them."""
    there.documents(2)
    there.proxy.wanted, there.proxy.fault = there.is_read, "forbidden"
    ran = there.place.call("run")
    assert (ran.code, there.place.failed()) == (2, {}), ran.err


def test_later_start_with_refused_credentials_exits_with_3(there: There) -> None:
    """The credentials worked before, so a later run may succeed."""
    there.documents(2)
    there.place.run()
    there.proxy.fault = "expired_token"
    assert there.place.call("run").code == 3


def test_refused_credentials_are_read_again_from_their_file(there: There) -> None:
    """A renewed credentials file takes effect without a restart."""
    names = there.documents(10)
    path = there.place.folder / "credentials"
    profile = "[default]\naws_access_key_id = {0}-key\naws_secret_access_key = {0}-secret\n"
    path.write_text(profile.format("test"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        there.place.env[name] = ""
    there.place.env["AWS_SHARED_CREDENTIALS_FILE"] = str(path)
    there.configure(**{"runner.concurrency": 2})
    there.place.server.latency_s = 0.05
    child = there.place.start("run")
    there.place.wait_for_results(3)
    there.proxy.wanted = lambda _method, _target, key: key == "test-key"
    there.proxy.fault = "expired_token"
    path.write_text(profile.format("reader"))
    ran = child.end()
    assert ran.code == 0, ran.err
    assert sorted(there.place.done()) == names


def test_low_open_file_limit_reduces_concurrency(place: Place) -> None:
    """400 requests do not fit into 200 open files: one warning, fewer in flight, and no failure."""
    place.documents(300)
    place.configure({"runner.concurrency": 400})
    place.server.latency_s = 0.05
    ran = place.call("run", limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)))
    assert ran.code == 0, ran.err
    assert (len(place.done()), place.failed()) == (300, {})
    assert ran.err.count("is reduced to") == 1


@pytest.mark.parametrize("files", [5, 8, 11])
def test_too_few_open_files_to_start_exits_with_3(there: There, files: int) -> None:
    """An import, the output or the store's library runs out first: no traceback, and no failed document."""
    there.documents(3)
    there.configure(**{"runner.max_outage_s": 1})
    ran = there.place.call("run", limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)))
    assert ran.code in (0, 3), ran.err
    assert "Traceback" not in ran.err
    assert there.place.failed() == {}


def test_soft_open_file_limit_is_raised(place: Place) -> None:
    """It is raised as far as the hard limit allows."""
    place.documents(20)
    place.configure({"runner.concurrency": 200})
    ran = place.call("run", limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 2000)))
    assert ran.code == 0, ran.err
    assert "is reduced to" not in ran.err


@pytest.mark.parametrize("megabytes", [300, 400, 600])
def test_too_little_memory_fails_no_document(place: Place, megabytes: int) -> None:
    """The run uses fewer workers, or exits with 3."""
    place.documents(60)
    place.configure({"runner.concurrency": 100})
    size = megabytes << 20
    ran = place.call("run", limits=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)))
    assert ran.code in (0, 3), ran.err
    assert place.failed() == {}


SICK_LISTING = """
import errno, os
_scandir, _state = os.scandir, os.environ["SICK_STATE"]
def _fails():
    try:
        word = open(_state).read()
    except FileNotFoundError:
        return
    number = getattr(errno, word)
    raise OSError(number, os.strerror(number))
class _Scan:
    def __init__(self, inner):
        self._inner = inner
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self._inner.close()
    def __iter__(self):
        for number, entry in enumerate(self._inner):
            if number >= 3:
                _fails()
            yield entry
os.scandir = lambda path=".": _Scan(_scandir(path)) if isinstance(path, int) else _scandir(path)
"""
"""A child with this as its sitecustomize cannot list a folder beyond three names while a file holds an errno's name."""


def sick_listing(place: Place) -> dict[str, str]:
    """Return the environment of a child whose folder listing fails."""
    (place.folder / "sitecustomize.py").write_text(SICK_LISTING)
    return {"PYTHONPATH": str(place.folder), "SICK_STATE": str(place.folder / "sick")}


@pytest.mark.parametrize("word", ["EIO", "ESTALE"])
def test_run_waits_for_a_folder_that_cannot_be_listed(place: Place, word: str) -> None:
    """No document is lost or listed twice."""
    names, env = place.documents(12), sick_listing(place)
    (place.folder / "sick").write_text(word)
    child = place.start("run", env=env)
    line_with(child, "cannot be read; retrying for up to")
    (place.folder / "sick").unlink()
    ran = child.end()
    assert ran.code == 0, ran.err
    assert place.done() == dict.fromkeys(names, 1)


def test_lastingly_unreadable_folder_exits_with_3(place: Place) -> None:
    """The run waits `max_outage_s`, and no document fails."""
    place.documents(12)
    (place.folder / "sick").write_text("EIO")
    ran = place.call("run", "--set", "runner.max_outage_s=1", env=sick_listing(place))
    assert (ran.code, place.failed()) == (3, {}), ran.err
    assert "Input/output error" in ran.err and "Traceback" not in ran.err


LISTS = """
import json, os, sys
from pathlib import Path
from pipeline.errors import TryLaterError
from pipeline.stores import walk
root, state, change = Path(sys.argv[1]), Path(os.environ["SICK_STATE"]), sys.argv[2] == "change"
seen, failures = [], []
def attempt(action):
    while True:
        try:
            return action()
        except OSError as cause:
            if not state.exists():
                raise
            failures.append(cause.errno)
            state.unlink()
            if change:
                (root / seen[0]).unlink()
try:
    for file in walk(root, sort_up_to=2, attempt=attempt):
        seen.append(file.relative)
        if len(seen) == 1:
            state.write_text("EIO")
except TryLaterError as error:
    seen.append(str(error))
print(json.dumps([seen, failures]))
"""


@pytest.mark.parametrize("change", ["", "change"])
def test_interrupted_listing_of_a_large_folder_is_resumed(place: Place, change: str) -> None:
    """If the folder changed meanwhile, the listing is incomplete and raises TryLaterError."""
    root = place.folder / "inbox"
    root.mkdir(exist_ok=True)
    # more than are read together
    names = [f"{number}.txt" for number in range(600)]
    for name in names:
        (root / name).touch()
    env = {**os.environ, **sick_listing(place)}
    command = [sys.executable, "-c", LISTS, str(root), change]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    listed, failures = json.loads(ran.stdout)
    assert failures == [5]
    if change:
        assert "changed while it was listed again" in listed[-1]
    else:
        assert sorted(listed) == sorted(names)


def test_object_reads_follow_max_retries(there: There) -> None:
    """With `max_retries: 0` the first failure of an object fails it, if others can be read."""
    there.documents(4)
    there.configure(**{"vllm.max_retries": 0, "runner.concurrency": 1})
    there.proxy.wanted = lambda _method, target, _key: "d003" in target and "list-type" not in target
    there.proxy.fault = "forbidden"
    there.place.run("--set", "runner.max_error_rate=1")
    assert there.place.failed() == {"d003.txt": "document_unreadable"}
    # each read is sent once more with renewed credentials
    assert there.proxy.count("GET", "d003") <= 2


def test_unusable_temporary_folder_exits_with_3(place: Place) -> None:
    """The message names the folder that cannot hold the index, without a traceback."""
    place.documents(1)
    nowhere = str(place.folder / "nowhere")
    script = "import tempfile; tempfile._candidate_tempdir_list = lambda: [__import__('os').environ['TMPDIR']]"
    (place.folder / "sitecustomize.py").write_text(script)
    ran = place.call("run", env={"PYTHONPATH": str(place.folder), "TMPDIR": nowhere})
    assert ran.code == 3, ran.err
    assert f"the index of the output, in {nowhere}" in ran.err and "Traceback" not in ran.err

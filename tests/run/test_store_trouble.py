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
    """An input in a store behind a proxy."""

    place: Place
    proxy: FaultProxy
    store: RemoteStore
    uri: str

    def documents(self, count: int) -> list[str]:
        """The names of the objects it writes."""
        names = [f"d{number:03}.txt" for number in range(count)]
        for name in names:
            self.store.put(name, f"[[doc:{name}]] A plain text.".encode())
        return names

    def configure(self, **settings: object) -> None:
        """Points the place's config at the objects; a request is tried for a short time only."""
        usual = {"input.uri": self.uri, "input.storage.retry_for_s": 0, "runner.max_outage_s": 30}
        self.place.configure({**usual, **settings})

    def is_read(self, method: str, target: str, _key: str) -> bool:
        """True for a request that reads an object."""
        return method == "GET" and "list-type" not in target


@pytest.fixture
def there(place: Place, s3: S3Server, bucket: str) -> Iterator[There]:
    """An input that nobody has used, behind a proxy without faults."""
    keys = {"access_key_id": "test-key", "secret_access_key": "test-secret", "region": "us-east-1"}
    with FaultProxy(s3.port) as proxy:
        uri = f"s3://{bucket}/in"
        place.env.update({**s3.env, "AWS_ENDPOINT_URL": proxy.endpoint})
        there = There(place, proxy, RemoteStore.open(uri, storage={"endpoint": s3.endpoint, **keys}), uri)
        there.configure()
        yield there


@pytest.mark.parametrize("fault", TROUBLE)
def test_a_store_in_trouble_is_waited_for(there: There, fault: str) -> None:
    """In mid-run, for a while: no document fails, none is lost, one warning."""
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


def test_a_store_that_does_not_come_back_ends_the_run_with_3(there: There) -> None:
    """Nothing failed; the next run does what is left."""
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


def test_an_object_that_alone_is_refused_fails_and_is_tried_again(there: There) -> None:
    """Others can be read meanwhile, and at the end the last of them once more as a proof."""
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
def test_the_middle_of_one_large_file_is_not_its_end(there: There, fault: str) -> None:
    """A store that fails there and does not come back is exit 3; after it is back every line is found."""
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
def test_a_first_start_says_at_once_what_has_to_be_changed(there: There, fault: str, code: int) -> None:
    """Credentials that are refused, and a bucket that is not there; a store that is away may come back."""
    there.documents(2)
    there.configure(**{"runner.max_outage_s": 2})
    there.proxy.fault = fault
    assert there.place.call("run").code == code


def test_refused_reads_of_a_first_start_are_exit_2(there: There) -> None:
    """The key may list and not read."""
    there.documents(2)
    there.proxy.wanted, there.proxy.fault = there.is_read, "forbidden"
    ran = there.place.call("run")
    assert (ran.code, there.place.failed()) == (2, {}), ran.err


def test_a_later_start_with_refused_credentials_is_exit_3(there: There) -> None:
    """They were right once, and will be again."""
    there.documents(2)
    there.place.run()
    there.proxy.fault = "expired_token"
    assert there.place.call("run").code == 3


def test_credentials_are_read_again_when_they_are_refused(there: There) -> None:
    """From the file, which somebody keeps fresh; nobody has to start anything again."""
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


def test_a_low_limit_of_open_files_fails_no_document(place: Place) -> None:
    """400 documents in flight do not fit into 200 open files: one warning, and fewer in flight."""
    place.documents(300)
    place.configure({"runner.concurrency": 400})
    place.server.latency_s = 0.05
    ran = place.call("run", limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)))
    assert ran.code == 0, ran.err
    assert (len(place.done()), place.failed()) == (300, {})
    assert ran.err.count("is reduced to") == 1


@pytest.mark.parametrize("files", [5, 8, 11])
def test_too_few_open_files_to_start_is_exit_3(there: There, files: int) -> None:
    """Whatever first finds no descriptor (an import, the output, the store's library): no traceback, nothing failed."""
    there.documents(3)
    there.configure(**{"runner.max_outage_s": 1})
    ran = there.place.call("run", limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)))
    assert ran.code in (0, 3), ran.err
    assert "Traceback" not in ran.err
    assert there.place.failed() == {}


def test_a_soft_limit_of_open_files_is_raised(place: Place) -> None:
    """As far as the hard limit allows."""
    place.documents(20)
    place.configure({"runner.concurrency": 200})
    ran = place.call("run", limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 2000)))
    assert ran.code == 0, ran.err
    assert "is reduced to" not in ran.err


@pytest.mark.parametrize("megabytes", [300, 400, 600])
def test_too_little_memory_is_no_fault_of_the_program(place: Place, megabytes: int) -> None:
    """Threads and buffers are refused: fewer workers, or exit 3; nothing fails."""
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
    """The environment of such a child."""
    (place.folder / "sitecustomize.py").write_text(SICK_LISTING)
    return {"PYTHONPATH": str(place.folder), "SICK_STATE": str(place.folder / "sick")}


@pytest.mark.parametrize("word", ["EIO", "ESTALE"])
def test_a_folder_that_cannot_be_listed_for_a_while_is_waited_for(place: Place, word: str) -> None:
    """No document is lost, and none is listed twice."""
    names, env = place.documents(12), sick_listing(place)
    (place.folder / "sick").write_text(word)
    child = place.start("run", env=env)
    line_with(child, "cannot be read; retrying for up to")
    (place.folder / "sick").unlink()
    ran = child.end()
    assert ran.code == 0, ran.err
    assert place.done() == dict.fromkeys(names, 1)


def test_a_folder_that_stays_unreadable_is_exit_3(place: Place) -> None:
    """After max_outage_s, with nothing failed."""
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
def test_the_listing_of_a_large_folder_is_resumed_where_it_broke_off(place: Place, change: str) -> None:
    """Unless the folder has changed meanwhile: then the listing is incomplete, and the run ends with 3."""
    root = place.folder / "inbox"
    root.mkdir(exist_ok=True)
    # more than are read together
    names = [f"{number}.txt" for number in range(600)]
    for name in names:
        (root / name).touch()
    env = {**os.environ, **sick_listing(place)}
    command = [sys.executable, "-c", LISTS, str(root), change]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    seen, failures = json.loads(ran.stdout)
    assert failures == [5]
    if change:
        assert "changed while it was listed again" in seen[-1]
    else:
        assert sorted(seen) == sorted(names)


def test_one_object_is_read_again_as_often_as_a_request_is_sent(there: There) -> None:
    """`max_retries` of the provider: with 0, the first failure of an object is its own when others can be read."""
    there.documents(4)
    there.configure(**{"vllm.max_retries": 0, "runner.concurrency": 1})
    there.proxy.wanted = lambda _method, target, _key: "d003" in target and "list-type" not in target
    there.proxy.fault = "forbidden"
    there.place.run("--set", "runner.max_error_rate=1")
    assert there.place.failed() == {"d003.txt": "document_unreadable"}
    # each read is sent once more with renewed credentials
    assert there.proxy.count("GET", "d003") <= 2


def test_a_temporary_folder_that_cannot_be_used_is_exit_3(place: Place) -> None:
    """No file for the index of the output: a message that names the folder, no traceback."""
    place.documents(1)
    nowhere = str(place.folder / "nowhere")
    script = "import tempfile; tempfile._candidate_tempdir_list = lambda: [__import__('os').environ['TMPDIR']]"
    (place.folder / "sitecustomize.py").write_text(script)
    ran = place.call("run", env={"PYTHONPATH": str(place.folder), "TMPDIR": nowhere})
    assert ran.code == 3, ran.err
    assert f"the index of the output, in {nowhere}" in ran.err and "Traceback" not in ran.err

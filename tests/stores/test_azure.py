"""Inputs and outputs in Azure's Blob service, tested against Azurite where it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from azure_server import ACCOUNT, KEY, azure_server, binary
from conftest import Place
from test_archives import packed

from pipeline.stores import RemoteStore, StaleVersionError

pytestmark = pytest.mark.skipif(binary() is None, reason="azurite is not installed: `make test` does where npm is")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield one server for all tests."""
    with azure_server(tmp_path_factory.mktemp("azure"), "docs", "out") as env:
        yield env["AZURE_STORAGE_ENDPOINT"]


def opened(endpoint: str, uri: str) -> RemoteStore:
    """Return the store of an address on that server."""
    return RemoteStore.open(uri, storage={"endpoint": endpoint, "account_name": ACCOUNT, "account_key": KEY})


def test_azure_supports_the_operations_of_an_output(endpoint: str) -> None:
    """One writer creates, one version is replaced, blocks become one object, and a missing object can be deleted."""
    store = opened(endpoint, "az://out/store")
    store.create("a", b"1")
    with pytest.raises(FileExistsError):
        store.create("a", b"2")
    etag = store.create("b", b"1")
    assert etag is not None
    store.replace("b", b"2", etag=etag)
    with pytest.raises(StaleVersionError):
        store.replace("b", b"3", etag=etag)
    store.put("large", (b"x" * (1 << 20) for _ in range(12)))
    assert [(entry.key, entry.size_bytes) for entry in store.list()] == [("a", 1), ("b", 1), ("large", 12 << 20)]
    store.delete("a", "b", "large", "nothing")
    assert list(store.list()) == []


def test_run_reads_and_writes_azure(endpoint: str, place: Place) -> None:
    """Objects, lines and members are read, a second run sends no request, and compaction leaves one line of each."""
    store = opened(endpoint, "az://docs/in")
    store.put("d/a #1 %41 ü.txt", b"[[doc:a.txt]] text")
    store.put("l.jsonl", b'{"text": "[[doc:b.txt]] text"}\n\n{"text": "[[doc:c.txt]] text"}\n')
    store.put("z.zip", packed("zip", {"m.txt": b"[[doc:m.txt]] text"}))
    storage = {"AZURE_STORAGE_ENDPOINT": endpoint, "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT}
    place.env.update({**storage, "AZURE_STORAGE_ACCOUNT_KEY": KEY})
    place.configure({"input.uri": "az://docs/in", "output.uri": "az://out/run"})
    place.run()
    assert sorted(place.sent_documents()) == ["a.txt", "b.txt", "c.txt", "m.txt"]
    place.run()
    assert place.sent_documents() == []
    assert place.call("compact", "az://out/run").code == 0
    written = opened(endpoint, "az://out/run")
    lines = [line for part in written.list("results") for line in written.get(part.key).splitlines()]
    ids = sorted(json.loads(line)["id"] for line in lines)
    assert ids == ["d/a #1 %41 ü.txt", "l.jsonl#1", "l.jsonl#3", "z.zip!/m.txt"]

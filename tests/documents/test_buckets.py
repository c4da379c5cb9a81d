"""Inputs in an object store, tested against a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Place
from raw_server import answering, reply
from s3_faults import FaultProxy
from s3_server import S3Server, s3_server
from test_archives import packed

from pipeline.config import InputConfig, InputSource, OutputConfig
from pipeline.documents import ListingCounts, load_entries
from pipeline.errors import ConfigError, DocumentError, TryLaterError
from pipeline.output import scan
from pipeline.records import Entry
from pipeline.stores import RemoteStore

NAMES = [f"{n:02}.txt" for n in range(12)]


@pytest.fixture
def store(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    """Yield an empty prefix; the environment has the server's address."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return RemoteStore.open(f"s3://{bucket}/in", storage={})


def pulled(*uris: str | InputSource, output: str | None = None, **more: Any) -> Iterator[Entry]:
    sources = tuple(InputSource(uri) if isinstance(uri, str) else uri for uri in uris)
    return load_entries(InputConfig(uri=sources, **more), output=output, counts=ListingCounts())


def entries(*uris: str | InputSource, **more: Any) -> dict[str, Entry]:
    return {entry.id: entry for entry in pulled(*uris, **more)}


def put(store: RemoteStore, files: Mapping[str, bytes]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: store.put(*item), files.items()))


def test_prefix_is_read_like_a_folder(store: RemoteStore) -> None:
    """Ids are relative to the prefix, URIs are whole, the ETag is the version; lines and members are found."""
    etag = store.put("a/b.txt", b"x")
    put(store, {"c.jsonl": b'{"n":1}\n', "d.zip": packed("zip", {"e.txt": b"z", "f.csv": b"text\nt\n"})})
    put(store, {"g.tar.zst": packed("tar.zst", {"h.txt": b"t" * 99})})
    listing = entries(str(store.address))
    assert {id: entry.read() for id, entry in listing.items()} == {
        "a/b.txt": b"x",
        "c.jsonl#1": b'{"n":1}',
        "d.zip!/e.txt": b"z",
        "d.zip!/f.csv#1": b'{"text":"t"}',
        "g.tar.zst!/h.txt": b"t" * 99,
    }
    first = listing["a/b.txt"]
    assert (first.uri, first.version, first.size_bytes) == (f"{store.address}/a/b.txt", etag, 1)


@pytest.mark.parametrize("name", ["with space", "hash#1", "per%cent", "%41", "ünï/ço", "a+b?", "~[x]", "..x"])
def test_key_may_have_any_name(store: RemoteStore, name: str) -> None:
    """Characters that a URL would encode are kept in the id."""
    store.put(f"{name}.txt", b"x")
    listing = entries(str(store.address), include=("**", "..x.txt"))
    assert {id: entry.read() for id, entry in listing.items()} == {f"{name}.txt": b"x"}


def test_patterns_apply_to_keys(store: RemoteStore) -> None:
    """These are globs, include and exclude; hidden names and a folder's placeholder are left out."""
    put(store, dict.fromkeys(("a/1.txt", "a/2.md", "b/3.txt", "_c/4.txt", "b/.5.txt", "b/d/6.txt"), b"x"))
    root = str(store.address)
    assert list(entries(root)) == ["a/1.txt", "a/2.md", "b/3.txt", "b/d/6.txt"]
    assert list(entries(f"{root}/", include=("*.txt",), exclude=("d/",))) == ["a/1.txt", "b/3.txt"]
    assert list(entries(f"{root}/*/*.txt")) == ["a/1.txt", "b/3.txt"]
    assert list(entries(f"{root}/b/**")) == ["3.txt", "d/6.txt"]


def test_single_object_is_an_input(store: RemoteStore) -> None:
    """Its id is its own name; several inputs of a run have names."""
    put(store, {"a.txt": b"1", "b/c.txt": b"2"})
    root = str(store.address)
    assert list(entries(f"{root}/a.txt")) == ["a.txt"]
    listing = entries(InputSource(root, "all"), InputSource(f"{root}/b", "some"))
    assert list(listing) == ["all/a.txt", "all/b/c.txt", "some/c.txt"]


def test_empty_prefix_has_no_documents(store: RemoteStore) -> None:
    """A store has no empty folders, so this is no error."""
    assert entries(f"{store.address}/nothing/here") == {}


def test_output_below_the_input_is_left_out(store: RemoteStore) -> None:
    """As the input itself it is refused."""
    put(store, {"a.txt": b"x", "out/results/1.jsonl": b"{}\n", "outer.txt": b"y"})
    assert list(entries(str(store.address), output=f"{store.address}/out")) == ["a.txt", "outer.txt"]
    with pytest.raises(ConfigError, match="is the output as well"):
        entries(str(store.address), output=f"{store.address}/")


def test_listing_is_lazy(store: RemoteStore) -> None:
    """The first entry is available after one page, and further pages are listed on demand."""
    put(store, {f"{n:04}.txt": b"x" for n in range(1500)})
    listing = pulled(str(store.address))
    assert next(listing).id == "0000.txt"
    store.put("9999.txt", b"late")
    assert [entry.id for entry in listing][-1] == "9999.txt"


def test_replaced_object_is_read_in_its_current_state(store: RemoteStore) -> None:
    """It may grow between its listing and its turn; a missing member of an archive fails."""
    put(store, {"a.txt": b"old", "b.zip": packed("zip", {"c.txt": b"old"})})
    listing = entries(str(store.address))
    put(store, {"a.txt": b"new and longer", "b.zip": packed("zip", {"d.txt": b"new"})})
    assert listing["a.txt"].read() == b"new and longer"
    with pytest.raises(DocumentError):
        listing["b.zip!/c.txt"].read()
    store.delete("a.txt")
    with pytest.raises(DocumentError, match="not found") as error:
        listing["a.txt"].read()
    assert "Debug source" not in str(error.value)
    assert (error.value.reason, error.value.is_transient) == ("document_unreadable", False)


def test_too_large_object_is_not_fetched(store: RemoteStore) -> None:
    """The listing has its size."""
    store.put("a.txt", b"x" * 2000)
    (entry,) = pulled(str(store.address), max_document_bytes=1000)
    with pytest.raises(DocumentError) as error:
        entry.read()
    assert error.value.reason == "document_too_large"


def test_wrong_credentials_or_bucket_are_exit_2(s3: S3Server, store: RemoteStore) -> None:
    """The error names the place but no key, before any document is read."""
    with pytest.raises(ConfigError, match=r"s3://no-such-bucket-x cannot be listed.*need an existing bucket"):
        pulled("s3://no-such-bucket-x")
    with pytest.raises(ConfigError, match="need credentials") as error:
        pulled(str(store.address), storage={"secret_access_key": "wrong-secret"})
    assert "wrong-secret" not in str(error.value)
    with pytest.raises(ConfigError, match="holds a user or a key"):
        pulled("s3://key:secret@bucket/x")


@pytest.mark.parametrize("status", [301, 400])
def test_wrong_region_is_exit_2(status: int) -> None:
    """The error of each cloud names the setting, for input and output."""
    with answering(reply(b"<Error><Code>Wrong</Code></Error>", status)) as server:
        keys = {"access_key_id": "key", "secret_access_key": "secret"}
        storage = {"endpoint": server.url, "retry_for_s": 1, **keys}
        with pytest.raises(ConfigError, match=r"need the region and the endpoint of the bucket \(input\.storage"):
            pulled("s3://bucket/in", storage=storage)
        with pytest.raises(ConfigError, match=r"was refused.*its region.*\(output\.uri, output\.storage\)"):
            scan(OutputConfig("s3://bucket/out", storage=storage))


def test_broken_listing_or_read_is_retried_by_the_next_run(bucket: str) -> None:
    """A listing that breaks off ends the run with 3; an unread document is left."""
    with s3_server() as server:
        options = {name.lower().removeprefix("aws_"): value for name, value in server.env.items()}
        options = {"endpoint": options.pop("endpoint_url"), **options, "retry_for_s": 1}
        store = RemoteStore.open(f"s3://{bucket}", storage=options)
        put(store, {f"{n:04}.txt": b"x" for n in range(1200)})
        listing = pulled(f"s3://{bucket}", storage=options)
        first = next(listing)
        server.kill()
        with pytest.raises(TryLaterError, match="was interrupted"):
            list(listing)
        with pytest.raises(DocumentError) as error:
            first.read()
        assert error.value.is_transient
        with pytest.raises(TryLaterError):
            pulled(f"s3://{bucket}", storage=options)


@pytest.mark.parametrize("name", ["a.jsonl", "a.tar"])
def test_store_outage_within_an_archive_is_retried_by_the_next_run(s3: S3Server, store: RemoteStore, name: str) -> None:
    """The run ends with 3, the archive does not fail, and earlier results remain."""
    lines = b'{"text": "%s"}\n' % (b"x" * 1000)
    data = lines * 9000 if name == "a.jsonl" else packed("tar", {f"{n}.txt": lines for n in range(6000)})
    store.put(name, data)
    ranges = []

    def fail_the_second(_: str, target: str) -> None:
        ranges.append(target)
        if len([range for range in ranges if range.endswith(name)]) > 1:
            raise BrokenPipeError

    with FaultProxy(s3.port, before=fail_the_second) as tap:
        listing = pulled(str(store.address), storage={"endpoint": tap.endpoint, "retry_for_s": 1})
        assert next(listing).id.startswith(name)
        with pytest.raises(TryLaterError, match=f"was interrupted.*{name}"):
            list(listing)


def test_unchanged_object_is_not_fetched_again(place: Place, s3: S3Server, store: RemoteStore) -> None:
    """A second run only lists; changed and new objects are done."""
    place.env.update(s3.env)
    place.configure({"input.uri": str(store.address)})
    put(store, {name: f"[[doc:{name}]] text".encode() for name in NAMES})
    place.run()
    assert place.done() == dict.fromkeys(NAMES, 1)
    assert sorted(place.sent_documents()) == NAMES
    place.run()
    assert place.sent_documents() == []
    put(store, {"03.txt": b"[[doc:03.txt]] changed", "99.txt": b"[[doc:99.txt]] new"})
    place.run()
    assert sorted(place.sent_documents()) == ["03.txt", "99.txt"]
    dry = place.run("--dry-run").out
    assert "done already               13" in dry


def test_run_over_unchanged_objects_sends_only_a_listing(place: Place, s3: S3Server, store: RemoteStore) -> None:
    """No object is fetched or queried, and of a changed input only the changed objects are fetched."""
    put(store, {name: f"[[doc:{name}]] text".encode() for name in NAMES})
    with FaultProxy(s3.port) as tap:
        place.env.update({**s3.env, "AWS_ENDPOINT_URL": tap.endpoint})
        place.configure({"input.uri": str(store.address)})
        place.run()
        assert tap.count("GET", ".txt") == len(NAMES)
        tap.seen.clear()
        place.run()
        assert {method for method, _ in tap.seen} == {"GET"}
        assert all("list-type=2" in target for _, target in tap.seen), tap.seen
        put(store, {"03.txt": b"[[doc:03.txt]] changed"})
        place.run()
        assert tap.count("GET", ".txt") == 1


def test_run_over_a_missing_bucket_is_exit_2(place: Place, s3: S3Server) -> None:
    """The message says what is needed."""
    place.env.update(s3.env)
    place.configure({"input.uri": "s3://no-such-bucket-x/in"})
    ran = place.run(code=2)
    assert "no-such-bucket-x" in ran.err
    assert "need an existing bucket" in ran.err

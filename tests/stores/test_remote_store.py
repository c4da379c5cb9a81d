"""A bucket: listing, reading and writing on condition, held against a real S3 server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from raw_server import Line, RawServer, reply
from s3_faults import FaultProxy
from s3_server import S3Server, s3_server

from pipeline.errors import ConfigError
from pipeline.stores import RemoteStore, StaleVersionError, is_remote
from pipeline.stores.clouds import error_text, parse_address, service_of


@pytest.fixture
def store(s3: S3Server, bucket: str) -> RemoteStore:
    """A prefix of a fresh bucket."""
    return opened(s3, f"s3://{bucket}/some/prefix")


def opened(server: S3Server, uri: str, **more: Any) -> RemoteStore:
    """The store of an address on this server, with a key that may do everything."""
    keys = {"access_key_id": "test-key", "secret_access_key": "test-secret"}
    return RemoteStore.open(uri, storage={"endpoint": server.endpoint, "region": "us-east-1", **keys, **more})


def test_objects_come_back_as_they_were_put(store: RemoteStore) -> None:
    """Put, then find, get and list give the key, the size, the ETag and the bytes."""
    etag = store.put("a/b.txt", b"hello")
    found = store.find("a/b.txt")
    assert found is not None
    assert (found.key, found.size_bytes, found.etag) == ("a/b.txt", 5, etag)
    assert list(store.list()) == [found]
    assert store.get_with_etag("a/b.txt") == (b"hello", etag)


@pytest.mark.parametrize("key", ["with space", "hash#1", "per%cent", "%41", "ünï/ço", "a+b?", "~[x]", "..x"])
def test_a_key_is_taken_literally(store: RemoteStore, key: str) -> None:
    """What a URL would encode or decode is part of the name."""
    store.put(key, key.encode())
    assert [found.key for found in store.list()] == [key]
    assert store.get(key) == key.encode()


def test_a_listing_goes_over_all_its_pages(s3: S3Server, bucket: str) -> None:
    """Every one of 5,000 keys is listed once, in order, a page at a time as it is pulled."""
    keys = [f"d/{number:05}.txt" for number in range(5000)]
    with FaultProxy(s3.port) as tap:
        store = opened(s3, f"s3://{bucket}", endpoint=tap.endpoint)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: store.put(key, b"x"), keys))
        listed = store.list("d")
        assert next(listed).key == keys[0]
        assert tap.count("GET") < 4
        assert [found.key for found in listed] == keys[1:]
        assert tap.count("GET") >= 5


def test_a_prefix_is_a_folder_and_no_beginning_of_a_name(s3: S3Server, bucket: str) -> None:
    """`in` lists in/…, and not inbox/…."""
    whole = opened(s3, f"s3://{bucket}")
    for key in ("in/a.txt", "inbox/b.txt"):
        whole.put(key, b"x")
    assert [found.key for found in opened(s3, f"s3://{bucket}/in/").list()] == ["a.txt"]


def test_what_is_not_there_is_said(store: RemoteStore, s3: S3Server) -> None:
    """No object: find gives None, get raises FileNotFoundError; no bucket: the listing raises it."""
    store.put("a", b"x")
    assert store.find("b") is None
    with pytest.raises(FileNotFoundError):
        store.get("b")
    with pytest.raises(FileNotFoundError):
        list(opened(s3, "s3://no-such-bucket-here/x").list())


def test_one_of_many_creates_an_object(store: RemoteStore) -> None:
    """Of 16 threads that create one key at the same moment one wins, and its bytes are what stands there."""
    start = threading.Barrier(16)

    def create(number: int) -> int | None:
        start.wait()
        try:
            store.create("one", b"%d" % number)
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number in pool.map(create, range(16)) if number is not None]
    assert len(winners) == 1
    assert store.get("one") == b"%d" % winners[0]


def test_creating_the_same_object_again_is_no_conflict(store: RemoteStore) -> None:
    """A retry that finds what the first try has written has succeeded."""
    assert store.create("one", b"mine") == store.create("one", b"mine")


def test_only_the_version_named_is_replaced(store: RemoteStore) -> None:
    """The second of two writers that have read the same version is refused, and changes nothing."""
    etag = store.create("lease", b"first")
    assert etag is not None
    store.replace("lease", b"second", etag=etag)
    with pytest.raises(StaleVersionError):
        store.replace("lease", b"third", etag=etag)
    assert store.get("lease") == b"second"


def test_what_was_deleted_is_not_replaced(store: RemoteStore) -> None:
    """A lease that someone took away is not written again."""
    etag = store.create("lease", b"first")
    assert etag is not None
    store.delete("lease", "lease")
    with pytest.raises(StaleVersionError):
        store.replace("lease", b"second", etag=etag)
    assert store.find("lease") is None


def test_an_object_is_read_as_a_stream_from_any_place(store: RemoteStore) -> None:
    """Reading on from a place gives the bytes from there, over the borders of the ranges that are fetched."""
    data = bytes(range(256)) * 40_000
    store.put("big", data)
    found = store.find("big")
    assert found is not None
    with store.open_object(found) as stream:
        assert stream.read(10) == data[:10]
        stream.seek(-1000, 2)
        assert stream.read() == data[-1000:]
        stream.seek(4 << 20)
        assert stream.read(100) == data[4 << 20 : (4 << 20) + 100]
        stream.seek(0)
        assert stream.read() == data


def test_a_stream_never_mixes_two_versions(store: RemoteStore) -> None:
    """An object that is replaced while it is read is an error, not half of each."""
    store.put("big", b"a" * (9 << 20))
    found = store.find("big")
    assert found is not None
    with store.open_object(found) as stream:
        stream.read(10)
        store.put("big", b"b" * (9 << 20))
        with pytest.raises(StaleVersionError):
            stream.read()


def test_a_large_object_is_written_piece_by_piece(store: RemoteStore) -> None:
    """Made of other objects while it is written; whoever cannot make it leaves what was there."""
    store.put("one", b"1" * (7 << 20))
    store.put("large", (store.get("one") for _ in range(3)))
    assert store.get("large") == b"1" * (21 << 20)

    def broken() -> Iterator[bytes]:
        yield b"2" * (7 << 20)
        raise KeyError

    with pytest.raises(KeyError):
        store.put("large", broken())
    assert store.get("large") == b"1" * (21 << 20)


@pytest.mark.slow
def test_a_server_that_dies_in_a_multipart_upload_leaves_what_was_there() -> None:
    """A connection error in bounded time, with some of the pieces there; the old object stands until it is replaced."""
    pieces = [b"x" * (1 << 20)] * 24
    with s3_server() as server:

        def die_at_the_third_piece(_: str, target: str) -> None:
            if "partNumber=3&" in target:
                server.kill()

        opened(server, "s3://tests").put("large", b"old")
        with FaultProxy(server.port, before=die_at_the_third_piece) as tap:
            through = opened(server, "s3://tests", endpoint=tap.endpoint, retry_for_s=1)
            with pytest.raises(ConnectionError):
                through.put("large", iter(pieces))
        assert tap.count("PUT", "partNumber=") >= 3
        server.start_again()
        assert opened(server, "s3://tests").get("large") == b"old"
        opened(server, "s3://tests").put("large", iter(pieces))
        assert opened(server, "s3://tests").get("large") == b"".join(pieces)


def test_a_key_that_may_not_write_is_told_so(s3: S3Server, store: RemoteStore, bucket: str) -> None:
    """A reader reads, and its write is a PermissionError; a wrong key is one at once."""
    store.put("a", b"x")
    reader = opened(s3, f"s3://{bucket}/some/prefix", access_key_id="reader-key", secret_access_key="reader-secret")
    assert reader.get("a") == b"x"
    with pytest.raises(PermissionError):
        reader.put("b", b"x")
    wrong = opened(s3, f"s3://{bucket}", secret_access_key="wrong")
    with pytest.raises(PermissionError):
        wrong.get("a")
    with pytest.raises(PermissionError):
        list(wrong.list())


@pytest.mark.slow
def test_a_server_that_goes_away_is_a_connection_error_and_keeps_what_it_had() -> None:
    """While it is gone every request fails within `retry_for_s`; when it is back the objects are there."""
    with s3_server() as server:
        store = opened(server, "s3://bucket/x", retry_for_s=1)
        store.put("a", b"kept")
        server.kill()
        with pytest.raises(ConnectionError):
            store.get("a")
        with pytest.raises(ConnectionError):
            store.create("b", b"x")
        server.start_again()
        assert store.get("a") == b"kept"
        assert store.find("b") is None


def test_a_large_object_may_take_long_to_be_sent() -> None:
    """Until its answer comes, nothing is heard of the server: only the whole of an upload is bounded."""

    def answer_late(line: Line) -> None:
        while line.read() is not None:
            line.ended.wait(1.5)
            line.send(reply(ETag='"x"'))

    with RawServer(answer_late) as server:
        keys = {"access_key_id": "key", "secret_access_key": "secret", "retry_for_s": 0}
        store = RemoteStore.open("s3://bucket", storage={"endpoint": server.url, "read_timeout": "0.5s", **keys})
        assert store.create("part", b"x" * (2 << 20)) == '"x"'
        assert store.put("part", iter([b"x"])) == '"x"'
        for small in (lambda: store.create("lock", b"x"), lambda: store.get("part")):
            with pytest.raises(ConnectionError):
                small()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3:///prefix", "names no bucket"),
        ("s3://key:secret@bucket/x", "holds a user or a key"),
        ("az://container/x?sv=2022&sig=secret", "holds a user or a key"),
        ("ftp://key:secret@bucket/x", "need one of s3://, gs://, az://"),
        ("ftp://bucket/x", "need one of s3://, gs://, az://"),
    ],
)
def test_a_wrong_address_is_refused(uri: str, says: str) -> None:
    """The message says what is wrong with it and repeats no key."""
    with pytest.raises(ConfigError, match=says) as caught:
        RemoteStore.open(uri, storage={})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["endpoint", "endpoint_url", "aws_endpoint_url", "AWS_ENDPOINT_URL"])
def test_an_endpoint_without_tls_may_have_each_of_its_names(s3: S3Server, bucket: str, name: str) -> None:
    """All that the library takes; http:// says by itself that there is no TLS."""
    keys = {"access_key_id": "test-key", "secret_access_key": "test-secret", "region": "us-east-1", "retry_for_s": 1}
    assert list(RemoteStore.open(f"s3://{bucket}", storage={name: s3.endpoint, **keys}).list()) == []


def test_services_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """By endpoint and account, from wherever they come; keys and regions say nothing of it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "a")
    named = {"endpoint_url": "http://127.0.0.1:9/", "region": "x"}
    assert service_of("s3://b/c", {}) == service_of("s3://d", named)
    assert service_of("s3://b", {}) != service_of("s3://b", {"endpoint": "http://127.0.0.1:10"})
    assert service_of("az://b", {}) == service_of("az://b", {"account_name": "a"})
    assert service_of("az://b", {}) != service_of("az://b", {"account_name": "other"})
    assert service_of("gs://b", {}) != service_of("s3://b", {})


def test_an_address_is_not_decoded() -> None:
    """Percent signs, question marks and hashes are of the key, as the clouds' own tools have it."""
    address = parse_address("S3://bucket//a%20b?c#d/")
    assert (address.scheme, address.bucket, address.prefix) == ("s3", "bucket", "a%20b?c#d")
    assert str(address) == "s3://bucket/a%20b?c#d"
    assert is_remote("gs://b/c")
    assert not is_remote("file:///b/c")
    assert not is_remote("data/inbox")


@pytest.mark.parametrize("storage", [{"no_such_option": 1}, {"retry_for_s": "soon"}])
def test_a_wrong_option_is_refused(storage: dict[str, Any]) -> None:
    """An option that the store does not know, or of the wrong type, names itself."""
    with pytest.raises(ConfigError, match=next(iter(storage))):
        RemoteStore.open("s3://bucket/x", storage=storage)


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes the two files of AWS and takes every AWS variable out of the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    def write(config: str, credentials: str) -> None:
        (tmp_path / "config").write_text(config, encoding="utf-8")
        (tmp_path / "credentials").write_text(credentials, encoding="utf-8")

    return write


def test_keys_come_from_a_named_profile(s3: S3Server, bucket: str, profiles: Callable[[str, str], None]) -> None:
    """The endpoint and region of the config file and the keys of the credentials file are used."""
    profiles(
        f"[profile team]\nregion = us-east-1\nendpoint_url = {s3.endpoint}\n",
        "[team]\naws_access_key_id = test-key\naws_secret_access_key = test-secret\n",
    )
    store = RemoteStore.open(f"s3://{bucket}", storage={"profile": "team"})
    store.put("a", b"x")
    assert store.get("a") == b"x"


@pytest.mark.parametrize(("name", "says"), [("nobody", "in neither"), ("sso", "has no aws_access_key_id")])
def test_a_profile_that_cannot_be_used_is_said(name: str, says: str, profiles: Callable[[str, str], None]) -> None:
    """A profile that is not there, or that holds no keys, is an error before anything is asked."""
    profiles("[profile sso]\nsso_session = x\n", "")
    with pytest.raises(ConfigError, match=says):
        RemoteStore.open("s3://bucket/x", storage={"profile": name})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'Server returned 404: <?xml version="1.0"?>\n<Error><Code>NoSuchBucket</Code><Message>It is not there'
            "</Message><Resource>/b</Resource></Error>\n\nDebug source: x",
            "Server returned 404: NoSuchBucket: It is not there",
        ),
        ("GET http://h/b?X-Amz-Signature=abc in 2 ms: <html>no</html>", "GET http://h/b?… in 2 ms: <html>no</html>"),
    ],
)
def test_what_a_store_says_is_one_line_for_people(text: str, told: str) -> None:
    """The code and the message of its XML; whatever else it says, as it stands."""
    assert error_text(OSError(text)) == told

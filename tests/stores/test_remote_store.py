"""A bucket: listing, reading and conditional writing, tested against a real S3 server."""

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
    """Return a prefix of a new bucket."""
    return opened(s3, f"s3://{bucket}/some/prefix")


def opened(server: S3Server, uri: str, **more: Any) -> RemoteStore:
    """Return the store of an address on this server, with a key of full rights."""
    keys = {"access_key_id": "test-key", "secret_access_key": "test-secret"}
    return RemoteStore.open(uri, storage={"endpoint": server.endpoint, "region": "us-east-1", **keys, **more})


def test_objects_are_read_back_unchanged(store: RemoteStore) -> None:
    """After a put, find, get and list return the key, size, ETag and bytes."""
    etag = store.put("a/b.txt", b"hello")
    stored = store.find("a/b.txt")
    assert stored is not None
    assert (stored.key, stored.size_bytes, stored.etag) == ("a/b.txt", 5, etag)
    assert list(store.list()) == [stored]
    assert store.get_with_etag("a/b.txt") == (b"hello", etag)


@pytest.mark.parametrize("key", ["with space", "hash#1", "per%cent", "%41", "ünï/ço", "a+b?", "~[x]", "..x"])
def test_key_is_taken_literally(store: RemoteStore, key: str) -> None:
    """Characters that a URL would encode or decode are part of the name."""
    store.put(key, key.encode())
    assert [entry.key for entry in store.list()] == [key]
    assert store.get(key) == key.encode()


def test_listing_has_all_pages(s3: S3Server, bucket: str) -> None:
    """Each of 5,000 keys is listed once, in order, one page at a time on demand."""
    keys = [f"d/{number:05}.txt" for number in range(5000)]
    with FaultProxy(s3.port) as tap:
        store = opened(s3, f"s3://{bucket}", endpoint=tap.endpoint)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: store.put(key, b"x"), keys))
        listed = store.list("d")
        assert next(listed).key == keys[0]
        assert tap.count("GET") < 4
        assert [entry.key for entry in listed] == keys[1:]
        assert tap.count("GET") >= 5


def test_prefix_means_a_folder(s3: S3Server, bucket: str) -> None:
    """`in` lists in/… but not inbox/…."""
    whole = opened(s3, f"s3://{bucket}")
    for key in ("in/a.txt", "inbox/b.txt"):
        whole.put(key, b"x")
    assert [entry.key for entry in opened(s3, f"s3://{bucket}/in/").list()] == ["a.txt"]


def test_missing_objects_and_buckets_are_reported(store: RemoteStore, s3: S3Server) -> None:
    """For a missing object find returns None and get raises FileNotFoundError.

    A missing bucket raises in the listing.
    """
    store.put("a", b"x")
    assert store.find("b") is None
    with pytest.raises(FileNotFoundError):
        store.get("b")
    with pytest.raises(FileNotFoundError):
        list(opened(s3, "s3://no-such-bucket-here/x").list())


def test_one_of_many_writers_creates_an_object(store: RemoteStore) -> None:
    """Of 16 threads creating a key at the same moment one succeeds, and its bytes are stored."""
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


def test_repeated_create_with_equal_bytes_succeeds(store: RemoteStore) -> None:
    """A retry may find the object of its first try."""
    assert store.create("one", b"mine") == store.create("one", b"mine")


def test_replace_requires_the_current_version(store: RemoteStore) -> None:
    """The second of two writers that have read the same version is refused without a change."""
    etag = store.create("lease", b"first")
    assert etag is not None
    store.replace("lease", b"second", etag=etag)
    with pytest.raises(StaleVersionError):
        store.replace("lease", b"third", etag=etag)
    assert store.get("lease") == b"second"


def test_deleted_object_is_not_replaced(store: RemoteStore) -> None:
    """A removed lease is not written again."""
    etag = store.create("lease", b"first")
    assert etag is not None
    store.delete("lease", "lease")
    with pytest.raises(StaleVersionError):
        store.replace("lease", b"second", etag=etag)
    assert store.find("lease") is None


def test_object_is_streamed_from_any_offset(store: RemoteStore) -> None:
    """The bytes are right across the borders of the fetched ranges."""
    data = bytes(range(256)) * 40_000
    store.put("big", data)
    stored = store.find("big")
    assert stored is not None
    with store.open_object(stored) as stream:
        assert stream.read(10) == data[:10]
        stream.seek(-1000, 2)
        assert stream.read() == data[-1000:]
        stream.seek(4 << 20)
        assert stream.read(100) == data[4 << 20 : (4 << 20) + 100]
        stream.seek(0)
        assert stream.read() == data


def test_stream_never_mixes_two_versions(store: RemoteStore) -> None:
    """An object replaced while it is read is an error."""
    store.put("big", b"a" * (9 << 20))
    stored = store.find("big")
    assert stored is not None
    with store.open_object(stored) as stream:
        stream.read(10)
        store.put("big", b"b" * (9 << 20))
        with pytest.raises(StaleVersionError):
            stream.read()


def test_large_object_is_written_in_pieces(store: RemoteStore) -> None:
    """It may be made from other objects meanwhile, and a failure leaves the old object."""
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
def test_failed_multipart_upload_keeps_the_old_object() -> None:
    """The server dies after some pieces: a connection error follows in bounded time."""
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


def test_read_only_key_gets_permission_error_on_write(s3: S3Server, store: RemoteStore, bucket: str) -> None:
    """Reading works; a wrong key gets a PermissionError at once."""
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
def test_unreachable_server_is_a_connection_error() -> None:
    """Each request fails within `retry_for_s`, and later the objects are still there."""
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


def test_long_upload_is_not_cut_by_a_read_timeout() -> None:
    """The server sends no byte before its reply, so only the whole upload has a limit."""

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
def test_invalid_store_address_is_refused(uri: str, says: str) -> None:
    """The message contains the error and no key."""
    with pytest.raises(ConfigError, match=says) as caught:
        RemoteStore.open(uri, storage={})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["endpoint", "endpoint_url", "aws_endpoint_url", "AWS_ENDPOINT_URL"])
def test_each_endpoint_option_name_accepts_http(s3: S3Server, bucket: str, name: str) -> None:
    """These are all names that the library accepts; http:// implies no TLS."""
    keys = {"access_key_id": "test-key", "secret_access_key": "test-secret", "region": "us-east-1", "retry_for_s": 1}
    assert list(RemoteStore.open(f"s3://{bucket}", storage={name: s3.endpoint, **keys}).list()) == []


def test_services_differ_by_endpoint_and_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may come from any source; keys and regions do not distinguish services."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "a")
    named = {"endpoint_url": "http://127.0.0.1:9/", "region": "x"}
    assert service_of("s3://b/c", {}) == service_of("s3://d", named)
    assert service_of("s3://b", {}) != service_of("s3://b", {"endpoint": "http://127.0.0.1:10"})
    assert service_of("az://b", {}) == service_of("az://b", {"account_name": "a"})
    assert service_of("az://b", {}) != service_of("az://b", {"account_name": "other"})
    assert service_of("gs://b", {}) != service_of("s3://b", {})


def test_store_address_is_not_decoded() -> None:
    """Percent signs, question marks and hashes belong to the key, as in the clouds' own tools."""
    address = parse_address("S3://bucket//a%20b?c#d/")
    assert (address.scheme, address.bucket, address.prefix) == ("s3", "bucket", "a%20b?c#d")
    assert str(address) == "s3://bucket/a%20b?c#d"
    assert is_remote("gs://b/c")
    assert not is_remote("file:///b/c")
    assert not is_remote("data/inbox")


@pytest.mark.parametrize("storage", [{"no_such_option": 1}, {"retry_for_s": "soon"}])
def test_invalid_store_option_is_refused(storage: dict[str, Any]) -> None:
    """An unknown option, or one of the wrong type, is named."""
    with pytest.raises(ConfigError, match=next(iter(storage))):
        RemoteStore.open("s3://bucket/x", storage=storage)


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write the two AWS files, and remove every AWS variable from the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    def write(config: str, credentials: str) -> None:
        (tmp_path / "config").write_text(config, encoding="utf-8")
        (tmp_path / "credentials").write_text(credentials, encoding="utf-8")

    return write


def test_keys_come_from_a_named_profile(s3: S3Server, bucket: str, profiles: Callable[[str, str], None]) -> None:
    """Endpoint and region come from the config file, keys from the credentials file."""
    profiles(
        f"[profile team]\nregion = us-east-1\nendpoint_url = {s3.endpoint}\n",
        "[team]\naws_access_key_id = test-key\naws_secret_access_key = test-secret\n",
    )
    store = RemoteStore.open(f"s3://{bucket}", storage={"profile": "team"})
    store.put("a", b"x")
    assert store.get("a") == b"x"


@pytest.mark.parametrize(("name", "says"), [("nobody", "in neither"), ("sso", "has no aws_access_key_id")])
def test_unusable_profile_is_refused(name: str, says: str, profiles: Callable[[str, str], None]) -> None:
    """A missing profile, or one without keys, is an error before any request."""
    profiles("[profile sso]\nsso_session = x\n", "")
    with pytest.raises(ConfigError, match=says):
        RemoteStore.open("s3://bucket/x", storage={"profile": name})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'Server returned 404: <?xml version="1.0"?>\n<Error><Code>NoSuchBucket</Code><Message>It is not there'
            "</Message><Resource>/b</Resource></Error>\n\nDebug source: x",
            "Server returned 404: NoSuchBucket: It is not there",
        ),
        ("GET http://h/b?X-Amz-Signature=abc in 2 ms: <html>no</html>", "GET http://h/b?… in 2 ms: <html>no</html>"),
    ],
)
def test_store_errors_become_one_readable_line(text: str, message: str) -> None:
    """Code and message of the XML are used, and other text stays as it is."""
    assert error_text(OSError(text)) == message

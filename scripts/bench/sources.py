"""Measure documents per second and peak memory of each kind of input, for a small and a large one.

    python scripts/bench sources                      # 1,000 and 200,000 documents
    python scripts/bench sources --short              # 1,000 and 5,000
    python scripts/bench sources --s3                 # also an object store: SeaweedFS, which the test extra installs
    python scripts/bench sources --s3 s3://bucket/p   # your own bucket, by the environment; it is filled

Each is listed, read and decoded in a process of its own, in one thread. Timings hold for one machine and one moment:
compare within a table. The memory must stay flat.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
import zstandard

from bench.site import SCRIPTS, Figure, own_peak_mb, table
from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.documents.helpers.pool import POOL, SPLITTERS
from pipeline.stores import RemoteStore

LARGE = 200_000
SHORT = 5_000
SMALL = 1_000
_WORDS = "The central bank left its rate where it was, and the shares of the lender fell by three per cent. " * 10


def texts(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and texts of about a kilobyte, in folders of a thousand; each text has an incompressible part."""
    digests = (sha256(b"%d" % n).hexdigest() for n in range(count))
    return ((f"{n // 1000:04}/{n:07}.txt", f"{n} {_WORDS} {digest}".encode()) for n, digest in enumerate(digests))


def make_folder(path: Path, count: int) -> None:
    """A file for each document."""
    for name, data in texts(count):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def make_zip(path: Path, count: int) -> None:
    """A deflated zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in texts(count):
            archive.writestr(name, data)


def make_tar(path: Path, count: int) -> None:
    """A tar in zstd."""
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for name, data in texts(count):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def make_lines(path: Path, count: int) -> None:
    """JSON lines in gzip."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for name, data in texts(count):
            file.write(json.dumps({"name": name, "text": data.decode()}).encode() + b"\n")


def make_array(path: Path, count: int) -> None:
    """A JSON array."""
    with path.open("wb") as file:
        for name, data in texts(count):
            comma = b"," if file.tell() else b"["
            file.write(comma + json.dumps({"name": name, "text": data.decode()}).encode())
        file.write(b"]")


def make_table(path: Path, count: int) -> None:
    """A CSV file."""
    with path.open("wb") as file:
        file.write(b"name,text\n")
        for name, data in texts(count):
            file.write(b'%s,"%s"\n' % (name.encode(), data))


def make_parquet(path: Path, count: int) -> None:
    """A Parquet file in row groups of ten thousand."""
    schema = pyarrow.schema({"name": pyarrow.string(), "text": pyarrow.string()})
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in batched(texts(count), 10_000):
            rows = [{"name": name, "text": data.decode()} for name, data in group]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def batched(items: Iterator[tuple[str, bytes]], size: int) -> Iterator[list[tuple[str, bytes]]]:
    """Yield the items in lists of this size."""
    while batch := list(islice(items, size)):
        yield batch


def make_feed(path: Path, count: int) -> None:
    """A feed in RSS."""
    with path.open("wb") as file:
        file.write(b"<?xml version='1.0' encoding='utf-8'?><rss version='2.0'><channel><title>Bench</title>\n")
        for name, data in texts(count):
            item = b"<item><guid>%s</guid><title>Rates</title><description>&lt;p&gt;%s&lt;/p&gt;</description></item>\n"
            file.write(item % (name.encode(), data))
        file.write(b"</channel></rss>")


def make_filing(path: Path, count: int) -> None:
    """A full submission to EDGAR."""
    with path.open("wb") as file:
        file.write(b"<SEC-DOCUMENT>bench\n<SEC-HEADER>\nCONFORMED SUBMISSION TYPE:\t8-K\n</SEC-HEADER>\n")
        for _, data in texts(count):
            file.write(b"<DOCUMENT>\n<TYPE>EX-99\n<TEXT>\n%s\n</TEXT>\n</DOCUMENT>\n" % data)
        file.write(b"</SEC-DOCUMENT>\n")


def make_web_archive(path: Path, count: int) -> None:
    """A WARC with a gzip member for each record."""
    with path.open("wb") as file:
        for name, data in texts(count):
            block = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + data
            head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://bench.example/{name}\r\n"
            head += f"Content-Type: application/http\r\nContent-Length: {len(block)}\r\n\r\n"
            file.write(gzip.compress(head.encode() + block + b"\r\n\r\n", compresslevel=1))


LOCAL = {
    "folder": make_folder,
    "x.zip": make_zip,
    "x.tar.zst": make_tar,
    "x.jsonl.gz": make_lines,
    "x.json": make_array,
    "x.csv": make_table,
    "x.rss": make_feed,
    "x.txt": make_filing,
    "x.warc.gz": make_web_archive,
    "x.parquet": make_parquet,
}


def make_objects(uri: str, count: int) -> None:
    """An object for each document."""
    store = RemoteStore.open(uri, storage={})
    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(lambda item: store.put(*item), texts(count)):
            pass


def measure(uri: str) -> None:
    """Print documents, seconds, and the peak memory in megabytes with that of the largest helper, as JSON."""
    started = time.perf_counter()
    count = 0
    config = InputConfig(uri=(InputSource(uri),))
    for entry in load_entries(config, output=None, counts=ListingCounts()):
        decode(entry, entry.read(), text_field="text")
        count += 1
    seconds = time.perf_counter() - started
    for helpers in (POOL, SPLITTERS):
        helpers.close()
    helpers_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"count": count, "seconds": seconds, "peak_mb": own_peak_mb() + helpers_mb}))


def measured(uri: str, count: int) -> tuple[float, float]:
    """Return documents per second and peak memory in MB, measured in a process of its own."""
    command = [sys.executable, str(SCRIPTS), "sources", "--measure", uri]
    measurement = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if measurement["count"] != count:
        raise SystemExit(f"{uri}: got {measurement['count']} documents, need {count}")
    return count / measurement["seconds"], measurement["peak_mb"]


def main() -> None:
    """Make each input, measure it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help=f"{SHORT:,} documents are many")
    parser.add_argument("--documents", type=int, help=f"how many are many (default {LARGE:,})")
    parser.add_argument("--s3", metavar="URI", nargs="?", const="", help="a prefix to fill and to measure as well")
    parser.add_argument("--measure", metavar="URI", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    large = arguments.documents or (SHORT if arguments.short else LARGE)
    results = figures(large, s3=arguments.s3)
    print(table(("source", "result", "aim"), [(figure.quantity, figure.result, figure.aim) for figure in results]))


def short() -> Iterator[Figure]:
    """Each local kind, with fewer documents."""
    return figures(SHORT, s3=None)


def figures(large: int, *, s3: str | None) -> Iterator[Figure]:
    """Yield a row for each kind of input; `s3` None leaves the object store out."""
    for source in LOCAL:
        yield _figure(source, large, partial(_local, source))
    if s3 is not None:
        with _bucket(s3) as uri:
            yield _figure("s3", large, partial(_remote, uri))


def _figure(source: str, large: int, measure_one: Callable[[int], tuple[float, float]]) -> Figure:
    (slow, less), (fast, more) = measure_one(SMALL), measure_one(large)
    result = f"{slow:,.0f} and {fast:,.0f} documents/s, {less:.1f} and {more:.1f} MB at most ({more - less:+.1f})"
    return Figure(f"{SMALL:,} and {large:,} documents in {source}", result, "flat memory")


@contextmanager
def _bucket(uri: str) -> Iterator[str]:
    """Yield the named prefix, or that of a local server, which children find by the environment."""
    if uri:
        yield uri
        return
    from s3_server import s3_server

    with s3_server() as server:
        os.environ.update(server.env)
        yield "s3://bench/sources"


def _remote(uri: str, count: int) -> tuple[float, float]:
    make_objects(f"{uri.rstrip('/')}/{count}", count)
    return measured(f"{uri.rstrip('/')}/{count}", count)


def _local(source: str, count: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="bench-sources-") as folder:
        path = Path(folder, source)
        LOCAL[source](path, count)
        return measured(os.fspath(path), count)


if __name__ == "__main__":
    main()

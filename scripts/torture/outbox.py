"""The output of a campaign: a folder, or a bucket of a real S3 server behind a proxy that can fail.

It must not change the files of a run, except the lock of a run that is known to be dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store
from s3_faults import FaultProxy

PART_SECONDS = 1
PART_BYTES = 4000
UNWRITTEN = 48
"""Most records that a killed run may lose: two closed parts and two open ones of about six records each, and those that
arrive while no more parts can be closed."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """The output of a campaign; `files(folder)` yields names and contents, sorted by name; `free` releases the lock.

    `settings`: of `output`. `folder`: where it is on this machine; None in a bucket. `unwritten`: records that a killed
    run may lose.
    """

    settings: Mapping[str, Any]
    files: Callable[[str], Iterator[tuple[str, bytes]]]
    free: Callable[[], object] = lambda: None
    folder: Path | None = None
    unwritten: int = 0
    proxy: FaultProxy | None = field(default=None)

    def content(self, name: str) -> bytes | None:
        """Return the content of one file."""
        return next((data for file_name, data in self.files(name) if file_name == name), None)


def folder_outbox(folder: Path) -> Outbox:
    """Return an output in a local folder."""

    def files(prefix: str) -> Iterator[tuple[str, bytes]]:
        path = folder / prefix
        for file in sorted(path.rglob("*") if path.is_dir() else folder.glob(f"{prefix}*")):
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file.read_bytes()

    return Outbox({"uri": str(folder)}, files, folder=folder)


def bucket_outbox(bucket: str, prefix: str, *, proxy: FaultProxy, environ: Mapping[str, str]) -> Outbox:
    """Return an output in a bucket; runs write it through the proxy, and it is checked directly."""
    keys = {"access_key_id": environ["AWS_ACCESS_KEY_ID"], "secret_access_key": environ["AWS_SECRET_ACCESS_KEY"]}
    region = environ["AWS_REGION"]
    store = S3Store(
        bucket,
        prefix=prefix,
        endpoint=f"http://127.0.0.1:{proxy.port}",
        region=region,
        client_options={"allow_http": True},
        **keys,  # type: ignore[arg-type]
    )

    def files(start: str) -> Iterator[tuple[str, bytes]]:
        names = [meta["path"] for page in obstore.list(store) for meta in page]
        for name in sorted(name for name in names if name.startswith(start)):
            yield name, bytes(obstore.get(store, name).bytes())

    def free() -> None:
        obstore.put(store, ".lock/all", b'{"free": true}\n')

    settings = {
        "uri": f"s3://{bucket}/{prefix}",
        "part_seconds": PART_SECONDS,
        "part_bytes": PART_BYTES,
        "storage": {"endpoint": proxy.endpoint, "region": region, **keys},
    }
    return Outbox(settings, files, free, unwritten=UNWRITTEN, proxy=proxy)

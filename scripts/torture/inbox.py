"""The input of a campaign: in a folder, or in a bucket of a real S3 server behind a proxy that can fail.

It must not know the content of documents: it takes names and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store
from s3_faults import FaultProxy

STORAGE: Mapping[str, Any] = {"retry_for_s": 0.5}
"""Short, so that the run's own retries are tested and not those of the store's client."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """The input of a run, and a function that puts documents into it; `proxy`: switches the faults of a store."""

    uri: str
    put: Callable[[str, bytes], object]
    storage: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    proxy: FaultProxy | None = None


def folder_inbox(folder: Path) -> Inbox:
    """Return an input in a local folder."""

    def put(name: str, data: bytes) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return Inbox(str(folder), put)


def bucket_inbox(bucket: str, prefix: str, *, proxy: FaultProxy, environ: Mapping[str, str]) -> Inbox:
    """Return an input in a bucket; documents are put there directly, and runs read them through the proxy."""
    store = S3Store(
        bucket,
        prefix=prefix,
        endpoint=f"http://127.0.0.1:{proxy.port}",
        access_key_id=environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        region=environ["AWS_REGION"],
        client_options={"allow_http": True},
    )
    through = {**environ, "AWS_ENDPOINT_URL": proxy.endpoint}
    return Inbox(f"s3://{bucket}/{prefix}", lambda name, data: obstore.put(store, name, data), STORAGE, through, proxy)

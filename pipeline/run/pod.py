"""Commands for the user after a pod of Kubernetes has ended early: kubectl or helm, not the command of the container.

It must not call Kubernetes: its only source is the environment of the pod.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from pipeline.errors import EXIT_CONFIG, EXIT_FAILURES

_ABOUT: Mapping[int, str] = {
    EXIT_FAILURES: "too many failures, which is not tried again: check the report, then start the Job again",
    EXIT_CONFIG: "configuration error, which ends the Job: fix it, then start the Job again",
}
_TRIED_AGAIN = "Kubernetes starts another pod while the Job has tries left; once the Job has failed, start it again"


def in_pod(environ: Mapping[str, str]) -> bool:
    """Return True in a pod of Kubernetes, which sets this variable in every container."""
    return bool(environ.get("KUBERNETES_SERVICE_HOST"))


EMPTY_INPUT = (
    "the input holds no document: put some there with `kubectl cp`, through a pod that mounts the volume; "
    "`helm get notes RELEASE` shows the commands"
)


def resume_command(environ: Mapping[str, str]) -> str:
    """Return the command that resumes the work of this pod; "" outside of Kubernetes.

    It is PIPELINE_RESUME_COMMAND, which the chart sets, else the command that shows the logs of the Job's pods.
    """
    if not in_pod(environ):
        return ""
    return environ.get("PIPELINE_RESUME_COMMAND") or logs_command(environ)


def logs_command(environ: Mapping[str, str]) -> str:
    """Return the kubectl command that shows the last log lines of all pods of this pod's Job, or of this pod."""
    namespace = environ.get("POD_NAMESPACE")
    job = environ.get("JOB_NAME")
    words = ["kubectl", *(["--namespace", namespace] if namespace else []), "logs"]
    if job:
        words += ["--selector", f"batch.kubernetes.io/job-name={job}", "--prefix", "--tail=20"]
    else:
        words += [environ.get("HOSTNAME", "POD"), "--tail=20"]
    return shlex.join(words)


def advice(exit_code: int, environ: Mapping[str, str]) -> tuple[str, dict[str, str]] | None:
    """Return the last log line of a pod and its fields; None when no action is needed, or outside of Kubernetes."""
    if not exit_code or not in_pod(environ):
        return None
    fields = {"resume": resume_command(environ), "logs": logs_command(environ)}
    if fields["resume"] == fields["logs"]:
        del fields["resume"]
    return _ABOUT.get(exit_code, _TRIED_AGAIN), fields

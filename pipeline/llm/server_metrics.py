"""What a vLLM server tells of its queue on /metrics (vLLM 0.32.0, Prometheus text); no answer is no gauge.

It asks once and keeps nothing but the last count of preemptions.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.llm.transport.http import CallFailedError, Endpoint

TIMEOUT_S = 2.0
_NAMES = ("num_requests_running", "num_requests_waiting", "num_preemptions_total")


@dataclass(frozen=True, slots=True)
class Gauges:
    """Requests at work and waiting now; `preempted`: work was thrown away for want of memory since the last look."""

    running: float
    waiting: float
    preempted: bool = False


class GaugeReader:
    """Reads one server's gauges; a page that is not there, or not vLLM's, is not asked for again."""

    def __init__(self, endpoint: Endpoint, path: str) -> None:
        self._endpoint = endpoint
        self._path = path
        self._preemptions: float | None = None
        self._is_there = True

    def read(self) -> Gauges | None:
        """What the server tells; None when it tells nothing."""
        if not self._is_there:
            return None
        try:
            reply = self._endpoint.get(self._path, timeout_s=TIMEOUT_S)
        except CallFailedError:
            return None
        gauges = parse(reply.body.decode("utf-8", "replace")) if reply.status == 200 else {}
        if "num_requests_waiting" not in gauges:
            self._is_there = reply.status >= 500
            return None
        count = gauges.get("num_preemptions_total")
        before = self._preemptions
        self._preemptions = count
        preempted = count is not None and before is not None and count > before
        return Gauges(gauges.get("num_requests_running", 0.0), gauges["num_requests_waiting"], preempted)


def parse(text: str) -> dict[str, float]:
    """vLLM's gauges by name without their prefix, summed over engines; those it does not tell are left out."""
    gauges: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("vllm:"):
            continue
        name = line[5:].partition("{")[0].partition(" ")[0]
        value = line.rpartition(" ")[2]
        if name in _NAMES:
            try:
                gauges[name] = gauges.get(name, 0.0) + float(value)
            except ValueError:
                continue
    return gauges

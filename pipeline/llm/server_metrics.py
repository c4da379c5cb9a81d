"""Read the gauges of a vLLM server's queue from /metrics (vLLM 0.32.0, Prometheus text format).

It sends one request per call and keeps only the last count of preemptions.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.llm.transport.http import CallFailedError, Endpoint

TIMEOUT_S = 2.0
_NAMES = ("num_requests_running", "num_requests_waiting", "num_preemptions_total")


@dataclass(frozen=True, slots=True)
class Gauges:
    """Requests that run and wait now; `preempted`: work was dropped for lack of memory since the last reading."""

    running: float
    waiting: float
    preempted: bool = False


class GaugeReader:
    """Reader of one server's gauges; a page that does not exist, or is not vLLM's, is not requested again."""

    def __init__(self, endpoint: Endpoint, path: str) -> None:
        self._endpoint = endpoint
        self._path = path
        self._preemptions: float | None = None
        self._is_there = True

    def read(self) -> Gauges | None:
        """Return the gauges; None when the server does not report them."""
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
        last_count = self._preemptions
        self._preemptions = count
        preempted = count is not None and last_count is not None and count > last_count
        return Gauges(gauges.get("num_requests_running", 0.0), gauges["num_requests_waiting"], preempted)


def parse(text: str) -> dict[str, float]:
    """Parse vLLM's gauges: by name without the prefix, summed over engines."""
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

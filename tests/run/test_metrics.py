"""Metrics: their frozen names, the three ways to publish them, and that their failures never change a run's end."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from conftest import Child, Place
from fake_llm import FakeLLM, Fault
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from raw_server import answering, reply

from pipeline.records import Entry, ExtractionAttempt, ModelMetadata, Unchanged
from pipeline.run.display.metric_families import SUCCESS, Families
from pipeline.run.display.metrics import Destinations, Metrics
from pipeline.run.document.process import FinishedEntry

CONFIG = Path(__file__).parents[2] / "config"
PAGE = (CONFIG.parent / "docs" / "operations.md").read_text(encoding="utf-8")

FROZEN = {
    "pipeline_documents_total": ("outcome", "reason"),
    "pipeline_windows_total": ("outcome",),
    "pipeline_documents_found": (),
    "pipeline_documents_in_flight": (),
    "pipeline_concurrency_limit": (),
    "pipeline_attempts_total": ("provider", "error"),
    "pipeline_tokens_total": ("provider", "kind"),
    "pipeline_overhead_requests_total": (),
    "pipeline_overhead_prompt_tokens_total": (),
    "pipeline_attempt_duration_seconds": ("provider",),
    "pipeline_queue_wait_seconds": ("provider",),
    "pipeline_provider_up": ("provider",),
    "pipeline_start_timestamp_seconds": (),
    "pipeline_exit_code": (),
    "pipeline_documents_remaining_failed": ("reason",),
    "pipeline_documents_accepted_failed": ("reason",),
    "pipeline_last_success_timestamp_seconds": (),
}
"""Every metric and its labels beside `agent` and `shard`. Others have built on these: they may be added to only."""


@dataclass
class Scrape:
    """A parsed page of metrics."""

    samples: list[Sample]

    @classmethod
    def of(cls, text: str) -> Scrape:
        return cls([sample for family in text_string_to_metric_families(text) for sample in family.samples])

    def get(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples with this name and these labels, or None without any."""
        collected = [
            sample.value
            for sample in self.samples
            if sample.name == name and all(sample.labels.get(key, "") == value for key, value in labels.items())
        ]
        return sum(collected) if collected else None

    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}


def scrape(port: int) -> Scrape:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as reply:
        return Scrape.of(reply.read().decode())


@dataclass
class Gateway:
    """A push gateway that records what it receives; `meanwhile` is called before it answers."""

    status: int = 200
    pushed: list[tuple[str, str, Mapping[str, str], str]] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    url: str = ""

    @contextmanager
    def running(self) -> Iterator[Gateway]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                gateway.pushed.append((self.command, self.path, dict(self.headers), body))
                gateway.meanwhile()
                self.send_response(gateway.status)
                self.end_headers()

            do_PUT = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """Yield a push gateway on a free port."""
    with Gateway().running() as running:
        yield running


def port_of(child: Child) -> int:
    """Return the metrics port that a run with a JSON log reports."""
    assert child.process.stderr is not None
    for line in child.process.stderr:
        if (event := json.loads(line))["message"] == "Serving metrics":
            return int(event["port"])
    raise AssertionError("no port in the log")


def textfile(place: Place) -> Scrape:
    return Scrape.of((place.folder / "metrics.prom").read_text(encoding="utf-8"))


# ---- names


def test_metric_names_and_labels_are_frozen() -> None:
    """Alerts, dashboards and the rules of users depend on them."""
    labels = {}
    for name, family in vars(Families()).items():
        if name != "registry":
            full = family._name + ("_total" if family._type == "counter" else "")
            assert family._labelnames[:2] == ("agent", "shard"), full
            labels[full] = family._labelnames[2:]
    assert labels == FROZEN


def test_documentation_lists_all_metrics() -> None:
    """Each metric is listed with its labels."""
    listed = re.findall(r"`(pipeline_\w+)(?:\{([\w, ]+)\})?`", PAGE)
    assert {name: tuple(filter(None, labels.split(", "))) for name, labels in listed} == FROZEN


def expressions() -> Iterator[str]:
    """Yield each query of the alerts and of the dashboard."""
    rules = yaml.safe_load((CONFIG / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])
    board = json.loads((CONFIG / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    yield from (target["expr"] for panel in board["panels"] for target in panel["targets"])
    yield from (variable["query"] for variable in board["templating"]["list"] if variable["type"] == "query")


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_queries_use_existing_metrics_and_labels(expression: str) -> None:
    """A query with an unknown metric returns no data, so an alert would silently never fire."""
    names = re.findall(r"\bpipeline_\w+", expression)
    labels_of = {
        **FROZEN,
        **{f"{name}_bucket": (*labels, "le") for name, labels in FROZEN.items() if "_seconds" in name},
    }
    assert names
    assert set(names) <= labels_of.keys()
    allowed = {"agent", "shard", *(label for name in names for label in labels_of[name])}
    used = {
        *re.findall(r"(\w+)\s*=?[=~!]", re.sub(r'"[^"]*"', "", " ".join(re.findall(r"\{([^}]*)\}", expression)))),
        *(name for group in re.findall(r"\bby \(([^)]*)\)", expression) for name in group.replace(" ", "").split(",")),
        *re.findall(r"label_values\(\w+, (\w+)\)", expression),
    }
    assert used <= allowed


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) not here")


@needs_promtool
@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_promtool_accepts_the_alerts(arguments: tuple[str, ...]) -> None:
    """The rules are valid, fire when they should, and stay silent on a good run."""
    ran = subprocess.run(
        ["promtool", *arguments], cwd=CONFIG / "prometheus", capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_promtool
def test_promtool_accepts_the_dashboard_queries(tmp_path: Path) -> None:
    """Each dashboard query parses with Grafana's variables filled in."""
    queries = [text for text in expressions() if not text.startswith("label_values")]
    filled = [re.sub(r"\$(agent|shard)", ".*", text).replace("$__rate_interval", "1m") for text in queries]
    rules = [{"record": f"query:{at}", "expr": text} for at, text in enumerate(filled)]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    ran = subprocess.run(
        ["promtool", "check", "rules", "rules.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


# ---- textfile, server and gateway


def test_metrics_are_served_during_a_run_and_at_its_end(place: Place, server: FakeLLM, gateway: Gateway) -> None:
    """During the run they count finished documents and those in flight, without a success; at the end all adds up."""
    place.documents(
        {"a.txt": "x", "bad.txt": "[[fault:http_400]]", "held.txt": "y", "flaky.txt": "[[fault:http_500*1]]"}
    )
    place.configure({"runner.max_error_rate": 1})
    go_on = threading.Event()

    def hold(request: Any, _n: int) -> Fault | None:
        if request.document == "held.txt":
            go_on.wait(30)
        return None

    server.faults = hold
    last: list[Scrape] = []
    child = place.start(
        "run", "--metrics-port", "0", "--log-format", "json", "--progress", "none", "--pushgateway", gateway.url
    )
    port = port_of(child)
    gateway.meanwhile = lambda: last.append(scrape(port))
    place.wait_for(lambda: scrape(port).get("pipeline_documents_in_flight") == 1, "one held document")
    place.wait_for(lambda: scrape(port).get("pipeline_documents_total", outcome="done") == 2, "two that are done")
    middle = scrape(port)
    go_on.set()
    assert child.end().code == 0
    assert SUCCESS not in middle.names()
    assert "pipeline_exit_code" not in middle.names()
    assert middle.get("pipeline_documents_total", outcome="failed", reason="rejected") == 1
    assert middle.get("pipeline_provider_up", provider="vllm") == 1
    assert middle.get("pipeline_concurrency_limit") == 4
    (end,) = last
    assert end.get("pipeline_documents_total", outcome="done", reason="", agent="small") == 3
    assert end.get("pipeline_documents_found") == end.get("pipeline_documents_total") == 4
    assert end.get("pipeline_documents_in_flight") == 0
    assert end.get("pipeline_attempts_total", provider="vllm", error="http_500") == 1
    assert end.get("pipeline_attempts_total", provider="vllm", error="") == 3
    assert end.get("pipeline_attempt_duration_seconds_count", provider="vllm") == 6
    assert end.get("pipeline_exit_code") == 0
    usage = [line["usage"] for line in place.lines("results.jsonl")]
    assert end.get("pipeline_tokens_total", kind="prompt") == sum(counts["prompt_tokens"] for counts in usage)
    assert end.get("pipeline_tokens_total", kind="completion") == sum(counts["completion_tokens"] for counts in usage)


def test_ollama_queue_wait_is_a_histogram(place: Place) -> None:
    """It counts each request for which the server reported a queue time."""
    place.documents(3)
    place.configure({"provider": "ollama", "ollama.base_url": place.server.url, "ollama.model": "llama3.1"})
    place.run("--metrics-textfile", "metrics.prom")
    assert textfile(place).get("pipeline_queue_wait_seconds_count", provider="ollama") == 3


def test_push_is_grouped_by_agent_and_shard(place: Place, gateway: Gateway) -> None:
    """Each shard has its own group; POST keeps the metrics of the group that this run does not send."""
    place.documents(4)
    place.run("--pushgateway", gateway.url.replace("http://", "http://me:s%40fe@") + "/", "--shard", "1/2")
    ((method, path, headers, body),) = gateway.pushed
    assert (method, path) == ("POST", "/metrics/job/pipeline/agent/small/shard@base64/MS8y")
    assert headers["Authorization"] == "Basic bWU6c0BmZQ=="
    assert time.time() - 600 < (Scrape.of(body).get(SUCCESS, shard="1/2") or 0) <= time.time()


def test_second_run_counts_skipped_documents(place: Place) -> None:
    """The metrics count five skipped documents and no requests."""
    place.documents(5)
    place.run()
    place.run("--metrics-textfile", "metrics.prom")
    scrape = textfile(place)
    assert scrape.get("pipeline_documents_total", outcome="skipped") == 5
    assert scrape.get("pipeline_attempts_total") is None


@pytest.mark.parametrize(
    ("text", "settings", "code"),
    [
        ("[[fault:http_400]]", {}, 1),
        ("x", {"runner.max_outage_s": 0.2, "runner.startup_wait_s": 0, "vllm.base_url": "http://127.0.0.1:9"}, 3),
    ],
)
def test_failed_run_sends_no_success_timestamp(
    place: Place, gateway: Gateway, text: str, settings: Mapping[str, Any], code: int
) -> None:
    """The gateway then keeps the timestamp of an earlier success."""
    place.documents({"a.txt": text})
    place.configure(settings)
    place.run("--pushgateway", gateway.url, "--metrics-textfile", "metrics.prom", code=code)
    for scrape in (Scrape.of(gateway.pushed[0][3]), textfile(place)):
        assert scrape.get(SUCCESS) is None
        assert scrape.get("pipeline_exit_code") == code


def test_text_file_keeps_the_last_success_timestamp(place: Place) -> None:
    """A failed run rewrites the file, and the alert for a missing run still needs the earlier timestamp."""
    place.documents(1)
    place.run("--metrics-textfile", "metrics.prom")
    before = textfile(place).get(SUCCESS)
    assert before is not None
    place.documents({"b.txt": "[[fault:http_400]]", "c.txt": "[[fault:http_400]]"})
    place.run("--metrics-textfile", "metrics.prom", code=1)
    assert textfile(place).get(SUCCESS) == before
    assert textfile(place).get("pipeline_exit_code") == 1


def test_failed_requests_during_an_outage_are_counted(place: Place, server: FakeLLM) -> None:
    """They are counted although no document fails for them."""
    place.documents({"killer.txt": "[[fault:kill*1]]", "b.txt": "x"})
    place.run("--metrics-textfile", "metrics.prom")
    scrape = textfile(place)
    assert scrape.get("pipeline_documents_total", outcome="done") == 2
    assert (scrape.get("pipeline_attempts_total", error="connection_error") or 0) >= 1


# ---- failures that must not change the end of a run


def silent_port() -> socket.socket:
    """Return a listening socket that accepts connections and never answers."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def test_unreachable_gateway_is_a_warning(place: Place) -> None:
    """The exit code does not change, and the log names the gateway without its password."""
    place.documents(1)
    ran = place.run("--pushgateway", "http://me:secret@127.0.0.1:9")
    assert "Cannot push metrics" in ran.err
    assert "secret" not in ran.err


def test_gateway_password_from_the_environment_is_masked(place: Place) -> None:
    """PIPELINE_PUSHGATEWAY is the flag's default; an invalid value is a configuration error without its password."""
    place.documents(1)
    ran = place.run("--log-level", "debug", env={"PIPELINE_PUSHGATEWAY": "http://me:secret%2F0@127.0.0.1:9"})
    assert "Cannot push metrics" in ran.err
    assert "secret" not in ran.out + ran.err
    ran = place.run(code=2, env={"PIPELINE_PUSHGATEWAY": "ftp://me:secret%2F0@gateway"})
    assert "PIPELINE_PUSHGATEWAY: got" in ran.err
    assert "secret" not in ran.out + ran.err


def test_silent_gateway_does_not_block_the_end(place: Place) -> None:
    """The push times out after a few seconds."""
    place.documents(1)
    with silent_port() as listener:
        ran = place.run("--pushgateway", f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert "Cannot push metrics" in ran.err


def test_gateway_refusal_is_a_warning(place: Place, gateway: Gateway) -> None:
    """The log has the status code."""
    gateway.status = 400
    place.documents(1)
    assert "400" in place.run("--pushgateway", gateway.url).err


def test_occupied_metrics_port_is_a_warning(place: Place) -> None:
    """The run finishes without serving metrics."""
    place.documents(1)
    with silent_port() as listener:
        ran = place.run("--metrics-port", str(listener.getsockname()[1]))
    assert "Cannot serve metrics" in ran.err
    assert len(place.done()) == 1


def test_unwritable_text_file_is_a_warning(place: Place) -> None:
    """Its folder is missing, and the run still ends with 0."""
    place.documents(1)
    assert "Cannot write metrics" in place.run("--metrics-textfile", "nowhere/metrics.prom").err


@pytest.mark.parametrize(
    "arguments",
    [("--metrics-port", "70000"), ("--metrics-port", "http"), ("--pushgateway", "gateway:9091"), ("--pushgateway", "")],
)
def test_invalid_metrics_flag_is_exit_2(place: Place, arguments: tuple[str, ...]) -> None:
    """The flag is checked before any document is read."""
    place.documents(1)
    ran = place.run(*arguments, code=2)
    assert arguments[0] in ran.err
    assert place.sent_documents() == []


def test_error_labels_are_bounded() -> None:
    """500 different status codes create about 40 time series."""
    metrics = Metrics("small", None, destinations=Destinations())
    entry = Entry("a", "file:///a", None, 1, "text", bytes)
    for status in range(100, 600):
        attempt = ExtractionAttempt(ModelMetadata("vllm", "m"), error=f"http_{status}: page {status}")
        metrics.outcome(FinishedEntry(entry, Unchanged("a"), (attempt,)))
    samples = [
        sample
        for family in metrics.families.registry.collect()
        for sample in family.samples
        if sample.name == "pipeline_attempts_total"
    ]
    assert len(samples) <= 50
    assert sum(sample.value for sample in samples) == 500


def test_token_count_of_4000_digits_is_recorded_as_unknown(place: Place) -> None:
    """The record is written with the count as null, and the run ends normally."""
    place.documents(3)
    body = {
        "choices": [{"index": 0, "message": {"content": '{"summary": "fine"}'}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": int("9" * 4000), "completion_tokens": 5},
    }
    with answering(reply(body)) as server:
        place.configure({"vllm.base_url": server.url, "vllm.preflight": "off", "vllm.type": "openai"})
        place.run("--metrics-textfile", "metrics.prom")
    records = place.lines("results.jsonl")
    assert [record["usage"]["prompt_tokens"] for record in records] == [None] * 3
    assert all("implausible_usage" in record["notes"] for record in records)


def test_internal_error_in_the_metrics_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The error never reaches the run."""
    metrics = Metrics("agent", None, destinations=Destinations())
    metrics.families = None  # type: ignore[assignment]
    finished = FinishedEntry(
        Entry("a", "file:///a", None, 1, "text", bytes),
        Unchanged("a"),
        (ExtractionAttempt(ModelMetadata("vllm", "m")),),
    )
    metrics.outcome(finished)
    metrics.outcome(finished)
    assert [record.levelname for record in caplog.records] == ["WARNING"]

"""The preview of long documents before a run: window sizes, documents to be split, and requests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.planted import AGENT, planted, reader

from pipeline.cli.main import main
from pipeline.run.preview.window_forecast import Forecast, forecast_text

LONG = {f"long{n}.txt": planted(seed=n, payments=4, chars=20_000, kinds="prose").text for n in (1, 2)}
SHORT = {f"short{n}.txt": "x" for n in range(4)}


def prepared(place: Place, server: FakeLLM, *, provider: str = "vllm", **split: int) -> None:
    """Configure a place with two long and four short documents and an agent that splits."""
    place.documents({**LONG, **SHORT})
    place.server = server
    ollama = {"ollama.base_url": server.url, "ollama.model": "llama3.1", "ollama.num_ctx": 2400}
    place.configure(
        {"provider": provider, "vllm.base_url": server.url, **ollama},
        agent={**AGENT, **({"split": split} if split else {})},
    )


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *words: str
) -> tuple[str, str]:
    """Run a command in this process; return its stdout without line breaks, and its stderr."""
    monkeypatch.chdir(folder)
    capsys.readouterr()
    assert main([*words, "--config", "pipeline.yaml"]) == 0
    printed = capsys.readouterr()
    return " ".join(printed.out.split()), printed.err


def windows_of_a_run(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> int:
    """Run, and return the number of answered windows."""
    run_command(monkeypatch, capsys, place.folder, "run", "--quiet")
    windows: int = place.report()["long_documents"]["windows"]
    return windows


def test_check_predicts_windows_and_requests(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parts add up to the context, and the run has exactly these windows."""
    with FakeLLM(("llama3.1",), 2400) as server:
        prepared(place, server)
        shown, _ = run_command(monkeypatch, capsys, place.folder, "check")
        size = re.search(r"split: windows of about (\d+) tokens \(context 2,400 − answer 400 − prompt (\d+)", shown)
        assert size is not None, shown
        assert "− re-ask 750 − lead 161, nine tenths), overlap 4" in shown
        assert int(size[1]) == int(0.9 * (2400 - 400 - int(size[2]) - 750 - 161))
        counted = re.search(r"split: 2 of 6 documents would be cut into (\d+) windows: (\d+) requests", shown)
        assert counted is not None, shown
        assert int(counted[2]) == 4 + int(counted[1])
        assert int(counted[1]) == windows_of_a_run(place, monkeypatch, capsys)


def test_check_without_split_omits_windows(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent of a new project has no `overflow: split`."""
    place.documents(1)
    assert "split:" not in run_command(monkeypatch, capsys, place.folder, "check")[0]


@pytest.mark.parametrize("provider", ["vllm", "ollama"])
def test_dry_run_estimates_windows(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], provider: str
) -> None:
    """With a tokenizer it is the number of the run, else close, without a model call; the time counts windows."""
    with FakeLLM(("llama3.1",), 2400) as server:
        prepared(place, server, provider=provider)
        shown, _ = run_command(monkeypatch, capsys, place.folder, "run", "--dry-run")
        pattern = (
            r"overflow: split: about 2 of 6 documents would be cut into about (\d+) windows: about (\d+) requests\."
        )
        counted = re.search(pattern, shown)
        assert counted is not None, shown
        assert int(counted[2]) == 4 + int(counted[1])
        assert place.sent_documents() == []
        windows = windows_of_a_run(place, monkeypatch, capsys)
        assert abs(int(counted[1]) - windows) <= (0 if provider == "vllm" else max(2, windows // 4))
        again, _ = run_command(monkeypatch, capsys, place.folder, "run", "--dry-run", "--redo", "all")
        assert "documents and windows a second of run 1" in again


@pytest.mark.parametrize("kinds", ["prose", "table", "cjk"])
def test_dry_run_estimates_the_windows_of_unread_documents(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kinds: str
) -> None:
    """Of 50 documents 20 are read; their windows end below the budget, at the ends of sentences or rows."""
    texts = {
        f"d{n:02}.txt": planted(seed=n, payments=4, chars=20_000 * (1 + n % 3), kinds=kinds).text for n in range(50)
    }
    with FakeLLM(("llama3.1",), 2400, answer=reader) as server:
        prepared(place, server)
        shutil.rmtree(place.folder / "inbox")
        place.documents(texts)
        shown, _ = run_command(monkeypatch, capsys, place.folder, "run", "--dry-run")
        counted = re.search(r"about 50 of 50 documents would be cut into about ([\d,]+) windows", shown)
        assert counted is not None, shown
        windows = windows_of_a_run(place, monkeypatch, capsys)
    assert abs(int(counted[1].replace(",", "")) - windows) <= 0.04 * windows


def test_dry_run_counts_the_prompt_tokens_of_each_window(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The estimate includes lead and overlap, and is close to the later use."""
    with FakeLLM(("llama3.1",), 2400) as server:
        prepared(place, server)
        shown, _ = run_command(monkeypatch, capsys, place.folder, "run", "--dry-run")
        expected = re.search(r"about ([\d,]+) prompt tokens", shown)
        assert expected is not None
        windows_of_a_run(place, monkeypatch, capsys)
        used = sum(line["usage"]["prompt_tokens"] for line in place.lines("results.jsonl"))
        assert abs(int(expected[1].replace(",", "")) - used) <= 0.05 * used


def test_a_document_of_too_many_windows_fails_before_any_request(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More than 10,000: `check` and the error line say what would make them fewer."""
    message = (
        "the document has more than 10,000 windows of 1,024 bytes: need larger ones (split.window_tokens, or a server"
        " with a larger context) or a shorter document"
    )
    with FakeLLM(("llama3.1",), 2400) as server:
        prepared(place, server, window_tokens=256, overlap_tokens=64)
        place.documents({"endless.txt": "Nothing was paid. " * 500_000})
        shown, _ = run_command(monkeypatch, capsys, place.folder, "check")
        assert "1 of the 7 read cannot be used" in shown
        assert message in shown
        place.sent_documents()
        assert main(["run", "--config", "pipeline.yaml", "--quiet", "--ids", "endless.txt"]) == 1
        (error,) = place.lines("errors.jsonl")
        assert (error["reason"], error["stage"], error["message"]) == ("document_too_large", "prompt", message)
        assert place.sent_documents() == []


def test_dry_run_reports_an_unknown_context(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a server only documents longer than `window_tokens` count as split."""
    with FakeLLM(("llama3.1",), 2400) as server:
        prepared(place, server)
    unknown = "the context of the server is unknown, so documents that do not fit are not counted as cut"
    shown, _ = run_command(monkeypatch, capsys, place.folder, "run", "--dry-run")
    assert f"overflow: split: {unknown}." in shown
    prepared(place, server, window_tokens=1000)
    shown, _ = run_command(monkeypatch, capsys, place.folder, "run", "--dry-run")
    assert f"{unknown}; about 2 of 6 documents would be cut into about " in shown


def test_forecast_of_short_documents_names_no_windows() -> None:
    """Zero windows are not "about 0 windows"."""
    assert forecast_text(Forecast(3), is_estimate=True) == "no document would be cut: about 3 requests"

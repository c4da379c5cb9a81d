"""An output written with the former fingerprint formula: no document is sent again without need.

`tests/data/old_fingerprints` holds two outputs as the version before wrote them: one answered by Ollama (num_ctx 4096),
one by vLLM with `extra_body: {seed: 7}`; the documents are those of `TEXTS`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import AGENT, Place

TEXTS = {"a.txt": "text one", "b.txt": "text two", "bad.txt": "[[fault:http_400]] text three"}
OLD = Path(__file__).parent.parent / "data" / "old_fingerprints"
LENIENT = ("--set", "runner.max_error_rate=1", "--set", "runner.retry_runs=0")
OLLAMA = {"provider": "ollama", "ollama.model": "llama3.1"}


def upgraded(place: Place, written_by: str) -> None:
    """Copy an output of the previous version, and its documents, into the folder."""
    place.documents(TEXTS)
    shutil.copytree(OLD / written_by, place.folder / "out")


def sent_again(place: Place, *arguments: str) -> list[str]:
    """Return the done documents that a run would send again."""
    place.run(*LENIENT, *arguments)
    return [name for name in place.sent_documents() if name != "bad.txt"]


def test_upgrade_sends_no_document_again(place: Place) -> None:
    """With the same configuration all documents are skipped, even if only the records have the context size."""
    upgraded(place, "ollama")
    place.configure({**OLLAMA, "ollama.num_ctx": 4096, "ollama.base_url": place.server.url})
    assert sent_again(place) == []
    place.configure({**OLLAMA, "ollama.num_ctx": 8000, "ollama.base_url": place.server.url})
    assert sent_again(place, "--set", "runner.max_redo=0") == []


def test_switch_of_provider_with_the_same_model_sends_nothing(place: Place) -> None:
    """After a switch from Ollama to vLLM the existing records stay current."""
    upgraded(place, "ollama")
    assert sent_again(place, "--set", "runner.max_redo=0") == []


def test_model_id_equates_two_names_of_a_model(place: Place) -> None:
    """`model_id` gives the name that the records have."""
    upgraded(place, "ollama")
    place.configure({"vllm.model": "", "vllm.model_id": "llama3.1"})
    assert sent_again(place) == []


def test_former_formula_included_extra_body(place: Place) -> None:
    """The vLLM records were made with a seed in `extra_body`, which is now part of the fingerprint."""
    upgraded(place, "vllm")
    place.configure({"vllm.extra_body": {"seed": 7}})
    assert sent_again(place) == []


@pytest.mark.parametrize("change", [{"vllm.temperature": 0.5}, {"vllm.model": "", "vllm.model_id": "other"}])
def test_changed_request_is_sent_again_after_an_upgrade(place: Place, change: dict[str, object]) -> None:
    """Two requests that differ never get equal fingerprints by the former formula."""
    upgraded(place, "ollama")
    place.configure(change)
    assert sorted(sent_again(place)) == ["a.txt", "b.txt"]


def test_max_redo_counts_documents_of_the_former_formula(place: Place) -> None:
    """After an agent change the former records no longer match, and `max_redo` counts them."""
    upgraded(place, "ollama")
    place.configure(agent={"system_prompt": "Other.\n"})
    assert "2 of 2 done documents" in place.run("--set", "runner.max_redo=0", code=2).err


def test_dry_run_recognises_the_former_formula(place: Place) -> None:
    """It reports that no document would be sent again."""
    upgraded(place, "ollama")
    out = place.run("--dry-run").out
    assert next(line.split() for line in out.splitlines() if "extracted again" in line)[2] == "0"


def test_failure_of_the_former_formula_keeps_its_run_count(place: Place) -> None:
    """Its earlier runs count towards `retry_runs`, so it is not retried for ever."""
    upgraded(place, "ollama")
    place.run("--set", "runner.max_error_rate=1")
    place.run("--set", "runner.max_error_rate=1")
    assert place.sent_documents().count("bad.txt") <= 2
    assert place.failed() == {"bad.txt": "rejected"}
    assert place.report()["output"]["failed"] == 1


def test_check_reports_how_many_documents_a_fallback_would_redo(place: Place) -> None:
    """`check` names the different model names and the number of documents until `model_id` equates them."""
    upgraded(place, "ollama")
    both = {"fallback": ["ollama"], "ollama.base_url": place.server.url, "ollama.model": "llama3.1:latest"}
    place.configure(both)
    out = place.call("check").out
    assert "warning: provider vllm names the model 'llama3.1' and fallback ollama 'llama3.1:latest'" in out
    assert "would redo 2 documents; set model_id" in out
    place.configure({**both, "ollama.model_id": "llama3.1"})
    assert "would redo" not in place.call("check").out


def test_diff_by_fingerprint_treats_both_formulas_as_one(place: Place) -> None:
    """Documents repeated with `--redo all` after the upgrade do not count as two fingerprints."""
    upgraded(place, "ollama")
    place.run(*LENIENT, "--redo", "all")
    runs = place.folder / "out" / "runs"
    queries = {
        "agent": "small",
        "variant": "default",
        "system_prompt": "Sum the text up.\n",
        "user_prompt": "$document\n",
        "schema": AGENT["schema"],
        "model": "llama3.1",
        "max_tokens": 200,
        "temperature": 0.0,
        "extra_body": {},
        "num_ctx": 4096,
    }
    summary = {"v": 1, "run": 1, "run_id": "old", "shard": None, "config": {"question": {"default": queries}}}
    (runs / "old.json").write_text(json.dumps(summary), encoding="utf-8")
    ran = place.call("diff", "out", "--by", "fingerprint")
    assert (ran.code, "results of one fingerprint only" in ran.out) == (0, True)


@pytest.mark.parametrize("shard", [(), ("--shard", "0/1")])
def test_report_treats_both_formulas_as_one(place: Place, shard: tuple[str, ...]) -> None:
    """Old and new records count together after a run, after a shard, and in `pipeline report`."""
    upgraded(place, "ollama")
    place.documents({**TEXTS, "new.txt": "another text"})
    place.run(*LENIENT, *shard)
    for _ in range(2):
        report = place.report()
        assert [(row["done"], row["done_in_output"]) for row in report["questions"]] == [(1, 3)]
        assert report["mixed_questions"] == []
        assert place.call("report").code == 0


def test_refused_key_after_an_upgrade_is_retried(place: Place) -> None:
    """The output has records of this request under the former fingerprint, so this is not a first start."""
    upgraded(place, "ollama")
    place.documents({**TEXTS, "new.txt": "another text"})
    place.server.api_key = "a key that nobody has"
    place.run("--set", "runner.config_grace_s=1", code=3)

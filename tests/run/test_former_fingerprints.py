"""An output that was written with the former formula of the fingerprint: nothing in it is asked again without need.

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
    """Lay an output of the version before, and its documents, into the folder."""
    place.documents(TEXTS)
    shutil.copytree(OLD / written_by, place.folder / "out")


def asked_again(place: Place, *arguments: str) -> list[str]:
    """Return the done documents that a run asks again."""
    place.run(*LENIENT, *arguments)
    return [name for name in place.asked() if name != "bad.txt"]


def test_an_upgrade_asks_nothing_again(place: Place) -> None:
    """The same configuration as before: all is skipped, also the context size that only the records tell of."""
    upgraded(place, "ollama")
    place.configure({**OLLAMA, "ollama.num_ctx": 4096, "ollama.base_url": place.server.url})
    assert asked_again(place) == []
    place.configure({**OLLAMA, "ollama.num_ctx": 8000, "ollama.base_url": place.server.url})
    assert asked_again(place, "--set", "runner.max_redo=0") == []


def test_another_provider_with_the_same_model_asks_nothing_again(place: Place) -> None:
    """Ollama → vLLM: the records of the first one stay."""
    upgraded(place, "ollama")
    assert asked_again(place, "--set", "runner.max_redo=0") == []


def test_another_name_of_the_model_is_equated_by_model_id(place: Place) -> None:
    """`model_id` gives the name that the records have."""
    upgraded(place, "ollama")
    place.configure({"vllm.model": "", "vllm.model_id": "llama3.1"})
    assert asked_again(place) == []


def test_extra_body_of_the_former_formula_is_tried(place: Place) -> None:
    """The vLLM output had a seed, which is a parameter of the question now."""
    upgraded(place, "vllm")
    place.configure({"vllm.extra_body": {"seed": 7}})
    assert asked_again(place) == []


@pytest.mark.parametrize("change", [{"vllm.temperature": 0.5}, {"vllm.model": "", "vllm.model_id": "other"}])
def test_a_changed_question_is_still_asked_again(place: Place, change: dict[str, object]) -> None:
    """The recognition equates nothing that was asked differently."""
    upgraded(place, "ollama")
    place.configure(change)
    assert sorted(asked_again(place)) == ["a.txt", "b.txt"]


def test_a_run_with_a_changed_agent_after_an_upgrade(place: Place) -> None:
    """The old question is recognised no more, and the guard counts it."""
    upgraded(place, "ollama")
    place.configure(agent={"system_prompt": "Other.\n"})
    assert "2 of 2 done documents" in place.run("--set", "runner.max_redo=0", code=2).err


def test_a_dry_run_counts_as_a_run_does(place: Place) -> None:
    """Nothing would be asked anew."""
    upgraded(place, "ollama")
    out = place.run("--dry-run").out
    assert next(line.split() for line in out.splitlines() if "done again" in line)[2] == "0"


def test_a_failure_of_the_former_formula_remains_failed_and_counts_its_runs(place: Place) -> None:
    """A failed document is one of this question, and is not tried without end."""
    upgraded(place, "ollama")
    place.run("--set", "runner.max_error_rate=1")
    place.run("--set", "runner.max_error_rate=1")
    assert place.asked().count("bad.txt") <= 2
    assert place.failed() == {"bad.txt": "rejected"}
    assert place.report()["output"]["failed"] == 1


def test_check_says_what_a_switch_to_the_fallback_would_redo(place: Place) -> None:
    """Different names of the model are named with the number of documents, until `model_id` equates them."""
    upgraded(place, "ollama")
    both = {"fallback": ["ollama"], "ollama.base_url": place.server.url, "ollama.model": "llama3.1:latest"}
    place.configure(both)
    out = place.call("check").out
    assert "warning: provider vllm names the model 'llama3.1' and fallback ollama 'llama3.1:latest'" in out
    assert "would redo 2 documents; set model_id" in out
    place.configure({**both, "ollama.model_id": "llama3.1"})
    assert "would redo" not in place.call("check").out


def test_diff_by_fingerprint_sees_one_question_in_both_formulas(place: Place) -> None:
    """Done again with `--redo all` after the upgrade, the documents were not asked in two ways."""
    upgraded(place, "ollama")
    place.run(*LENIENT, "--redo", "all")
    runs = place.folder / "out" / "runs"
    asked = {
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
    summary = {"v": 1, "run": 1, "run_id": "old", "shard": None, "config": {"question": {"default": asked}}}
    (runs / "old.json").write_text(json.dumps(summary), encoding="utf-8")
    ran = place.call("diff", "out", "--by", "fingerprint")
    assert (ran.code, "asked one question only" in ran.out) == (0, True)


@pytest.mark.parametrize("shard", [(), ("--shard", "0/1")])
def test_both_formulas_are_one_question_in_the_report(place: Place, shard: tuple[str, ...]) -> None:
    """Old and new records are counted together, by a run, by a shard, and by `pipeline report`."""
    upgraded(place, "ollama")
    place.documents({**TEXTS, "new.txt": "another text"})
    place.run(*LENIENT, *shard)
    for _ in range(2):
        report = place.report()
        assert [(row["done"], row["done_in_output"]) for row in report["questions"]] == [(1, 3)]
        assert report["mixed_questions"] == []
        assert place.call("report").code == 0


def test_a_refused_key_after_an_upgrade_is_waited_for(place: Place) -> None:
    """The output has records of this question, though under the former fingerprint."""
    upgraded(place, "ollama")
    place.documents({**TEXTS, "new.txt": "another text"})
    place.server.api_key = "a key that nobody has"
    place.run("--set", "runner.config_grace_s=1", code=3)

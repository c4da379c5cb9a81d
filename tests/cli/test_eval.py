"""`pipeline eval`: gold against outputs, gates and their exit codes, the holdout, and --ask."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from fake_llm import FakeLLM

from pipeline.config.models import OutputConfig
from pipeline.output import backend_of
from pipeline.report import plain
from pipeline.report.grades import Grades
from pipeline.report.page_answers import answers
from pipeline.truth.evaluate import EvalOptions, evaluate

SCHEMA = {
    "type": "object",
    "properties": {
        "company": {"type": "string", "maxLength": 80},
        "mood": {"enum": ["good", "bad"]},
        "risks": {"type": "array", "items": {"type": "string", "maxLength": 40}},
        "summary": {"type": "string", "maxLength": 800},
    },
    "required": ["company", "mood", "risks", "summary"],
}
RIGHT = {"company": "Acme", "mood": "good", "risks": ["strike"], "summary": "free text"}


def sha256(document_id: str) -> str:
    return hashlib.sha256(document_id.encode()).hexdigest()


def write_output(folder: Path, outputs: dict[str, Any], *, variants: dict[str, str] | None = None) -> None:
    """Write an output in which None is a failed document."""
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    question = {"default": {"agent": "small", "schema": SCHEMA}}
    stats = {"outcomes": {"done": 10, "failed": 0}, "elapsed_s": 36.0}
    run = {"v": 1, "run": 1, "run_id": "r1", "config": {"question": question}, "stats": stats}
    (folder / "runs" / "r1.json").write_text(json.dumps(run), encoding="utf-8")
    lines: dict[str, list[str]] = {"results": [], "errors": []}
    for id, output in outputs.items():
        head = {"v": 1, "id": id, "uri": id, "sha256": sha256(id), "agent": "small"}
        variant = (variants or {}).get(id, "default")
        outcome: dict[str, Any] = {"reason": "schema_invalid", "runs": 1, "attempts": 2}
        if output is not None:
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            outcome = {"output": output, "attempts": 1, "reasks": 0, "usage": usage, "latency_s": 0.5}
        tail = {"finished_at": "2026-01-01T00:00:00.000Z", "version": None, "run": 1, "run_id": "r1", "shard": None}
        record = {**head, "variant": variant, "fingerprint": "1" * 64, **outcome, **tail}
        lines["errors" if output is None else "results"].append(json.dumps(record, separators=(",", ":")) + "\n")
    for kind, written in lines.items():
        (folder / f"{kind}.jsonl").write_text("".join(written), encoding="utf-8")


def write_gold(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def judged(document_id: str, gold: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": document_id, "sha256": sha256(document_id), "gold": RIGHT if gold is None else gold, **more}


@pytest.fixture
def graded(place: Place) -> Place:
    """Return a place with forty judged documents, of which two are wrong and one failed."""
    ids = [f"d{number:02}" for number in range(40)]
    outputs: dict[str, Any] = dict.fromkeys(ids, RIGHT)
    outputs["d03"] = {**RIGHT, "mood": "bad"}
    outputs["d04"] = {**RIGHT, "company": "Other", "risks": ["strike", "flood"]}
    outputs["d05"] = None
    write_output(place.folder / "out", outputs)
    write_gold(place.folder / "gold.jsonl", [judged(id) for id in ids])
    return place


def test_eval_prints_grades_and_writes_eval_json(graded: Place) -> None:
    """The text names the metrics and the worst documents; eval.json has the counts of each document."""
    ran = graded.call("eval", "--gold", "gold.jsonl")
    assert ran.code == 0, ran.err
    assert "gold.jsonl (dev): 40 of 40 documents graded (1 failed)" in ran.out
    assert "not graded: summary" in ran.out
    assert ran.out.index("d04") < ran.out.index("d03")
    content = json.loads((graded.folder / "out" / "eval.json").read_text(encoding="utf-8"))
    output = content["outputs"][0]
    assert [output["overall"][name] for name in ("tp", "fp", "fn")] == [115, 3, 5]
    assert output["valid"]["value"] == 0.975
    assert output["documents_right"]["value"] == 0.925
    assert output["fields"]["mood"]["accuracy"]["value"] == 0.95
    assert sorted(map(tuple, output["fields"]["mood"]["confusion"])) == [
        ('"good"', '"bad"', 1),
        ('"good"', '"good"', 38),
        ('"good"', "null", 1),
    ]
    assert output["documents"][4]["counts"]["risks"] == [1, 1, 0, 0]
    assert output["cost"]["prompt_tokens"] == 100
    assert "Acme" not in json.dumps(content)


def test_grades_do_not_depend_on_the_hash_seed(graded: Place) -> None:
    """The JSON is identical byte for byte in every process."""
    command = [sys.executable, "-m", "pipeline", "eval", "out", "--gold", "gold.jsonl", "--json", "--no-write"]
    printed = [
        subprocess.run(
            command, cwd=graded.folder, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    first, second = (re.sub(rb'"at": "[^"]*"', b"", text) for text in printed)
    assert first == second
    assert b'"low"' in first


@pytest.mark.parametrize("seed", range(4))
def test_grades_do_not_depend_on_the_order_of_lines(tmp_path: Path, seed: int) -> None:
    """Output and gold lines may come in any order; of two gold lines of a document the later one wins."""
    ids = [f"d{number}" for number in range(8)]
    outputs: dict[str, Any] = {**dict.fromkeys(ids, RIGHT), "d1": {**RIGHT, "mood": "bad"}, "d2": None}
    lines = [judged(id, {**RIGHT, "mood": "bad"}) for id in ids] + [judged(id) for id in ids]
    contents = []
    for shuffle in (random.Random(seed).shuffle, list):
        order = [*ids, *ids]
        shuffle(order)
        written: dict[str, Iterator[dict[str, Any]]] = {
            id: iter([lines[at], lines[at + 8]]) for at, id in enumerate(ids)
        }
        write_output(tmp_path / "out", {id: outputs[id] for id in dict.fromkeys(order)})
        write_gold(tmp_path / "gold.jsonl", [next(written[id]) for id in order])
        backend = backend_of(OutputConfig(str(tmp_path / "out")))
        content = evaluate([("out", backend)], EvalOptions(tmp_path / "gold.jsonl"), now="").content
        contents.append({**content, "gold": {**content["gold"], "sha256": ""}})
    assert contents[0] == contents[1]
    assert contents[0]["outputs"][0]["worst"][0]["id"] == "d2"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_grading_memory_depends_on_the_gold_only(place: Place) -> None:
    """With 100 judged documents of 200,000 the process stays below 100 MB."""
    ids = [f"d{number:06}" for number in range(200_000)]
    write_output(place.folder / "out", {ids[0]: RIGHT})
    results = place.folder / "out" / "results.jsonl"
    line = results.read_text(encoding="utf-8")
    with results.open("w", encoding="utf-8") as file:
        file.writelines(line.replace(ids[0], id).replace(sha256(ids[0]), sha256(id)) for id in ids)
    write_gold(place.folder / "gold.jsonl", [judged(id) for id in ids[::2_000]])
    program = (
        "import sys; from pathlib import Path; from pipeline.cli import main; code = main(sys.argv[1:]); "
        "print(code, Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    command = [sys.executable, "-c", program, "eval", "out", "--gold", "gold.jsonl"]
    ran = subprocess.run(command, cwd=place.folder, capture_output=True, text=True, check=True)
    assert "100 of 100 documents graded" in ran.stdout
    code, peak_kb = ran.stdout.splitlines()[-1].split()
    assert code == "0"
    assert int(peak_kb) < 100_000


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_eval_text_fits_the_terminal(graded: Place, columns: int) -> None:
    """No line is wider than the terminal."""
    graded.env["COLUMNS"] = str(columns)
    ran = graded.call("eval", "--gold", "gold.jsonl", "--fail-under", "overall.f1=0.99")
    assert ran.code == 1
    assert max(map(len, ran.out.splitlines())) <= columns


def test_gate_compares_the_lower_bound(graded: Place) -> None:
    """The message estimates how many documents the gate would need."""
    ran = graded.call(
        "eval", "--gold", "gold.jsonl", "--fail-under", "mood.f1=0.9", "--fail-under", "mood.f1:point=0.9"
    )
    assert ran.code == 1
    output = " ".join(ran.out.split())
    assert "FAILED mood.f1: 0.96 (0." in output
    assert "is not surely 0.9 or more; at 0.96 that takes about" in output
    assert "passed mood.f1: 0.96 is at least 0.9" in output
    assert graded.call("eval", "--gold", "gold.jsonl", "--fail-under", "overall.f1=0.8", "--quiet").out == ""


def test_gate_on_too_few_documents_fails(graded: Place) -> None:
    """Ten correct documents of ten do not pass a gate that needs thirty."""
    write_gold(graded.folder / "few.jsonl", [judged(f"d{number}") for number in range(20, 30)])
    ran = graded.call("eval", "--gold", "few.jsonl", "--fail-under", "overall.f1=0.5")
    assert ran.code == 1
    assert "overall.f1: too few documents to say (10 of 30)" in ran.out


def test_gate_fails_if_too_much_gold_does_not_match(graded: Place) -> None:
    """More than a tenth is absent or changed; without gates this is only reported."""
    lines = [judged(f"d{number:02}") for number in range(40)]
    lines += [judged(f"gone{number}") for number in range(4)] + [{**judged("d07"), "sha256": "f" * 64}]
    write_gold(graded.folder / "gold.jsonl", lines)
    ran = graded.call("eval", "--gold", "gold.jsonl", "--fail-under", "overall.f1=0.5")
    assert ran.code == 0
    write_gold(graded.folder / "gold.jsonl", [*lines, judged("gone4")])
    ran = graded.call("eval", "--gold", "gold.jsonl", "--fail-under", "overall.f1=0.5")
    assert (ran.code, "INCOMPLETE: 5 of 45" in ran.out) == (1, True)
    assert graded.call("eval", "--gold", "gold.jsonl").code == 0


def test_baseline_detects_a_worse_output(graded: Place) -> None:
    """The comparison covers the documents whose gold is unchanged."""
    assert graded.call("eval", "--gold", "gold.jsonl").code == 0
    (graded.folder / "out" / "eval.json").rename(graded.folder / "kept.json")
    flags = ("--gold", "gold.jsonl", "--baseline", "kept.json", "--max-drop", "0.02")
    assert graded.call("eval", *flags).code == 0
    worse: dict[str, Any] = {f"d{n:02}": {**RIGHT, "mood": "bad"} if n < 12 else RIGHT for n in range(40)}
    write_output(graded.folder / "worse", worse)
    ran = graded.call("eval", "worse", *flags)
    assert ran.code == 1
    output = " ".join(ran.out.split())
    interval = r"\(-0\.\d{3} to -0\.\d{3}, 40 documents, \d+ differ\)"
    assert re.search(
        rf"FAILED overall\.f1: -0\.\d{{3}} {interval} against the baseline, a drop of 0\.02 or more", output
    )
    write_gold(graded.folder / "gold.jsonl", [judged(f"d{n:02}", RIGHT if n else {"mood": "bad"}) for n in range(40)])
    ran = graded.call("eval", *flags)
    assert ran.code == 0
    assert "against the baseline (1 document with changed gold not compared)" in " ".join(ran.out.split())
    assert "eval.max_drop (--max-drop): is not set" in graded.call("eval", "--gold", "gold.jsonl", *flags[2:4]).err


def test_baseline_comparison_needs_min_documents(graded: Place) -> None:
    """A single document is too few, so the gate fails."""
    write_gold(graded.folder / "one.jsonl", [judged("d10")])
    assert graded.call("eval", "--gold", "one.jsonl").code == 0
    (graded.folder / "out" / "eval.json").rename(graded.folder / "kept.json")
    ran = graded.call("eval", "--gold", "one.jsonl", "--baseline", "kept.json", "--max-drop", "0.02")
    assert (ran.code, "overall.f1: too few documents to compare with the baseline (1 of 30)" in ran.out) == (1, True)
    fewer = ("--baseline", "kept.json", "--max-drop", "0.02", "--set", "eval.min_documents=1")
    assert graded.call("eval", "--gold", "one.jsonl", *fewer).code == 0


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ({"compny": "Acme"}, "gold: expected no properties but"),
        ({"compny": "Acme"}, "got 1 unexpected property: 'compny'; the nearest is company"),
        ({"risks": [{"a": 1}]}, "risks[0]: expected a string"),
    ],
)
def test_unknown_property_in_gold_is_named(graded: Place, gold: dict[str, Any], message: str) -> None:
    """The message suggests the nearest property of the schema."""
    closed = {**SCHEMA, "additionalProperties": False}
    run = graded.folder / "out" / "runs" / "r1.json"
    content = json.loads(run.read_text())
    content["config"]["question"]["default"]["schema"] = closed
    run.write_text(json.dumps(content))
    write_gold(graded.folder / "gold.jsonl", [judged("d10", gold)])
    ran = graded.call("eval", "--gold", "gold.jsonl")
    assert (ran.code, message in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(
    ("lines", "part", "message"),
    [
        ([judged("d1")], "holdout", "0 of 1 document in the set 'holdout'; 1 in 'dev': use --set dev"),
        ([judged("d1", set="holdout")], "dev", "1 in 'holdout': use --set holdout"),
        ([], "dev", "has no line yet; docs/truth.md says how to write one"),
    ],
)
def test_empty_set_names_the_available_sets(
    graded: Place, lines: list[dict[str, Any]], part: str, message: str
) -> None:
    """The message lists the sets of the gold file and the flag that selects one."""
    write_gold(graded.folder / "gold.jsonl", lines)
    ran = graded.call("eval", "--gold", "gold.jsonl", "--set", part)
    assert (ran.code, message in ran.err) == (2, True), ran.err


def test_eval_compares_two_outputs(graded: Place) -> None:
    """The difference is paired, and shown only when enough documents differ."""
    better: dict[str, Any] = {f"d{n:02}": RIGHT for n in range(40)}
    write_output(graded.folder / "better", better)
    ran = graded.call("eval", "out", "better", "--gold", "gold.jsonl", "--json")
    row = json.loads(ran.out)["differences"][0]
    assert (row["differing"], row["verdict"]) == (3, "too_few")
    much_worse: dict[str, Any] = {f"d{n:02}": {**RIGHT, "mood": "bad"} for n in range(40)}
    write_output(graded.folder / "worse", much_worse)
    ran = graded.call("eval", "out", "worse", "--gold", "gold.jsonl")
    assert "WORSE" in ran.out


def test_eval_by_variant_grades_each_variant(graded: Place) -> None:
    """Each variant has a row of its own."""
    outputs: dict[str, Any] = {f"d{n:02}": RIGHT if n % 2 else {**RIGHT, "mood": "bad"} for n in range(40)}
    variants = {id: "terse" if int(id[1:]) % 2 else "default" for id in outputs}
    write_output(graded.folder / "out", outputs, variants=variants)
    ran = graded.call("eval", "--gold", "gold.jsonl", "--by", "variant", "--json")
    rows = {row["output"]: row["fields"]["mood"]["f1"]["value"] for row in json.loads(ran.out)["outputs"]}
    assert rows == {"default": 0.0, "terse": 1.0}


def test_holdout_shows_no_ids_and_counts_its_uses(graded: Place) -> None:
    """Grading the holdout writes no eval.json."""
    write_gold(graded.folder / "gold.jsonl", [judged(f"d{n:02}", set="holdout") for n in range(40)])
    first = graded.call("eval", "--gold", "gold.jsonl", "--set", "holdout")
    assert first.code == 0, first.err
    assert "The holdout was graded 0 times before." in first.out
    assert "d04" not in first.out
    assert "1 time before, for 1 fingerprint." in graded.call("eval", "--gold", "gold.jsonl", "--set", "holdout").out
    assert not (graded.folder / "out" / "eval.json").exists()
    write_gold(graded.folder / "gold.jsonl", [judged(f"d{n:02}") for n in range(40)])
    content = json.loads(graded.call("eval", "--gold", "gold.jsonl", "--json").out)
    assert (content["holdout_opened"], content["holdout_questions"]) == (2, 1)
    sentences = answers(plain.from_json(Grades, content)).sentences
    assert "The holdout was graded 2 times, for 1 fingerprint." in sentences
    assert any(sentence.startswith("3 fields are shown") for sentence in sentences)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "gold.jsonl:1: is not valid JSON"),
        ('{"id":"a","sha256":"b","gold":{"mood":NaN}}', "gold.jsonl:1: is not valid JSON"),
        ('{"id":"a","sha256":"b","gold":{"mood":1e999}}', "gold.jsonl:1: is not valid JSON"),
        (
            '{"id":"a","gold":{}}',
            "gold.jsonl:1: got no sha256, need the document's (pipeline review OUT --import",
        ),
        ('{"id":"a","sha256":"b","gold":{"mood":"fine"}}', 'gold.jsonl:1: mood: expected one of ["good", "bad"]'),
        (
            '{"id":"a","sha256":"b","gold":{"mood":""},"agent":"x"}',
            "gold.jsonl:1: agent is 'x', but the output is of 'small'",
        ),
        ('{"id":"a","sha256":"b","gold":{},"set":"test"}', "gold.jsonl:1: set is 'test', need one of dev, holdout"),
        ('{"id":"a","sha256":"b","gold":{},"unknown":["rsks"]}', "names 'rsks'"),
        (
            '{"id":"a","sha256":"b","gold":{}}',
            "none of its 1 documents is in out with the same bytes (0 changed, 1 absent)",
        ),
    ],
)
def test_invalid_gold_line_is_named(graded: Place, line: str, message: str) -> None:
    """The message quotes no value of the line."""
    (graded.folder / "gold.jsonl").write_text(f"{line}\n", encoding="utf-8")
    ran = graded.call("eval", "--gold", "gold.jsonl")
    assert ran.code == 2
    assert message in ran.err
    assert "fine" not in ran.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--fail-under", "mod.f1=0.9"), "got 'mod.f1=0.9', need FIELD.METRIC=NUMBER; the nearest field is mood"),
        (("--fail-under", "mood.f2=0.9"), "the nearest is f1"),
        (("--fail-under", "documents_right=0.9"), "need FIELD.METRIC=NUMBER, as in overall.documents_right=0.9"),
        (("--fail-under", "document_right:point=0.9"), "as in overall.documents_right:point=0.9"),
        (("--fail-under", "mood=0.9"), "as in mood.f1=0.9"),
        (("--fail-under", "overall.recal"), "as in overall.recall=0.8"),
        (("--fail-under", "overal.f1=0.9"), "the nearest field is overall"),
        (("--fail-under", "mood.f1=9"), "need a number from 0 to 1"),
        (("--fail-under", "mood.valid=0.5"), "need a metric of mood: precision, recall, f1, accuracy"),
        (("--fail-under", "overall.accuracy=0.5"), "need a metric of overall: precision, recall, f1, documents_right"),
        (
            ("--set", "eval.fields={mod: {compare: text}}"),
            "eval.fields.mod: the schema has no such field; the nearest is mood",
        ),
        (
            ("--set", "eval.fail_under={mod.f1: 0.9}"),
            "eval.fail_under: got 'mod.f1=0.9', need FIELD.METRIC=NUMBER; the nearest field is mood",
        ),
        (("--set", "tset"), "--set: got 'tset', need dev, holdout or KEY=VALUE"),
        (("--ask",), "eval.input: is not set"),
        (
            ("--set", "eval.fields={company: {compare: off}, mood: {compare: 'off'}, risks: {compare: 'off'}}"),
            "eval.fields: no field is graded, as quotes and long texts are off (company, mood, risks, summary)",
        ),
    ],
)
def test_invalid_eval_flags_are_exit_2(graded: Place, flags: tuple[str, ...], message: str) -> None:
    """The message names the error and the accepted values."""
    ran = graded.call("eval", "--gold", "gold.jsonl", *flags)
    assert ran.code == 2
    assert message in ran.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("eval", "1         a gate failed or could not be evaluated"),
        ("review", "0         ended by Ctrl-C, written, imported, or all judged"),
        ("run", "0         finished, or stopped by --max-duration"),
    ],
)
def test_help_shows_the_exit_codes_of_its_own_command(graded: Place, command: str, message: str) -> None:
    """`eval` and other commands do not list the exit codes of a run."""
    shown = graded.call(command, "--help").out
    assert message in shown
    assert ("--max-duration" in shown.partition("exit codes:")[2]) is (command == "run")


def test_cut_last_gold_line_is_skipped(graded: Place) -> None:
    """The broken line is skipped with a warning; a complete last line without LF is read."""
    path = graded.folder / "gold.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"id":"d0', encoding="utf-8")
    ran = graded.call("eval", "--gold", "gold.jsonl")
    assert (ran.code, "last line is incomplete" in ran.err) == (0, True)
    path.write_text(path.read_text(encoding="utf-8")[: -len('\n{"id":"d0')], encoding="utf-8")
    assert "40 of 40" in graded.call("eval", "--gold", "gold.jsonl").out


def test_ask_detects_a_changed_model(place: Place, server: FakeLLM) -> None:
    """Done documents are not sent again, so only --ask notices another model under the same name."""
    server.answer = lambda *_: json.dumps(RIGHT)
    place.configure(
        {
            "eval.gold": "gold.jsonl",
            "eval.input": "inbox",
            "eval.fail_under": {"overall.f1": 0.7},
            "eval.min_documents": 5,
        },
        agent={"schema": SCHEMA},
    )
    names = place.documents(12)
    assert place.run("--set", "eval.gold=null").code == 0
    lines = [json.loads(line) for line in (place.folder / "out" / "results.jsonl").open(encoding="utf-8")]
    write_gold(place.folder / "gold.jsonl", [{"id": r["id"], "sha256": r["sha256"], "gold": RIGHT} for r in lines])
    assert len(lines) == len(names)
    assert place.call("eval", "--ask", "--quiet").code == 0
    server.answer = lambda *_: json.dumps({**RIGHT, "company": "Other", "mood": "bad"})
    assert place.call("eval").code == 0
    ran = place.call("eval", "--ask", "--quiet")
    assert ran.code == 1
    assert "FAILED  overall.f1" in ran.out


def holdout(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "set": "holdout"}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (lambda line: {**line, "sha256": "0" * 64}, 1),
        (lambda line: {**line, "id": f"old/{line['id']}"}, 1),
        (holdout, 2),
        (lambda _: None, 2),
    ],
    ids=["bytes", "ids", "holdout", "empty"],
)
def test_run_gate_fails_if_gold_does_not_match(
    place: Place, server: FakeLLM, changed: Callable[[dict[str, Any]], dict[str, Any] | None], code: int
) -> None:
    """A renamed input or an empty gold file must not disable the gate; without a gate it is a warning."""
    server.answer = lambda *_: json.dumps(RIGHT)
    names = place.documents(6)
    digests = {name: hashlib.sha256((place.folder / "inbox" / name).read_bytes()).hexdigest() for name in names}
    lines = [changed({"id": name, "sha256": digest, "gold": RIGHT}) for name, digest in digests.items()]
    write_gold(place.folder / "gold.jsonl", [line for line in lines if line is not None])
    place.configure({"eval.gold": "gold.jsonl", "eval.min_documents": 5}, agent={"schema": SCHEMA})
    assert "Answers not graded" in place.run().err
    gate = {"eval.gold": "gold.jsonl", "eval.min_documents": 5, "eval.fail_under": {"overall.f1": 0.5}}
    place.configure(gate, agent={"schema": SCHEMA})
    place.run("--quiet", code=code)
    if code == 1:
        place.documents(9)
        assert "no gate could be evaluated" in place.run(code=1).err
        place.change(names[0], "Another text.")
        place.change(names[1], "One more.")
        assert place.call("run", "--limit", "1").code == 0, "the judged documents may be among those left"


def test_run_with_gold_is_graded(place: Place, server: FakeLLM) -> None:
    """With `eval.gold` each run grades the output, and a failed gate decides exit code and verdict."""
    server.answer = lambda *_: json.dumps(RIGHT)
    settings = {"eval.gold": "gold.jsonl", "eval.fail_under": {"overall.f1": 0.7}, "eval.min_documents": 5}
    names = place.documents(12)
    digests = {name: hashlib.sha256((place.folder / "inbox" / name).read_bytes()).hexdigest() for name in names}
    gold = [{"id": name, "sha256": digest, "gold": RIGHT} for name, digest in digests.items()]
    write_gold(place.folder / "gold.jsonl", gold)
    place.configure(settings, agent={"schema": SCHEMA})
    ran = place.run()
    assert ran.code == 0, ran.err
    assert "F1 1.00 (0.79 to 1.00), 12 judged documents of gold.jsonl" in ran.out
    page = (place.folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "Are the answers true?" in page
    server.answer = lambda *_: json.dumps({**RIGHT, "company": "Other", "mood": "bad"})
    ran = place.run("--redo", "all", code=1)
    assert "ANSWERS BELOW THE GATE" in ran.out
    assert "FAILED: overall.f1" in ran.out
    report = json.loads((place.folder / "out" / "report.json").read_text(encoding="utf-8"))
    assert (report["exit_code"], report["run"]["eval"]["gates"][0]["passed"]) == (1, False)
    assert place.last_run()["eval"]["gates"] == report["run"]["eval"]["gates"]
    assert set(report["run"]["eval"]["gates"][0]) == {"gate", "passed", "told"}
    saved = json.loads((place.folder / "out" / "eval.json").read_text(encoding="utf-8"))
    assert set(saved["gates"][0]) == {"gate", "passed", "told"}
    counts = report["run"]["counts"]
    assert (counts["found"], counts["done"], counts["failed"]) == (12, 12, 0), "a failed gate is no failed document"


def test_gold_is_checked_before_the_first_document(place: Place, server: FakeLLM) -> None:
    """A gold file that does not match the agent ends the run before any request."""
    place.configure({"eval.gold": "gold.jsonl"}, agent={"schema": SCHEMA})
    place.documents(2)
    assert "gold.jsonl cannot be read" in place.run(code=2).err
    write_gold(place.folder / "gold.jsonl", [judged("d000.txt", {"mood": "fine"})])
    assert "gold.jsonl:1: mood: expected" in place.run(code=2).err
    assert server.chats() == []


@pytest.mark.parametrize("shards", [2])
def test_last_shard_grades_the_whole_output(place: Place, server: FakeLLM, shards: int) -> None:
    """While another shard is missing, the output is not graded."""
    server.answer = lambda *_: json.dumps(RIGHT)
    names = place.documents(12)
    digests = {name: hashlib.sha256((place.folder / "inbox" / name).read_bytes()).hexdigest() for name in names}
    gold = [{"id": name, "sha256": digest, "gold": RIGHT} for name, digest in digests.items()]
    write_gold(place.folder / "gold.jsonl", gold)
    place.configure({"eval.gold": "gold.jsonl"}, agent={"schema": SCHEMA})
    assert "judged documents" not in place.run("--shard", f"0/{shards}").out
    assert "12 judged documents" in place.run("--shard", f"1/{shards}").out


def test_last_chunk_grades_the_whole_output(place: Place, server: FakeLLM) -> None:
    """The chunks may end in any order."""
    server.answer = lambda *_: json.dumps(RIGHT)
    names = place.documents(12)
    digests = {name: hashlib.sha256((place.folder / "inbox" / name).read_bytes()).hexdigest() for name in names}
    write_gold(place.folder / "gold.jsonl", [{"id": n, "sha256": d, "gold": RIGHT} for n, d in digests.items()])
    place.configure({"eval.gold": "gold.jsonl"}, agent={"schema": SCHEMA})
    assert place.call("plan", "--chunks", "3").code == 0
    assert "judged documents" not in place.run("--chunk", "2").out
    assert "judged documents" not in place.run("--chunk", "0").out
    assert "12 judged documents" in place.run("--chunk", "1").out


def test_purge_removes_a_document_from_gold_and_grades(graded: Place) -> None:
    """After a purge neither eval.json nor the gold file has the document's id."""
    assert graded.call("eval", "--gold", "gold.jsonl").code == 0
    (graded.folder / "ids.txt").write_text("d04\n", encoding="utf-8")
    runs = graded.folder / "out" / "runs"
    runs.rename(graded.folder / "runs")  # too short for a report
    ran = graded.call("purge", "out", "--ids", "ids.txt", "--gold", "gold.jsonl")
    assert ran.code == 0, ran.err
    (graded.folder / "runs").rename(runs)
    assert "gold.jsonl: 1 line removed." in ran.out
    for path in (*(graded.folder / "out").rglob("*.json*"), graded.folder / "gold.jsonl"):
        assert "d04" not in path.read_text(encoding="utf-8"), path
    assert "39 of 39 documents graded" in graded.call("eval", "--gold", "gold.jsonl").out


def test_holdout_json_names_no_document(graded: Place) -> None:
    """It has overall and gated metrics only, so that nobody tunes a prompt to single documents."""
    write_gold(graded.folder / "gold.jsonl", [judged(f"d{number:02}", set="holdout") for number in range(40)])
    flags = ("--set", "holdout", "--json", "--fail-under", "mood.f1=0.1")
    ran = graded.call("eval", "--gold", "gold.jsonl", *flags)
    assert ran.code == 0, ran.err
    output = json.loads(ran.out)["outputs"][0]
    assert not {"documents", "worst"} & set(output)
    assert list(output["fields"]) == ["mood"]
    assert output["overall"]["tp"] == 115


def test_gates_apply_to_the_whole_output_with_by(graded: Place) -> None:
    """With --by the gates do not cover only the first variant, and absent documents count."""
    ids = [f"d{number:02}" for number in range(40)]
    variants = {id: "a" if number < 30 else "b" for number, id in enumerate(ids)}
    right = dict.fromkeys(ids[:30], RIGHT)
    write_output(graded.folder / "out", {**right, **dict.fromkeys(ids[30:], None)}, variants=variants)
    write_gold(graded.folder / "gold.jsonl", [judged(id) for id in [*ids, "x", "y"]])
    gate = ("--fail-under", "overall.f1:point=0.99")
    plain = graded.call("eval", "--gold", "gold.jsonl", "--json", *gate)
    ran = graded.call("eval", "--gold", "gold.jsonl", "--json", "--by", "variant", *gate)
    assert (plain.code, ran.code) == (1, 1)
    content = json.loads(ran.out)
    assert [output["output"] for output in content["outputs"]] == ["a", "b"]
    assert content["gates"] == json.loads(plain.out)["gates"]
    assert content["gold"] == json.loads(plain.out)["gold"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"by": ["anna"]}, "gold.jsonl:1: by is not a text"),
        ({"by": "anna", "how": {"mood": ["typed"]}}, "gold.jsonl:1: how is not an object"),
    ],
)
def test_gold_line_with_wrong_types_is_named(graded: Place, more: dict[str, Any], message: str) -> None:
    """It is a usage error with the line number, not an internal error."""
    write_gold(graded.folder / "gold.jsonl", [judged("d00", **more)])
    ran = graded.call("eval", "--gold", "gold.jsonl")
    assert ran.code == 2
    assert message in ran.err


def test_too_deeply_nested_gold_is_refused(graded: Place) -> None:
    """JSON can express the line, but no comparison can process it; the message contains its number."""
    line = json.dumps(judged("d00", {"company": 0})).replace(": 0}", ": " + "[" * 900 + "1" + "]" * 900 + "}")
    (graded.folder / "gold.jsonl").write_text(line + "\n", encoding="utf-8")
    ran = graded.call("eval", "--gold", "gold.jsonl")
    assert ran.code == 2
    assert "gold.jsonl:1: gold is nested too deeply" in ran.err

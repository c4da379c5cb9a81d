"""Any bytes as a document, any text as an answer, any YAML as a configuration: our own errors, and soon.

`PIPELINE_EXAMPLES=1000` times the suite's number of examples looks longer. What is measured is the time of the
processor, which a busy machine does not stretch; how it grows with the input is tested where it is promised.
"""

from __future__ import annotations

import gc
import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import jsonschema
from conftest import EXAMPLES
from fuzz_inputs import SCHEMA, agent_files, answers, contents, damaged, yamls
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.agents import load_agent, render, resolve
from pipeline.answers import AnswerError, judge, reask_prompt
from pipeline.answers.schema import compile_schema
from pipeline.config import InputConfig, InputSource
from pipeline.config.loading import describe, load_config
from pipeline.documents import FORMATS, ListingCounts, break_special_tokens, decode, load_entries
from pipeline.documents.archives.compression import COMPRESSIONS
from pipeline.errors import REASKED, ConfigError, DocumentError
from pipeline.record_lines import to_line
from pipeline.records import Document, ModelMetadata, Result, Stamp, Usage

BOUND_S = 1.0
fuzz = settings(
    max_examples=300 * EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@contextmanager
def soon() -> Iterator[None]:
    """Fail if the block takes more than a second of CPU time."""
    gc.disable()  # a collection would traverse hypothesis' records of 100,000 examples for more than a second
    try:
        begun = time.thread_time()
        yield
        assert time.thread_time() - begun < BOUND_S
    finally:
        gc.enable()


@fuzz
@given(
    suffix=st.sampled_from(sorted(FORMATS)),
    packing=st.sampled_from(["", *COMPRESSIONS]),
    content=contents,
    how=st.data(),
)
def test_any_bytes_as_a_document(tmp_path: Path, suffix: str, packing: str, content: bytes, how: st.DataObject) -> None:
    """Each entry of any file is a document that a prompt and a record can hold, or has a reason."""
    if packing == ".gz" and how.draw(st.booleans()):
        content = how.draw(damaged(st.just(gzip.compress(content, mtime=0))))
    path = tmp_path / f"a{suffix}{packing}"
    path.write_bytes(content)
    config = InputConfig(uri=(InputSource(str(path)),), max_document_bytes=20_000)
    for entry in load_entries(config, output=None, counts=ListingCounts()):
        with soon(), suppress(DocumentError):
            document = decode(entry, entry.read(), text_field="text")
            text, _ = break_special_tokens(document.text)
            to_line(as_result(replace(document, text=text)), Stamp(1, "r", None))
    path.unlink()


def as_result(document: Document, output: object = None) -> Result:
    """Return a result of this document."""
    return Result(
        document.id, document.uri, document.sha256, "a", "default", "f", output, ModelMetadata("vllm", "m"), 1, 0,
        False, document.notes, Usage(1, 2), None, len(document.text), document.metadata, 0.5,
        "2024-01-01T00:00:00.000Z", None,
    )  # fmt: skip


COMPILED = compile_schema(SCHEMA, where="test")


@fuzz
@given(text=answers, repair=st.sampled_from(["off", "basic", "full"]))
def test_any_text_as_an_answer(text: str, repair: str) -> None:
    """It is a valid object that a record can hold, or is refused with a complaint that can be sent."""
    with soon():
        try:
            answer = judge(text, COMPILED, document_text="one word", repair=repair)
        except AnswerError as error:
            assert error.reason in ("invalid_json", "schema_invalid", "not_grounded")
            if error.reason in REASKED:
                reask_prompt("user", text, error).encode("utf-8")
            return
        document = Document("i", "u", "s", "one word", {}, answer.notes)
        line = json.loads(to_line(as_result(document, answer.value), Stamp(1, "r", None)))
    jsonschema.Draft202012Validator(SCHEMA).validate(line["output"])


@fuzz
@given(data=yamls)
@example(data=b"[" * 2000)
def test_any_text_as_a_configuration(tmp_path: Path, data: bytes) -> None:
    """It is accepted and can be printed, or is refused with a message that names the file."""
    path = tmp_path / "c.yaml"
    path.write_bytes(data)
    with soon():
        message = refusal(lambda: json.dumps(describe(load_config(path, environ={}))))
    assert message is None or str(path) in message


@fuzz
@given(data=agent_files)
@example(data=b"overflow: " + b"a" * 90_000)
@example(data=b"overflow: " + b"?" * 90_000)
def test_any_text_as_an_agent(tmp_path: Path, data: bytes) -> None:
    """It is accepted and can be rendered and applied, or is refused with a message that names the file."""
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    document = Document("i", "u", "s", "a $text", {"title": "t"}, ())
    app = load_config(None, environ={})

    def use() -> None:
        agent = load_agent("any", agents_dir=tmp_path)
        for variant in agent.variants:
            prompts = render(resolve(agent, app, variant=variant), document)
            assert "a $text" in prompts["user"]
        with suppress(AnswerError):
            judge('{"a": {"a": 1, "b": ["c"]}}', agent.compiled, document_text="c")

    with soon():
        message = refusal(use)
    assert message is None or str(path) in message


def refusal(call: Callable[[], object]) -> str | None:
    """Return the message of a ConfigError, if one is raised; no other exception may be."""
    try:
        call()
    except ConfigError as error:
        return str(error)
    return None

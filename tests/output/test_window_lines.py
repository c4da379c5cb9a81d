"""Window answers: written whole, repaired, indexed by document, and removed when the document is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from s3_server import S3Server
from test_output import failure, result
from test_remote_output import Clock, configured, keys, store_of

from pipeline.cli.main import main
from pipeline.config import OutputConfig
from pipeline.config.redaction import SECRETS
from pipeline.errors import ConfigError
from pipeline.output import Output, backend_of
from pipeline.records import ModelMetadata, Usage
from pipeline.shards import Shard
from pipeline.window_answers import WindowAnswer

TEXT = "b" * 64
QUESTION = "c" * 64


def answer(
    id: str = "a.pdf", start: int = 0, end: int = 100, *, sha256: str = "s", output: object = None
) -> WindowAnswer:
    """Return an answer about one window."""
    model = ModelMetadata("vllm", "m", "http://gpu:8000", None)
    return WindowAnswer(
        id, sha256, TEXT, QUESTION, start, end, output or {"n": start}, 1, 0, False, ("encoding:cp1252",), model,
        Usage(10, 2), 8192, 0.5, "2024-01-01T00:00:00.000Z",
    )  # fmt: skip


@pytest.fixture(params=["folder", "store"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> OutputConfig:
    """Return a new output in a folder and in a store whose parts hold two lines."""
    if request.param == "folder":
        return OutputConfig(str(tmp_path / "out"))
    s3: S3Server = request.getfixturevalue("s3")
    return configured(s3, request.getfixturevalue("bucket"), part_bytes=800)


def begun(config: OutputConfig, *, run_id: str = "r", shard: Shard | None = None, windows: bool = True) -> Output:
    """Open the output with its windows, without waiting for its lock."""
    clock = Clock()
    return Output.open(
        config, agent="extractor", shard=shard, lock_wait_s=0, run_id=run_id, wait=clock.wait, clock=clock,
        windows=windows,
    )  # fmt: skip


def answered_spans(output: Output, id: str = "a.pdf", *, run_id: str | None = None) -> list[tuple[int, int]]:
    """Return the positions of the known answers about a document."""
    assert output.windows is not None
    return output.windows.places(id, sha256="s", text_sha256=TEXT, question=QUESTION, run_id=run_id)


def lines(config: OutputConfig) -> list[dict[str, object]]:
    """Return all stored window lines."""
    if config.uri.startswith("s3:"):
        store = store_of(config)
        data = b"".join(store.get(key) for key in keys(config, "windows"))
    else:
        data = b"".join(path.read_bytes() for path in sorted(Path(config.uri).glob("windows*.jsonl")))
    return [json.loads(line) for line in data.splitlines()]


def write(output: Output, *answers: WindowAnswer) -> None:
    """Write answers about windows."""
    assert output.windows is not None
    for answer in answers:
        output.windows.write(answer)


def test_window_answers_are_readable_beside_a_run(config: OutputConfig) -> None:
    """`errors --show` reads them without the lock; no line changes, not even an incomplete one."""
    with begun(config) as output:
        write(output, answer(), answer(start=90, end=200), answer("b.pdf"))
        output.finish()
    if not config.uri.startswith("s3:"):
        with (Path(config.uri) / "windows.jsonl").open("ab") as file:
            file.write(b'{"v":1,"id":"a.p')
    with begun(config, windows=False):
        read = [json.loads(line) for line in backend_of(config).windows(clock=Clock()).read()]
    assert [(line["id"], line["start"], line["end"]) for line in read] == [
        ("a.pdf", 0, 100),
        ("a.pdf", 90, 200),
        ("b.pdf", 0, 100),
    ]
    if not config.uri.startswith("s3:"):
        assert (Path(config.uri) / "windows.jsonl").read_bytes().endswith(b'{"v":1,"id":"a.p')


def test_window_answer_is_read_back_unchanged(config: OutputConfig) -> None:
    """All fields are kept; another prompt, text or content of the document has no answers."""
    with begun(config) as output:
        write(output, answer(), answer(start=90, end=200))
        output.finish()
    with begun(config) as output:
        assert output.stamp.run == 2
        assert output.windows is not None
        result = output.windows.answered("a.pdf", sha256="s", text_sha256=TEXT, question=QUESTION)
        assert result == [answer(), answer(start=90, end=200)]
        for other in ({"sha256": "t"}, {"text_sha256": "t"}, {"question": "q"}, {"run_id": "other"}):
            identity = {"sha256": "s", "text_sha256": TEXT, "question": QUESTION, **other}
            assert output.windows.places("a.pdf", **identity) == []
        assert answered_spans(output, run_id="r") == [(0, 100), (90, 200)]
        assert answered_spans(output, "b.pdf") == []
    assert [(line["v"], line["run"], line["run_id"], line["shard"]) for line in lines(config)] == [
        (1, 1, "r", None)
    ] * 2


def test_result_removes_the_window_lines_of_its_document(config: OutputConfig) -> None:
    """A failure keeps them; files and parts without lines are deleted."""
    with begun(config) as output:
        write(output, answer("done"), answer("failed"), answer("left"))
        output.write(result("done"))
        output.write(failure("failed"))
        assert answered_spans(output, "done") == []
        output.finish()
    assert [line["id"] for line in lines(config)] == ["failed", "left"]
    with begun(config) as output:
        output.write(result("failed"))
        output.write(result("left"))
        output.finish()
    assert lines(config) == []


def test_outdated_window_lines_are_removed_at_the_next_start(config: OutputConfig) -> None:
    """Lines older than the result or of other bytes are outdated; newer ones belong to a run that redoes it."""
    with begun(config) as output:
        write(output, answer("done"), answer("changed"))
        output.write(result("done"))
        output.write(failure("changed", sha256="other"))
        output.backend.sync()
        assert output.windows is not None
        output.windows._files.sync()
    assert {line["id"] for line in lines(config)} == {"done", "changed"}
    with begun(config, run_id="again") as output:
        write(output, answer("done"))
        assert answered_spans(output, "done", run_id="again") == [(0, 100)]
    with begun(config) as output:
        assert answered_spans(output, "done") == [(0, 100)]
    assert [(line["id"], line["run"]) for line in lines(config)] == [("done", 2)]


def test_run_without_windows_changes_no_windows_file(config: OutputConfig) -> None:
    """It creates neither a file nor a part, and existing lines stay."""
    with begun(config) as output:
        output.write(result("a"))
        output.finish()
    assert lines(config) == []
    with begun(config) as output:
        write(output, answer())
    with begun(config, windows=False) as output:
        output.write(result("a.pdf"))
        output.finish()
    assert len(lines(config)) == 1


def test_window_lines_follow_their_documents_to_other_shards(config: OutputConfig) -> None:
    """A shard reads no sibling's lines; after a change of the count the owning shards find them."""
    first, second = Shard(0, 2), Shard(1, 2)
    ids = [f"d{number}" for number in range(12)]
    for shard in (first, second):
        with begun(config, shard=shard) as output:
            write(output, *(answer(id) for id in ids if shard.owns(id)))
            output.finish()
    with begun(config, shard=first) as output:
        assert [id for id in ids if answered_spans(output, id)] == [id for id in ids if first.owns(id)]
    for shard in (Shard(0, 3), Shard(1, 3), Shard(2, 3), Shard()):
        with begun(config, shard=shard) as output:
            assert [id for id in ids if answered_spans(output, id)] == [id for id in ids if shard.owns(id)]
    with begun(config) as output:
        for id in ids:
            output.write(result(id))
        output.finish()
    assert lines(config) == []


@pytest.mark.parametrize("cut", [1, 200, 400])
def test_broken_window_line_is_removed(tmp_path: Path, cut: int) -> None:
    """A kill within a write loses only that line, and later lines are not appended to its rest."""
    config = OutputConfig(str(tmp_path / "out"))
    with begun(config) as output:
        write(output, answer(), answer(start=90, end=200))
    path = tmp_path / "out" / "windows.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with begun(config) as output:
        assert answered_spans(output) == ([(0, 100), (90, 200)] if cut == 1 else [(0, 100)])
        write(output, answer(start=90, end=200))
    with begun(config) as output:
        assert answered_spans(output) == [(0, 100), (90, 200)]


def test_foreign_windows_file_is_refused_unchanged(tmp_path: Path) -> None:
    """A file of JSON Lines that no run has written is kept."""
    path = tmp_path / "out" / "windows.jsonl"
    path.parent.mkdir()
    path.write_text('{"v": 1, "id": "x"}\n')
    with pytest.raises(ConfigError, match="a line of windows"):
        begun(OutputConfig(str(path.parent)))
    assert path.read_text() == '{"v": 1, "id": "x"}\n'


@pytest.fixture
def secret() -> Iterator[str]:
    """Yield a secret of the configuration."""
    SECRETS.add("sk-0123456789abcdef")
    yield "sk-0123456789abcdef"


def test_secrets_are_masked_in_window_lines(tmp_path: Path, secret: str) -> None:
    """Metadata from a server is masked as in a record."""
    config = OutputConfig(str(tmp_path / "out"))
    with begun(config) as output:
        write(output, replace(answer(), model=ModelMetadata("p", secret, f"http://x/?k={secret}")))
    assert secret not in (tmp_path / "out" / "windows.jsonl").read_text()


def test_purge_removes_window_answers_of_a_document(
    config: OutputConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run counts them without removing them."""
    with begun(config) as output:
        write(output, answer("gone.pdf", output={"secret": "purged-words"}), answer("kept.pdf"))
        output.finish()
    named = tmp_path / "ids.txt"
    named.write_text("gone.pdf\n")
    storage = [f"--set=output.storage.{key}={value}" for key, value in config.storage.items()]
    command = ["purge", config.uri, "--ids", str(named), *storage]
    assert main([*command, "--dry-run"]) == 0
    assert "1 answer about parts of documents would be removed" in capsys.readouterr().out
    assert len(lines(config)) == 2
    assert main(command) == 0
    assert [line["id"] for line in lines(config)] == ["kept.pdf"]
    assert "purged-words" not in json.dumps(lines(config))

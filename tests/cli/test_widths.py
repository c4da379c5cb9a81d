"""The output of every command fits a terminal of 60, 80 and 120 columns."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import Place
from terminals import on_columns

from pipeline.cli.commands import COMMANDS

MARK = "\x1e"
"""Between the outputs of two commands."""
PROGRAM = f"""
import json, sys
from pipeline.cli.main import main
for words in json.loads(sys.argv[1]):
    print({MARK!r} + " ".join(words), flush=True)
    try:
        main(words)
    except SystemExit:
        pass
    sys.stdout.flush()
"""
LONG = "archive-of-2026/a-report-with-quite-a-long-name-in-its-folder.txt"
TYPED = [
    ["run", "--progress", "none"],
    ["run", "--progress", "none"],
    ["run", "--dry-run", "--redo", "all"],
    ["run", "--only-failed", "timeouts"],
    ["run", "--inptu", "x"],
    ["run", "--set", "ovrflow=head"],
    ["run", "--set", "runner.concurency=3"],
    ["check"],
    ["check", "--set", "vllm.base_url=http://127.0.0.1:9"],
    ["try", "b.txt"],
    ["try", "bad.txt"],
    ["errors"],
    ["errors", "--show", "bad.txt"],
    ["results", "--format", "table"],
    ["results", "--profile"],
    ["show", "b.txt"],
    ["show", "nobody.txt"],
    ["eval", "--gold", "gold.jsonl"],
    ["diff", "out", "out"],
    ["report"],
    ["compact"],
    ["purge", "--ids", "none.txt"],
    ["init", "news"],
    ["init", "news"],
    ["help"],
    ["nonsense"],
    *([name, "--help"] for name in COMMANDS),
]


def shown_on(place: Place, columns: int) -> dict[str, list[str]]:
    """Return the lines of each command's output on a terminal of so many columns, stdout and stderr as one."""
    code, text = on_columns([sys.executable, "-c", PROGRAM, json.dumps(TYPED)], folder=place.folder, columns=columns)
    assert code == 0
    outputs = text.split(MARK)[1:]
    return {words.splitlines()[0]: words.splitlines()[1:] for words in outputs}


def is_too_wide(line: str, columns: int) -> bool:
    """Return whether a line could have been broken before its last word (a path or an address stays whole)."""
    start, _, word = line.rstrip().rpartition(" ")
    return len(line) > columns and bool(start.strip()) and len(word) < columns // 2


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_output_of_each_command_fits_the_terminal(place: Place, columns: int) -> None:
    """This covers results, messages and help, also with long names."""
    texts = {LONG: "A plain text.", "b.txt": "Another text.", "bad.txt": "[[fault:http_400]]", "empty.txt": ""}
    place.documents(texts)
    (place.folder / "inbox" / "empty.txt").write_bytes(b"")
    gold = [{"id": "b.txt", "gold": {"summary": "Another one."}}, {"id": LONG, "gold": {"summary": "It is plain."}}]
    (place.folder / "gold.jsonl").write_text("".join(json.dumps(line) + "\n" for line in gold), encoding="utf-8")
    (place.folder / "none.txt").write_text("b.txt\n", encoding="utf-8")
    shown = shown_on(place, columns)
    assert len(shown) == len({" ".join(words) for words in TYPED})
    assert all(shown.values()), [words for words, lines in shown.items() if not lines]
    wide = [(words, line) for words, lines in shown.items() for line in lines if is_too_wide(line, columns)]
    for words, line in wide:
        print(columns, words, "|", line)
    assert wide == []

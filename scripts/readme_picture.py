"""Draw a document and its record side by side, with the checked quotes highlighted, as an SVG.

It reads a finished output and must not call a model. The picture of README.md was made by

    make run
    python scripts/readme_picture.py out/quickstart --id wire/013-thornbury.txt \
        --document config/quickstart/documents/wire/013-thornbury.txt \
        --agents-dir config/quickstart/agents > docs/record.svg
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.agents import load_agent

CHARACTER = 7.2
LINE = 18
PAD = 20
"""Pixels: the width of a character of 12 px, which each line is stretched to; the height of a line; the margin."""
COLUMNS = {"document": 58, "record": 50}
STYLE = "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1f2328;white-space:pre}.head{fill:#59636e}"


def last_record(out: Path, name: str) -> Mapping[str, Any]:
    """Return the last result of a document; KeyError when it has none."""
    lines = (json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines())
    records: dict[str, Mapping[str, Any]] = {record["id"]: record for record in lines}
    return records[name]


def quotes_of(record: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Return the values of the record's fields that the schema requires to occur in the document."""
    fields = [name for name, field in schema["properties"].items() if field.get("x-quote")]
    return [value for name in fields if isinstance(value := record["output"].get(name), str)]


def document_lines(text: str) -> list[str]:
    """Return the document's text in lines that fit their column."""
    return [line for part in text.splitlines() for line in textwrap.wrap(part, COLUMNS["document"]) or [""]]


def record_lines(record: Mapping[str, Any]) -> list[str]:
    """Return the record's output as JSON, one field after the other, in lines that fit their column."""
    lines = ["{"]
    for name, value in record["output"].items():
        field = f'"{name}": {json.dumps(value, ensure_ascii=False)}'
        lines += textwrap.wrap(field, COLUMNS["record"] - 2, initial_indent="  ", subsequent_indent="    ")
    return [*lines, "}"]


def highlights(lines: Sequence[str], quotes: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Yield line, first column and length of each occurrence of a quote that lies within one line."""
    for number, line in enumerate(lines):
        for quote in quotes:
            column = line.find(quote)
            while quote and column >= 0:
                yield number, column, len(quote)
                column = line.find(quote, column + len(quote))


def column_of(title: str, lines: Sequence[str], quotes: Sequence[str], *, x: float) -> Iterator[str]:
    """Yield the SVG elements of one column."""
    yield f'<text class="head" x="{x:g}" y="{PAD + 12}">{escape(title)}</text>'
    top = PAD + 2 * LINE
    for number, column, length in highlights(lines, quotes):
        place = f'x="{x + column * CHARACTER - 2:g}" y="{top + number * LINE - 1:g}"'
        yield f'<rect {place} width="{length * CHARACTER + 4:g}" height="{LINE - 1}" rx="3" fill="#ffe58a"/>'
    for number, line in enumerate(lines):
        if line:
            size = f'textLength="{len(line) * CHARACTER:g}" lengthAdjust="spacingAndGlyphs"'
            place = f'x="{x:g}" y="{top + number * LINE + 12:g}"'
            yield f'<text {place} {size} xml:space="preserve">{escape(line)}</text>'


def picture(record: Mapping[str, Any], text: str, quotes: Sequence[str]) -> str:
    """Return the SVG."""
    left_column = document_lines(text)
    right = record_lines(record)
    middle = 2 * PAD + COLUMNS["document"] * CHARACTER
    width = middle + COLUMNS["record"] * CHARACTER + PAD
    height = 3 * PAD + (max(len(left_column), len(right)) + 1) * LINE
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img">',
            "<title>A document and the record it became; the quotes that were checked are highlighted</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{width:g}" height="{height}" rx="8" fill="#ffffff" stroke="#d1d9e0"/>',
            *column_of(record["id"], left_column, quotes, x=PAD),
            *column_of(f"output, by {record['model']['name']}", right, quotes, x=middle),
            "</svg>\n",
        ]
    )


def main() -> None:
    """Print the picture of one document of an output."""
    parser = argparse.ArgumentParser(description="Draw a document and its record as an SVG.")
    parser.add_argument("out", type=Path, help="the output: a folder")
    parser.add_argument("--id", required=True, help="the document's id")
    parser.add_argument("--document", required=True, type=Path, help="the file with its text")
    parser.add_argument("--agents-dir", type=Path, help="where the agent is, if it is not built in")
    arguments = parser.parse_args()
    record = last_record(arguments.out, arguments.id)
    schema = load_agent(record["agent"], agents_dir=arguments.agents_dir).schema
    print(picture(record, arguments.document.read_text(encoding="utf-8"), quotes_of(record, schema)), end="")


if __name__ == "__main__":
    main()

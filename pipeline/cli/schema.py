"""`pipeline schema`: the JSON Schema of the config file or of an agent file, or one to start an agent from."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.answers.starting_schema import schema_of_class, schema_of_records, text_fields
from pipeline.cli.flags import CommaList
from pipeline.config.constraints import nearest_hint
from pipeline.config.json_schema import agent_schema, config_schema
from pipeline.errors import EXIT_OK, ConfigError
from pipeline.logs import visible
from pipeline.terminal import write_out

EXAMPLES = """examples:
  pipeline schema > config.schema.json
  pipeline schema --from-example record.json > agents/my_agent.schema.json
  pipeline schema --from-example record.json --quote evidence > agents/my_agent.schema.json
  pipeline schema --from-pydantic my_models:Invoice > agents/invoice.schema.json"""

_QUOTE_HINT = (
    "Text fields: {}. To require that a value occurs word for word in the document: --quote {}"
    " (x-quote, docs/evidence.md).\n"
)


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument(
        "--quote",
        metavar="FIELD,...",
        action=CommaList,
        help="with --from-example or --from-pydantic: texts that must occur word for word in the document (x-quote)",
    )
    add = command.add_mutually_exclusive_group().add_argument
    add("--agent", action="store_true", help="the schema of an agent file instead")
    add(
        "--from-example",
        metavar="FILE",
        help="a schema for an agent, from JSON records that you would like to get",
    )
    add("--from-pydantic", metavar="MODULE:CLASS", help="a schema for an agent, from a class with model_json_schema()")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:  # noqa: ARG001
    """Print the schema and return 0; ConfigError for an example or a class without a schema."""
    is_start = bool(arguments.from_example or arguments.from_pydantic)
    if arguments.quote and not is_start:
        raise ConfigError("--quote: need --from-example or --from-pydantic")
    schema = _chosen_schema(arguments)
    if is_start:
        texts = text_fields(schema)
        if arguments.quote:
            _mark_quotes(texts, arguments.quote)
        elif texts:
            sys.stderr.write(_QUOTE_HINT.format(visible(", ".join(texts)), visible(",".join(list(texts)[:2]))))
    write_out(json.dumps(schema, indent=2, ensure_ascii=False))
    return EXIT_OK


def _mark_quotes(texts: Mapping[str, Sequence[dict[str, Any]]], fields: str) -> None:
    """Add x-quote to the named texts; ConfigError for a name that is not one of them."""
    for name in (field.strip() for field in fields.split(",")):
        if name not in texts:
            field_names = ", ".join(texts) or "a field that is a text"
            raise ConfigError(f"--quote: got {name!r}, need one of {field_names}{nearest_hint(name, texts)}")
        for node in texts[name]:
            node["x-quote"] = True


def _chosen_schema(arguments: argparse.Namespace) -> Any:
    if arguments.from_example:
        return schema_of_records(_records(arguments.from_example))
    if arguments.from_pydantic:
        return _class_schema(arguments.from_pydantic)
    return agent_schema() if arguments.agent else config_schema()


def _records(name: str) -> list[Mapping[str, Any]]:
    """Return the records of a file: one object, a list of them, or one a line."""
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"--from-example: {name} cannot be read: {cause}") from cause
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    try:
        values = document if document is not None else [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as cause:
        raise ConfigError(f"--from-example: {name} is not JSON: {cause}") from cause
    records = values if isinstance(values, list) else [values]
    records = [record["output"] if isinstance(record, dict) and _is_result(record) else record for record in records]
    if not records or not all(isinstance(record, dict) for record in records):
        raise ConfigError(f"--from-example: got {name}, need a JSON object, or several in a list or one a line")
    return records


def _is_result(record: Mapping[str, Any]) -> bool:
    """Return True for a line of results.jsonl, whose `output` is the record."""
    return isinstance(record.get("output"), dict) and "fingerprint" in record


def _class_schema(name: str) -> Any:
    """Return the schema of a class that the user names; the current directory is searched first."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"--from-pydantic: got {name!r}, need MODULE:CLASS")
    sys.path.insert(0, str(Path.cwd()))
    try:
        model_class = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as cause:
        library = getattr(cause, "name", None) == "pydantic"
        advice = "; install pydantic in the environment of this command" if library else ""
        raise ConfigError(f"--from-pydantic: {name} cannot be imported: {cause}{advice}") from cause
    except Exception as cause:  # the module is the user's own program
        raise ConfigError(f"--from-pydantic: {name} cannot be imported: {_in_short(cause)}") from cause
    make = getattr(model_class, "model_json_schema", None)
    if make is None:
        raise ConfigError(f"--from-pydantic: got {name}, which has no model_json_schema(), need a pydantic model")
    try:
        schema = make()
    except Exception as cause:  # pydantic's errors, which this program cannot import
        raise ConfigError(f"--from-pydantic: {name} gives no schema: {_in_short(cause)}") from cause
    return schema_of_class(schema)


def _in_short(cause: Exception) -> str:
    """Return the class and the first line of an error."""
    return f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"

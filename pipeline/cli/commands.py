"""The commands by name; each is a module with its flags, and must be imported only when it is called."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Protocol


class Command(Protocol):
    """The module of a command: examples for its help, its flags and its main function."""

    EXAMPLES: str

    def add_flags(self, command: argparse.ArgumentParser) -> None: ...
    def main(self, arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int: ...


def _run() -> Command:
    from pipeline.cli import run

    return run


def _plan() -> Command:
    from pipeline.cli import plan

    return plan


def _check() -> Command:
    from pipeline.cli import check

    return check


def _try() -> Command:
    from pipeline.cli import try_document

    return try_document


def _report() -> Command:
    from pipeline.cli import report

    return report


def _errors() -> Command:
    from pipeline.cli import errors

    return errors


def _diff() -> Command:
    from pipeline.cli import diff

    return diff


def _results() -> Command:
    from pipeline.cli import results

    return results


def _eval() -> Command:
    from pipeline.cli import eval

    return eval


def _review() -> Command:
    from pipeline.cli import review

    return review


def _show() -> Command:
    from pipeline.cli import show

    return show


def _compact() -> Command:
    from pipeline.cli import compact

    return compact


def _purge() -> Command:
    from pipeline.cli import purge

    return purge


def _init() -> Command:
    from pipeline.cli import init

    return init


def _completion() -> Command:
    from pipeline.cli import completion

    return completion


def _schema() -> Command:
    from pipeline.cli import schema

    return schema


COMMANDS: Mapping[str, tuple[str, Callable[[], Command]]] = {
    "run": ("extract: documents in, results and errors out", _run),
    "plan": ("list the input once and divide it into chunks for many machines", _plan),
    "check": ("show the settings and check every provider", _check),
    "try": ("send some documents now; show prompts and answers", _try),
    "report": ("rebuild the report of an output; calls no model", _report),
    "errors": ("show failures, their causes and how to retry them", _errors),
    "diff": ("show what changed between two outputs", _diff),
    "results": ("show or save the current results: table, CSV, JSON Lines, Parquet", _results),
    "show": ("show a record with its quotes in the document", _show),
    "eval": ("grade the answers against judged documents", _eval),
    "review": ("judge answers on a local page, beside their documents", _review),
    "compact": ("keep only the last record of each document", _compact),
    "purge": ("remove documents from an output", _purge),
    "init": ("create a config, an agent and a schema to start from", _init),
    "completion": ("print the script that completes commands in a shell", _completion),
    "schema": ("print a JSON Schema: of the config, or drafted for an agent", _schema),
}
"""Command → its line in the help, and the function that imports its module, called only for that command."""

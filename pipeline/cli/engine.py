"""The flags of `pipeline run` for an engine, and the part of the command line that each chunk repeats."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.flags import count
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config.discovery import ConfigFile

_REFUSED_FLAGS = ("chunk", "shard", "ids", "limit", "sample", "started_at", "metrics_port", "metrics_textfile")
_REPEATED_FLAGS = ("input", "agent", "variant", "concurrency", "set", "only_failed", "redo", "pushgateway", "log_level")
_REPEATED_SWITCHES = ("no_retry_failed", "profile_values")
_VARIABLES = ("PIPELINE_", "VLLM_", "OLLAMA_")
_DROPPED_VARIABLES = ("PIPELINE_CONFIG", "PIPELINE_SHARDS", "PIPELINE_CHUNKS")


def add_engine_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags for running the chunks of a plan on a cluster."""
    add = command.add_argument_group("on a cluster").add_argument
    add("--engine", choices=("ray",), help="plan the input, and run its chunks as tasks of this engine")
    add(
        "--address",
        metavar="ADDRESS",
        help="HOST:PORT of the cluster, or local; default: $RAY_ADDRESS, else a Ray of this machine",
    )
    add("--slots", metavar="N", type=count, help="chunks at a time; default: 4")


def check_engine_flags(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for flags that contradict each other."""
    if arguments.engine is None:
        for name in ("address", "slots"):
            if getattr(arguments, name) is not None:
                raise ConfigError(
                    f"--{name}: got {getattr(arguments, name)!r} without --engine, need --engine ray as well"
                )
        return
    for name in _REFUSED_FLAGS:
        if getattr(arguments, name) not in (None, []):
            raise ConfigError(f"--{name.replace('_', '-')}: cannot be combined with --engine; need a run without it")


def run_on_engine(arguments: argparse.Namespace, *, file: ConfigFile | None, environ: Mapping[str, str]) -> int:
    """Run all chunks on the engine; return the exit code of the whole."""
    from pipeline.cli.arguments import load_app, same_command
    from pipeline.engines.ray import RayEngine, check_ray
    from pipeline.engines.whole_run import EngineOptions, new_run_id, run_whole

    app = load_app(arguments, environ=environ)
    check_ray(arguments.address or environ.get("RAY_ADDRESS"))
    slots = arguments.slots or 4
    run_id = arguments.run_id or new_run_id()
    options = EngineOptions(
        slots=slots,
        command=f"{same_command(arguments)} {shlex.join(_own_flags(arguments))}",
        run_id=run_id,
        max_duration_s=arguments.max_duration,
        incomplete_exit=arguments.incomplete_exit,
        progress=arguments.progress,
        quiet=arguments.quiet,
    )
    chunk = {
        "config": str(file.path) if file is not None and file.root == Path() else None,
        "plan": app.output.uri,
        "flags": (*_flags(arguments), "--run-id", run_id),
        "environ": {
            name: value
            for name, value in environ.items()
            if name.startswith(_VARIABLES) and name not in _DROPPED_VARIABLES
        },
        "folder": str(Path.cwd()),
    }
    return run_whole(
        app, options, connect=lambda: RayEngine(arguments.address, slots=slots, chunk=chunk), environ=environ
    )


def _own_flags(arguments: argparse.Namespace) -> list[str]:
    """Return the engine flags of the command as the user typed them."""
    words: list[str] = []
    for name in ("engine", "address", "slots", "concurrency"):
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name}", str(value)]
    return words


def _flags(arguments: argparse.Namespace) -> list[str]:
    words: list[str] = []
    for name in _REPEATED_FLAGS:
        value = getattr(arguments, name)
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                words.append(f"--{name.replace('_', '-')}={item}")
    if arguments.max_duration is not None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        words += [f"--max-duration={arguments.max_duration:.0f}s", f"--started-at={now}"]
    return [*words, *(f"--{name.replace('_', '-')}" for name in _REPEATED_SWITCHES if getattr(arguments, name))]

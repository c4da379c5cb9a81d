"""Functions that commands share: load the configuration, open the output, build the command that repeats a run."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import secrets
import shlex
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.config import AppConfig, OutputConfig, mask_url
from pipeline.config.discovery import ConfigFile
from pipeline.config.keys import misspelt_names, split_key, value_of_text
from pipeline.config.loading import find_config, load_config, masked, parse_set
from pipeline.errors import ConfigError
from pipeline.output import Output, folder_of

logger = logging.getLogger(__name__)

LOCK_WAIT_S = 30.0
"""Seconds for which a command waits for a run that holds the lock; short, as the user is waiting."""

_FLAGS = {
    "input": "input.uri",
    "output": "output.uri",
    "agent": "agent",
    "variant": "variant",
    "concurrency": "runner.concurrency",
}
"""Flags that override a setting, with its dotted key."""


def load_app(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> AppConfig:
    """Return the configuration of flags, environment and file; ConfigError when it is not valid."""
    for name, near in misspelt_names(environ).items():
        logger.warning("an environment variable is ignored", extra={"variable": name, "nearest": near})
    overrides: dict[str, object] = dict(map(parse_set, arguments.set))
    for flag, key in _FLAGS.items():
        value = getattr(arguments, flag, None)
        if value is not None:
            overrides[key] = int(value) if flag == "concurrency" and value.isdigit() else value
    return load_config(config_file(arguments, environ=environ), environ=environ, overrides=overrides)


def config_file(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> ConfigFile | None:
    """Return the config file: the flag's, else PIPELINE_CONFIG, else the nearest one in or above this folder."""
    return ConfigFile(Path(arguments.config)) if arguments.config else find_config(environ)


def say_config(file: ConfigFile | None) -> None:
    """Log that no config file is used, as the user may expect settings from one."""
    if file is None:
        logger.info("no config file found; using built-in defaults (`pipeline init DIR` creates a config file)")


def output_config(arguments: argparse.Namespace, *, environ: Mapping[str, str], uri: str | None = None) -> OutputConfig:
    """Return the output at `uri`, with the configuration's storage options for an object store.

    `uri` None: the argument OUT, else `output.uri` of the configuration.
    """
    uri = arguments.output if uri is None else uri
    if uri is None:
        return load_app(arguments, environ=environ).output
    if folder_of(uri) is not None:
        return OutputConfig(uri)
    return replace(load_app(arguments, environ=environ).output, uri=uri)


def open_to_change(config: OutputConfig, arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> Output:
    """Return the whole output, locked: its records may be rewritten, and no run can be in progress.

    Waits for the lock for `runner.lock_wait_s` where that is set, else LOCK_WAIT_S.
    """
    if (folder := folder_of(config.uri)) is not None and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder, need an existing output")
    lock_wait_s = LOCK_WAIT_S
    if arguments.set or arguments.config or arguments.output is None or environ.get("PIPELINE_RUNNER_LOCK_WAIT_S"):
        app = load_app(arguments, environ=environ)
        lock_wait_s = app.runner.lock_wait_s if "runner.lock_wait_s" in app.origins else LOCK_WAIT_S
    run_id = f"{arguments.command}-{secrets.token_hex(4)}"
    return Output.open(
        config,
        agent=None,
        shard=None,
        lock_wait_s=lock_wait_s,
        run_id=run_id,
        wait=threading.Event().wait,
        windows=True,
    )


def user_name() -> str:
    """Return the name of the user; in a container it may have a number only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def same_command(arguments: argparse.Namespace, *, command: str = "run", without: Collection[str] = ()) -> str:
    """Return a command with the same configuration, without selected documents, shard or possible secrets.

    `without`: the keys whose `--set` is omitted, because the caller adds another value.
    """
    words = ["pipeline", command]
    for flag in ("config", "output", "agent", "variant", "concurrency"):
        if getattr(arguments, flag):
            words += [f"--{flag}", str(getattr(arguments, flag))]
    for uri in arguments.input or ():
        words += ["--input", mask_url(uri)]
    for text in arguments.set:
        if not _may_hold_secret(text) and parse_set(text)[0] not in without:
            words += ["--set", text]
    return shlex.join(words)


_PLAIN_STORAGE_OPTIONS = (("endpoint",), ("region",), ("profile",))
"""Options of an object store that contain no secret; without them a suggested command would ask another store."""


def _may_hold_secret(text: str) -> bool:
    """Return True for `key=value` when the setting is or may contain a secret."""
    key, value = parse_set(text)
    name, inside = split_key(key)
    setting = value_of_text(key, value)
    for part in reversed(inside):
        setting = {part: setting}
    is_plain = name.endswith(".api_key_file") or (name.endswith(".storage") and inside in _PLAIN_STORAGE_OPTIONS)
    is_hidden = not is_plain and any(word in name for word in ("api_key", "headers", "storage"))
    return is_hidden or masked(setting) != setting

"""Flags that several commands share, and the types of their values.

It must import only what `--help` needs.
"""

from __future__ import annotations

import argparse
import re
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pipeline.config.texts import mask_url

_SCHEDULED_WITHIN_S = 7 * 86400.0
_CLOCK_SKEW_S = 300.0
"""A CronJob writes its minute into the name of a Job; a number outside of these limits is no such minute."""

CONFIG_HELP = "default: $PIPELINE_CONFIG, else the nearest config/default.yaml or pipeline.yaml in this folder or above"

_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def add_config_flags(command: argparse.ArgumentParser, *, places: bool = True) -> None:
    """Add the flags that choose or override settings; `places`: input, output and concurrency too."""
    add = command.add_argument_group(
        "configuration (flags override the environment, the agent and the file)"
    ).add_argument
    add("--config", metavar="FILE", help=CONFIG_HELP)
    if places:
        add("--input", metavar="URI", action="append", help="path, file or glob; repeatable")
        add("--output", metavar="URI", help="folder for results, errors and the report")
        add("--concurrency", metavar="N|auto", help="documents in flight")
    add("--agent", metavar="NAME", help="agent: prompts and schema")
    add("--variant", metavar="ID", help="use only this variant of the agent")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="any setting by its dotted key; repeatable")


def add_out(command: argparse.ArgumentParser) -> None:
    """Add the optional argument OUT, and the flags that name a config file and override settings."""
    text = "the output: a folder, or s3://bucket/prefix, gs://…, az://…; default: output.uri of the configuration"
    command.add_argument("output", metavar="OUT", nargs="?", help=text)
    add_storage_flags(command)


def add_storage_flags(command: argparse.ArgumentParser, *, settings: bool = True) -> None:
    """Add the flags that set the output and the options of its object store; with `settings`, also --set."""
    add = command.add_argument_group("configuration (of the output: output.uri, output.storage)").add_argument
    add("--config", metavar="FILE", help=CONFIG_HELP)
    if settings:
        add("--set", metavar="KEY=VALUE", action="append", default=[], help="any setting by its dotted key; repeatable")


class CommaList(argparse.Action):
    """A flag whose value is a list separated by commas; a repetition of the flag adds to the list."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Append the value to the earlier ones."""
        earlier = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{earlier},{values}" if earlier else values)


def count(text: str) -> int:
    """Return a whole number of 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, need a whole number of 1 or more")
    return int(text)


def index(text: str) -> int:
    """Return the number of a chunk, from 0."""
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, need the number of a chunk, from 0")
    return int(text)


def size_bytes(text: str) -> int:
    """Return bytes of a size such as 500000, 64MB or 1GiB."""
    match = re.fullmatch(r"([1-9][0-9]{0,15})(|[kKMGT]i?B)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, need a number of bytes, or a size such as 64MB or 1GiB")
    number = int(match[1])
    unit = match[2].upper()
    base = 1024 if "I" in unit else 1000
    for _ in range(" KMGT".index(unit[:1] or " ")):
        number *= base
    return number


def port(text: str) -> int:
    """Return a TCP port; 0 means any free port."""
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}, need a port from 0 to 65535")
    return int(text)


def http_url(text: str) -> str:
    """Return an http or https URL with a host."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"got {mask_url(text)!r}, need a URL such as http://127.0.0.1:9091")
    return text


def duration_s(text: str) -> float:
    """Return seconds of a time with units d, h, m or s, several in a row.

    A bare number is refused: 400 seconds instead of 400 days would match nearly all records of an output.
    """
    parts = re.findall(r"(\d{1,18}(?:\.\d{1,18})?)([dhms])", text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, need its unit as well: {text}s, {text}m, {text}h or {text}d")
    raise argparse.ArgumentTypeError(f"got {text!r}, need a time such as 90s, 30m, 5h, 1h30m or 400d")


def started_at(text: str, *, now: float) -> float | None:
    """Return the Unix time of an RFC 3339 time or of a CronJob's Job, whose name ends with its scheduled minute.

    Return None for any other text, such as the name of a Job that a person created. `now` distinguishes a minute from
    another number.
    """
    try:
        moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except ValueError:
        minutes = re.fullmatch(r".*-(\d{8,9})", text)
        scheduled = 60.0 * int(minutes[1]) if minutes else 0.0
        return scheduled if now - _SCHEDULED_WITHIN_S <= scheduled <= now + _CLOCK_SKEW_S else None
    return moment.timestamp() if moment.tzinfo is not None else None

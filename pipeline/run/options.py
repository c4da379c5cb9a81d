"""The flags of `pipeline run` as one frozen value. It reads no configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.run.display.progress import ProgressMode

Redo = Literal["changed", "none", "all"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The flags of one run that are not settings; built once, in `cli`.

    `ids`: documents by name, empty: all. `limit`, `sample`: documents; None: all.
    `shard`, `chunk`: as the flags name them; None: as the environment does.
    `only_failed`: reasons, empty for all of them; None: not only failed ones.
    `max_duration_s`: seconds after which the run stops. `command`: the command that repeats the run.
    `incomplete_exit`: the exit code of a run that has left documents. `profile_values`: texts may be in the profile.
    `config_file`: the file the settings came from, None without one.
    """

    ids: tuple[str, ...] = ()
    limit: int | None = None
    sample: int | None = None
    shard: str | None = None
    chunk: int | None = None
    only_failed: frozenset[str] | None = None
    retry_failed: bool = True
    redo: Redo | None = None
    max_duration_s: float | None = None
    run_id: str | None = None
    dry_run: bool = False
    incomplete_exit: int = 0
    progress: ProgressMode = "auto"
    quiet: bool = False
    log_format: Literal["text", "json"] = "text"
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    metrics_textfile: Path | None = None
    pushgateway: str | None = None
    profile_values: bool = False
    command: str = "pipeline run"
    config_file: Path | None = None

    @property
    def repeats_changed(self) -> bool:
        """Whether every listed document with a result of an earlier prompt, schema or model is extracted again."""
        selects = bool(self.ids) or self.limit is not None or self.sample is not None or self.only_failed is not None
        return self.redo != "none" and not selects

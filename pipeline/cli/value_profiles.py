"""The profile of the current results of an output, each counted once: read for `report` and `results --profile`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from pipeline.agents.fingerprints import questions_of
from pipeline.output import ReadableOutput, read_runs
from pipeline.output.compaction import last_lines
from pipeline.output.lines import parse
from pipeline.report import plain
from pipeline.report.profile import ProfileReport, profile_of
from pipeline.report.profile_text import field_lines
from pipeline.values.profiling import ProfileBuilder
from pipeline.values.value_profile import ValueProfile, merged


def current_profiles(
    backend: ReadableOutput, runs: Sequence[Mapping[str, Any]], *, show_texts: bool
) -> dict[str, ValueProfile]:
    """Return the profiles of the current results by variant, each result counted once."""
    prompts = list(questions_of(runs))
    schema = prompts[-1].get("schema") if prompts else None
    builder = ProfileBuilder(schema, random=Random(0).random, show_texts=show_texts)
    for line, _ in last_lines(backend):
        record = parse(line)
        if record is not None:
            builder.add(record.get("output"), variant=str(record.get("variant")), fingerprint=record["fingerprint"])
    return builder.profiles()


def profile_output(backend: ReadableOutput, *, as_json: bool, show_texts: bool, width: int) -> Iterator[str]:
    """Yield the profile of an output for `results --profile`: a line for each field, or JSON."""
    variants = current_profiles(backend, read_runs(backend), show_texts=show_texts)
    profile = profile_of(ProfileReport(merged(variants.values()), variants))
    if as_json:
        yield json.dumps(plain.to_json(profile), ensure_ascii=False) + "\n"
        return
    yield from (f"{line}\n" for line in field_lines(profile, width=width))
    for name, row in profile.variants.items() if len(variants) > 1 else ():
        yield "\n"
        yield from (f"{line}\n" for line in field_lines(row, width=width, variant=name))

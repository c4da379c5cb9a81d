"""Messages about keys and members that are not settings: they name what was typed, its value and the nearest name."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pipeline.config.constraints import hints_of, options
from pipeline.config.csv_options import CSV_OPTIONS
from pipeline.config.keys import sections
from pipeline.config.limits import limit_settings
from pipeline.config.loading import load_config
from pipeline.config.models import rule_of
from pipeline.errors import ConfigError

WRONG_MEMBERS: Mapping[Any, object] = {str: [1], float: "abc"}
KEYS = [(section, name) for section, cls in sections().items() for name in hints_of(cls)]


def complaint(**overrides: object) -> str:
    """Return the error message about settings of the command line."""
    with pytest.raises(ConfigError) as error:
        load_config(None, environ={}, overrides=overrides)
    return str(error.value)


def typed_mappings() -> Iterator[tuple[str, Any]]:
    """Yield key and type of the values of each setting that is a mapping to something other than JSON values."""
    for section, name in KEYS:
        for option in options(hints_of(sections()[section])[name]):
            if typing.get_origin(option) is Mapping and typing.get_args(option)[1] is not Any:
                yield f"{section}.{name}", typing.get_args(option)[1]


def misspelt(name: str) -> str:
    """Return the name without a letter in its middle."""
    return name[: len(name) // 2] + name[len(name) // 2 + 1 :]


@pytest.mark.parametrize("section", [*sections(), "providers", "providers.spare"])
@pytest.mark.parametrize(("value", "kind"), [("3", "3"), ("{type: vllm}", "a mapping")])
def test_section_with_a_value_is_called_a_section(section: str, value: str, kind: str) -> None:
    """The message names the section, and the keys that it has."""
    message = complaint(**{section: value})
    place = "providers.NAME" if section == "providers" else section
    assert message.startswith(f"{section}: is a section; got {kind}, need {place}.KEY, where KEY is one of ")
    keys = message.partition("is one of ")[2].removesuffix(" (command line)").split(", ")
    assert set(keys) >= set(hints_of(sections().get(section, sections()["vllm"])))


def test_value_of_a_section_is_not_shown() -> None:
    """A text may be a key that was typed at the wrong place."""
    assert "sk-123" not in complaint(vllm="sk-123")


@pytest.mark.parametrize(("section", "name"), KEYS)
def test_misspelt_key_names_the_nearest_of_its_section(section: str, name: str) -> None:
    """So does a key with a part too many, which resembles keys of other sections."""
    for typed in (f"{section}.{misspelt(name)}", f"{section}.vllm.{misspelt(name)}"):
        if typed.rpartition(".")[2] in hints_of(sections()[section]):
            continue
        message = complaint(**{typed: "3"})
        assert message.startswith(f"{typed}: unknown key, the nearest is {section}.")
        assert f"need one of {', '.join(hints_of(sections()[section]))} (command line)" in message


@pytest.mark.parametrize(("key", "kind"), list(typed_mappings()))
def test_wrong_member_of_a_mapping_is_named(key: str, kind: Any) -> None:
    """The message begins with the member; it has its value, unless that may be a secret, and not the whole mapping."""
    value = WRONG_MEMBERS.get(kind, "abc")
    lines = complaint(**{key: {"first_one": value, "2nd": value}}).splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"{key}.first_one", f"{key}.2nd"]
    shown = "a value (hidden" if rule_of(*key.split(".")).secret else repr(value)
    assert all(f"got {shown}" in line or "got a text (hidden" in line for line in lines)
    assert not any("{'first_one'" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *(("input.limits", name) for name, _, _ in limit_settings()),
        *(("input.csv", name) for name in CSV_OPTIONS),
    ],
)
@pytest.mark.parametrize("value", ["abc", 3])
def test_misspelt_member_names_the_nearest(key: str, name: str, value: object) -> None:
    """The kind of the value makes no difference."""
    typed = misspelt(name)
    expected = f"{key}.{typed}: unknown key, the nearest is {name}; got {value!r}, need one of "
    assert complaint(**{f"{key}.{typed}": value}).startswith(expected)


def test_limit_with_a_text_is_named() -> None:
    """The message has the range, as for a number that is out of it."""
    expected = "need a number of seconds from 0.1 to 86400 (command line)"
    assert complaint(**{"input.limits.cpu_s": "abc"}) == f"input.limits.cpu_s: got 'abc', {expected}"
    assert complaint(**{"input.limits.cpu_s": "0"}) == f"input.limits.cpu_s: got 0, {expected}"


def test_wrong_codec_names_glob_and_nearest_codec() -> None:
    """The other globs are not mentioned."""
    message = complaint(**{"input.encoding": {"*.txt": "cp866", "old/*": "utf9"}})
    assert message.startswith("input.encoding.old/*: got 'utf9', need a codec of Python such as cp1250; ")
    assert message.endswith("the nearest is utf-8 (command line)")


def test_gate_can_be_set_by_its_dotted_name() -> None:
    """The name of a gate contains a dot."""
    app = load_config(None, environ={}, overrides={"eval.fail_under.overall.f1": "0.8"})
    assert app.eval.fail_under == {"overall.f1": 0.8}

"""Arguments after flags, and flags that a command does not have: the rules hold for every command."""

from __future__ import annotations

import argparse
from itertools import permutations

import pytest

from pipeline.cli.commands import COMMANDS
from pipeline.cli.main import parser


def flags_of(name: str) -> list[str]:
    """Return the long flags of a command."""
    command = argparse.ArgumentParser()
    COMMANDS[name][1]().add_flags(command)
    return [option for action in command._actions for option in action.option_strings if option.startswith("--")]


def actions_of(name: str) -> list[argparse.Action]:
    """Return the flags and arguments of a command."""
    command = argparse.ArgumentParser()
    COMMANDS[name][1]().add_flags(command)
    return command._actions


def arguments_of(name: str) -> list[argparse.Action]:
    """Return the arguments of a command that are no flags."""
    command = argparse.ArgumentParser()
    COMMANDS[name][1]().add_flags(command)
    return [action for action in command._actions if not action.option_strings]


WITH_ARGUMENTS = [name for name in COMMANDS if arguments_of(name)]
FLAGS = (("--log-level", "error"), ("--log-format=json",), ("--config", "c.yaml"))


@pytest.mark.parametrize("name", WITH_ARGUMENTS)
def test_arguments_may_stand_between_and_after_flags(name: str) -> None:
    """Each order of the arguments and flags has the same result."""
    actions = arguments_of(name)
    words = [next(iter(action.choices)) if action.choices else f"word{at}" for at, action in enumerate(actions)]
    if actions[-1].nargs in ("*", "+"):
        words += ["more", "words"]
    flags = [flag for flag in FLAGS if flag[0] != "--config" or "--config" in flags_of(name)]
    expected = vars(parser(name).parse_args([name, *words, *(word for flag in flags for word in flag)]))
    for split in range(len(words) + 1):
        for order in permutations(flags):
            first, *others = order
            line = [name, *first, *words[:split], *(word for flag in others for word in flag), *words[split:]]
            assert vars(parser(name).parse_args(line)) == expected, line


def test_values_of_a_flag_are_no_arguments() -> None:
    """A flag with one value takes one word, one with several takes all, also when it is abbreviated."""
    parsed = parser("show").parse_args(["show", "out", "--html", "page.html", "--conf", "c.yaml", "d1.txt"])
    assert (parsed.output, parsed.document, parsed.html) == ("out", "d1.txt", "page.html")
    parsed = parser("results").parse_args(["results", "out", "--ids", "a", "b"])
    assert (parsed.output, parsed.ids) == ("out", ["a", "b"])


LISTS = [
    (name, action.option_strings[-1])
    for name in COMMANDS
    for action in actions_of(name)
    if action.option_strings and ("," in str(action.metavar) or action.nargs in ("*", "+"))
]


@pytest.mark.parametrize(("name", "flag"), LISTS)
def test_repetition_of_a_list_flag_adds_to_it(name: str, flag: str) -> None:
    """No value is dropped in silence: the last is not the only one."""
    words = [name, *(["word"] if name == "try" else [])]
    dest = flag.removeprefix("--").replace("-", "_")
    twice = getattr(parser(name).parse_args([*words, flag, "first", flag, "second"]), dest)
    assert twice in ("first,second", ["first", "second"])


def test_list_flags_are_found() -> None:
    """The rule covers lists with commas and lists of words."""
    flags = {("schema", "--quote"), ("run", "--only-failed"), ("results", "--fields"), ("errors", "--accept")}
    assert flags | {("results", "--ids"), ("review", "--ids"), ("run", "--ids")} <= set(LISTS)


def complaint(capsys: pytest.CaptureFixture[str], name: str, flag: str) -> str:
    with pytest.raises(SystemExit) as raised:
        parser(name).parse_args([name, *(["word"] if name == "try" else []), flag])
    assert raised.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", list(COMMANDS))
def test_unknown_flag_of_another_command_names_the_command(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A flag typed to the wrong command is a flag of others, or a setting."""
    own = flags_of(name)
    for other in COMMANDS:
        for flag in flags_of(other):
            if any(option.startswith(flag) for option in own) or flag.startswith("--log-"):
                continue
            message = complaint(capsys, name, flag)
            assert f"unknown option: {flag}; " in message
            assert "it is an option of " in message or "it is a setting: --set " in message, message


@pytest.mark.parametrize("name", list(COMMANDS))
def test_mistyped_flag_names_the_nearest(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The first two letters are exchanged."""
    for flag in flags_of(name):
        mistyped = f"--{flag[3]}{flag[2]}{flag[4:]}"
        if any(option.startswith(mistyped) for option in flags_of(name)):
            continue  # an abbreviation of another flag
        assert f"the nearest is {flag}" in complaint(capsys, name, mistyped), mistyped


def test_short_flag_names_the_long_one(capsys: pytest.CaptureFixture[str]) -> None:
    """`-q` is what other programs call `--quiet`."""
    assert "unknown option: -q; options have long names: --quiet" in complaint(capsys, "run", "-q")
    assert "unknown option: -x; options have long names" in complaint(capsys, "run", "-x")

"""Validation of one setting by its annotation and its rule, and the wording of error messages about it.

It knows no file, no environment and no particular setting; it must not do I/O.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal

from pipeline.config.texts import is_secret_name, shorten

LARGEST_INTEGER = 2**53
"""Largest whole number that every JSON reader represents exactly."""


class Unacceptable(ValueError):
    """A value that a setting does not accept; the message describes the accepted values."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Description, range and unit of a setting; `low` is an inclusive lower bound, `above` an exclusive one.

    `secret`: never show the value. `lone`: accept one item in place of a list. `need`: the description of accepted
    values, in place of one derived from type and range. `fits`: an additional test of each text in the value.
    Of a mapping, `member` describes an accepted value of one member, and `member_error` returns the error message about
    a member, which begins with its name.
    """

    doc: str = ""
    low: float | None = None
    above: float | None = None
    high: float | None = None
    unit: str = ""
    secret: bool = False
    lone: bool = False
    need: str = ""
    fits: Callable[[str], bool] | None = None
    member: str = ""
    member_error: Callable[[str, Any], str] | None = None


@lru_cache(maxsize=64)
def hints_of(cls: type) -> Mapping[str, Any]:
    """Return the annotation of each field of a dataclass, in order."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def options(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation itself as the only one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def clean(value: object, hint: Any, *, rule: Rule) -> Any:
    """Return the value converted to the annotated type; raise Unacceptable when it does not fit."""
    for option in options(hint):
        try:
            cleaned = _match(value, option)
        except (TypeError, ValueError, OverflowError, RecursionError):
            continue
        if _is_within(cleaned, rule):
            return cleaned
    if rule.lone and not isinstance(value, (list, tuple)):
        return clean([value], hint, rule=rule)
    raise Unacceptable(need(value, hint, rule=rule))


def _match(value: Any, option: Any) -> Any:
    """Return the value as the option's type; raise TypeError, ValueError or OverflowError when it does not fit."""
    origin = typing.get_origin(option)
    args = typing.get_args(option)
    if option in _SIMPLE:
        return _SIMPLE[option](value)
    if origin is Literal and isinstance(value, str) and value in args:
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_match(item, args[0]) for item in value)
    if origin is not None and isinstance(value, Mapping) and isinstance({}, origin):
        return _mapping(value, args[1])
    if is_dataclass(option) and isinstance(option, type):
        return _record(value, option)
    raise TypeError


def _mapping(value: Mapping[Any, Any], item: Any) -> dict[str, Any]:
    if item is Any:
        json.dumps(value, allow_nan=False)
        return {_text(key): entry for key, entry in value.items()}
    return {_text(key): _match(entry, item) for key, entry in value.items()}


def _record(value: Any, cls: type) -> Any:
    """Return a small record from an instance, the value of its first field, or a mapping of its fields."""
    if isinstance(value, cls):
        return value
    if isinstance(value, str):
        return cls(value)
    if not isinstance(value, Mapping):
        raise TypeError
    return cls(**{key: None if entry is None else _text(entry) for key, entry in value.items()})


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise TypeError
    if abs(value) > LARGEST_INTEGER:
        raise OverflowError
    return int(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _null(value: object) -> None:
    if value is not None:
        raise TypeError


_SIMPLE: Mapping[Any, Callable[[Any], Any]] = {
    str: _text,
    bool: _flag,
    int: _whole_number,
    float: _number,
    type(None): _null,
}


def _is_within(value: Any, rule: Rule) -> bool:
    """Return True when the numbers and texts of the value satisfy the rule."""
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, (int, float)):
        low = rule.low is None or value >= rule.low
        above = rule.above is None or value > rule.above
        return low and above and (rule.high is None or value <= rule.high)
    if rule.fits is None:
        return True
    if isinstance(value, str):
        return rule.fits(value)
    if isinstance(value, Mapping):
        return all(rule.fits(f"{key}: {item}") for key, item in value.items())
    return bool(value) and all(isinstance(item, str) and rule.fits(item) for item in value)


def need(value: object, hint: Any, *, rule: Rule) -> str:
    """Return a description of the accepted values, with the upper bound if the value exceeds it or it is at most 1."""
    if rule.need:
        return rule.need
    is_too_large = rule.high is not None and isinstance(value, (int, float)) and value > rule.high
    is_bounded = rule.high is not None and (is_too_large or rule.high <= 1)
    words = " or ".join(_words(option, rule, is_bounded=is_bounded) for option in options(hint))
    return words + (nearest_hint(value, _choices(hint)) if isinstance(value, str) else "")


def _words(option: Any, rule: Rule, *, is_bounded: bool) -> str:
    origin = typing.get_origin(option)
    if option in (int, float):
        kind = "a whole number" if option is int else "a number"
        return kind + (f" of {rule.unit}" if rule.unit else "") + _bounds(rule, is_bounded=is_bounded)
    if origin is Literal:
        names = [str(name) for name in typing.get_args(option)]
        return names[0] if len(names) == 1 else "one of " + ", ".join(names)
    if origin is tuple:
        return "a list of texts"
    if origin is not None:
        return "a mapping of texts to " + ("texts" if typing.get_args(option)[1] is str else "JSON values")
    return {bool: "true or false", str: "a text", type(None): "null"}.get(option, "a mapping")


def _bounds(rule: Rule, *, is_bounded: bool) -> str:
    low = rule.low if rule.above is None else None
    bounds = ((">", rule.above), (">=", low), ("<=", rule.high if is_bounded else None))
    texts = [f"{sign} {bound_text(bound)}" for sign, bound in bounds if bound is not None]
    return f" {' and '.join(texts)}" if texts else ""


def bound_text(bound: float) -> str:
    """Return a bound as a person writes it: a whole number with all its digits."""
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def _choices(hint: Any) -> list[str]:
    literals = [option for option in options(hint) if typing.get_origin(option) is Literal]
    return [name for option in literals for name in typing.get_args(option)]


def shown_value(value: object, rule: Rule) -> str:
    """Return the value in a form for messages: short, on one line, without secrets and user names."""
    if rule.secret:
        return "a value (hidden, as it may be a secret)"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return "a value too large to show"
    text = re.sub(r"[^\s'\",]+", _without_secrets, text)
    return shorten(text, 80)


def _without_secrets(word: re.Match[str]) -> str:
    """Return a word that may be a URL without its user and its query."""
    _, is_address, remainder = word[0].rpartition("@")
    query = re.search("[?&]", remainder)
    masked = f"{remainder[: query.end()]}***" if query and "=" in remainder[query.end() :] else remainder
    return f"***{masked}" if is_address else masked


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the known name that is most similar to this one, or None."""
    matches = difflib.get_close_matches(name[:200], list(choices), n=1, cutoff=0.5)
    return matches[0] if matches else None


def nearest_hint(name: str, choices: Iterable[str]) -> str:
    """Return the ending of an error message about this name: `; the nearest is …`, or an empty text."""
    near = nearest(name, choices)
    return f"; the nearest is {near}" if near else ""


def others(names: tuple[str, ...], *, first: str) -> tuple[str, ...]:
    """Return provider names in order without duplicates and without the first provider; "" means ollama."""
    providers = dict.fromkeys(name or "ollama" for name in names)
    return tuple(name for name in providers if name != (first or "ollama"))


def unknown_key(key: str, value: object, *, near: str | None, accepted_keys: Iterable[str]) -> str:
    """Return the error message about an unknown key: its value, the nearest key, and the accepted keys.

    A text value is shown only when the nearest key cannot hold a secret.
    """
    is_shown = isinstance(value, str) and _is_plainly(key, near)
    description = shown_value(value, Rule()) if is_shown else described(value)
    hint = f"the nearest is {near}; " if near else ""
    choices = ", ".join(accepted_keys)
    return f"{shown_value(key, Rule())[1:-1]}: unknown key, {hint}got {description}, need one of {choices}"


def described(value: object) -> str:
    """Return a number, or the kind of a value: a text of an unknown key may be a secret."""
    if isinstance(value, (Mapping, list)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    return "a text (hidden, as it may be a secret)" if isinstance(value, str) else shown_value(value, Rule())


def _is_plainly(key: str, near: str | None) -> bool:
    """Return True when an unknown key is clearly a misspelt known key whose value cannot contain a secret."""
    name, nearest_name = (text.rpartition(".")[2] for text in (key, near or ""))
    if nearest(name, [nearest_name]) is None or _MAY_HIDE.search(nearest_name):
        return False
    return not is_secret_name(f"{name} {nearest_name}")


_MAY_HIDE = re.compile("url|uri|proxy|headers|storage|extra_body")

"""Error messages about single members of settings that are mappings, such as `input.limits.cpu_s`.

It must not decide whether a member fits: constraints.py does.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from encodings.aliases import aliases
from typing import Any

from pipeline.config.constraints import Rule, Unacceptable, clean, nearest_hint, need, options, shown_value
from pipeline.config.texts import names_codec


def member_errors(value: object, hint: Any, *, rule: Rule) -> Iterator[tuple[str, str]]:
    """Yield name and error message, which begins with the name, of each member of a mapping that does not fit.

    `hint`: the annotation of the whole setting. None are yielded for a value or a setting that is not a mapping.
    """
    kinds = [typing.get_args(option)[1] for option in options(hint) if typing.get_origin(option) is Mapping]
    if not kinds or not isinstance(value, Mapping):
        return
    for name, member in value.items():
        try:
            clean({name: member}, hint, rule=rule)
        except Unacceptable:
            yield str(name), _message(name, member, kinds[0], rule)


def _message(name: object, member: object, kind: Any, rule: Rule) -> str:
    shown_name = shown_value(str(name), Rule())[1:-1]
    if not isinstance(name, str):
        return f"{shown_name}: got a name that is not a text, need it in quotation marks"
    if rule.member_error is not None:
        return rule.member_error(name, member)
    accepted = rule.member or ("a JSON value" if kind is Any else need(member, kind, rule=Rule()))
    return f"{shown_name}: got {shown_value(member, rule)}, need {accepted}"


def codec_error(glob: str, name: object) -> str:
    """Return the error message about a value of `input.encoding` that is not the name of a codec."""
    codecs = (codec.replace("_", "-") for codec in sorted(set(aliases.values())) if names_codec(codec))
    hint = nearest_hint(name, codecs) if isinstance(name, str) else ""
    return f"{glob}: got {shown_value(name, Rule())}, need a codec of Python such as cp1250{hint}"

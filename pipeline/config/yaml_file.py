"""Safe reading and writing of YAML; every error names its file and line.

Scalars follow YAML 1.2: `off`, `no`, `10:30` and `2024-01-01` are texts. It must not know any setting.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 100_000
"""A file of aliases to aliases can expand to more nodes than fit in memory."""

MAX_BRACKETS = 100
"""PyYAML checks every open bracket for each token: a few thousand of them would take minutes."""

# exceptions besides YAMLError that PyYAML raises for tags and numbers that do not fit their text
_FAULTS = (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """Open one more bracket; RecursionError when there are too many."""
        if self.flow_level >= MAX_BRACKETS:
            raise RecursionError("brackets")
        super().fetch_flow_collection_start(token)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("merge", r"<<", "<"),
):
    _letters: list[str] = [*_first, *([""] if _tag == "null" else [])]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), _letters)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Return the file's mapping ({} for an empty file); ConfigError names the file, and the line if known."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise ConfigError(f"{path}: cannot be read ({reason}), need a YAML file") from cause
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes, need a smaller YAML file")
    value, line = _read(data, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}, line {line}: got {type(value).__name__}, need a mapping (`key: value`)")
    return value


def dump_yaml(tree: dict[str, Any]) -> str:
    """Return the tree as YAML, keys in their order, small collections on one line."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def scalar(text: str) -> Any:
    """Return the value of the text as YAML; the text itself when it is not YAML."""
    try:
        return _read(text.encode("utf-8", "replace"), "text")[0]
    except ConfigError:
        return text


def _read(data: bytes, place: str) -> tuple[Any, int]:
    """Return the value and the line it begins on."""
    try:
        loader = _Loader(data)
        node = loader.get_single_node()
        if node is None:
            return None, 1
        _inspect(node, place, sizes={})
        return loader.construct_document(node), node.start_mark.line + 1
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{place}{where}: not YAML: {cause.problem or cause.context}") from cause
    except yaml.YAMLError as cause:
        raise ConfigError(f"{place}: not YAML: {str(cause).splitlines()[0]}") from cause
    except RecursionError as cause:
        raise ConfigError(f"{place}: nested too deeply, need a flatter file") from cause
    except _FAULTS as cause:
        raise ConfigError(f"{place}: not YAML: a value does not fit its tag, or is too large") from cause


def _inspect(node: yaml.Node, place: str, *, sizes: dict[int, int]) -> int:
    """Return the number of nodes with aliases expanded; ConfigError for duplicate keys and cyclic aliases."""
    where = f"{place}, line {node.start_mark.line + 1}"
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ConfigError(f"{where}: an alias that contains itself, need a value that ends")
        return sizes[id(node)]
    sizes[id(node)] = 0
    children = list(node.value) if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        _inspect_keys(node, place)
        children = [part for pair in node.value for part in pair]
    size = 1 + sum(_inspect(child, place, sizes=sizes) for child in children)
    if size > MAX_NODES:
        raise ConfigError(f"{where}: more than {MAX_NODES} values, need fewer aliases")
    sizes[id(node)] = size
    return size


def _inspect_keys(node: yaml.MappingNode, place: str) -> None:
    lines_by_key: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.tag != "tag:yaml.org,2002:str":
            raise ConfigError(f"{place}, line {line}: a key that is not a text, need it in quotes")
        if key.value in lines_by_key:
            raise ConfigError(f"{place}, line {line}: {key.value!r} is on line {lines_by_key[key.value]} already")
        lines_by_key[key.value] = line

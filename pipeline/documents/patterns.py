"""Path patterns: `include`, `exclude` and globs.

It must not access a filesystem: a pattern is matched against a relative path with `/`.

`*` and `?` match within a name, `**` matches any number of folders, `[a-z]` a set, and a backslash escapes the next
character. A pattern without `/` (except at its end) matches at any depth, one with `/` from the root; a `/` at the end
matches everything below. Wildcards of `include` and of globs do not match names that begin with `.` or `_`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.linear_regex import LinearRegex
from pipeline.stores import HIDDEN

MAX_CHARS = 4096
"""The maximum length of a path, and so of a pattern."""

_VISIBLE = "(?![._])"
_Matcher = re.Pattern[str] | LinearRegex


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern: `matches` matches a path, each of `steps` one name (None for `**`)."""

    matches: _Matcher
    steps: tuple[_Matcher | None, ...]
    names_hidden: bool

    def may_hold_below(self, folder: Sequence[str]) -> bool:
        """Return False when no path below this folder, given by its names, can match."""
        for depth, name in enumerate(folder):
            if depth >= len(self.steps):
                return False
            step = self.steps[depth]
            if step is None:
                return self.names_hidden or not any(part.startswith(HIDDEN) for part in folder[depth:])
            if not step.fullmatch(name):
                return False
        return len(folder) < len(self.steps)


@dataclass(frozen=True, slots=True)
class PathFilter:
    """The choice of files in a tree: each of `any_of` has a matching pattern, `none_of` has none.

    `is_glob`: the input is a glob, so other files do not belong to the input.
    """

    any_of: tuple[tuple[Pattern, ...], ...]
    none_of: tuple[Pattern, ...]
    not_into: tuple[Pattern, ...]
    is_glob: bool = False

    def wants(self, relative: str) -> bool:
        """Return whether the file is to be read."""
        # called for each file: a generator would take as much time as the matching
        for patterns in self.any_of:
            if not _matches(patterns, relative):
                return False
        return not _matches(self.none_of, relative)

    def excludes(self, relative: str) -> bool:
        """Return whether a pattern excludes the file."""
        return _matches(self.none_of, relative)

    def passed_over(self, relative: str, *, is_member: bool = False) -> str | None:
        """Return the kind of a file that is not wanted, for the counts; None for one outside of a glob.

        `is_member`: it is a member of a wanted archive.
        """
        if self.is_glob and not is_member:
            return None
        names_hidden = next((name[0] for name in relative.split("/") if name.startswith(HIDDEN)), None)
        if names_hidden is not None and not self.excludes(relative):
            return "hidden" if names_hidden == "." else "underscore"
        return "excluded" if self.excludes(relative) or _matches(self.not_into, relative) else "not included"

    def enters(self, relative: str) -> bool:
        """Return False when no file below this folder can be wanted."""
        names = relative.split("/")
        return all(any(p.may_hold_below(names) for p in patterns) for patterns in self.any_of) and not (
            _matches(self.none_of, relative) or _matches(self.not_into, relative)
        )


def select(include: Iterable[str], exclude: Iterable[str], *, glob: str | None = None) -> PathFilter:
    """Return the filter of the settings and of a glob's variable part, which also matches everything below."""
    globs = [] if glob is None else [_compile(_split("/" + text), text) for text in (glob, f"{glob}/**")]
    # a glob that names hidden files decides itself which of them it matches
    named = any(pattern.names_hidden for pattern in globs)
    any_of = [
        tuple(_compile(_split(text), text, names_hidden=named) for text in include),
        *([tuple(globs)] if globs else []),
    ]
    parts = [(_split(text), text) for text in exclude]
    return PathFilter(
        tuple(any_of),
        tuple(_compile(names, text, exclude=True) for names, text in parts),
        tuple(_compile(names[:-1], text, exclude=True) for names, text in parts if _is_below(names)),
        is_glob=glob is not None,
    )


def _matches(patterns: Iterable[Pattern], relative: str) -> bool:
    for pattern in patterns:  # noqa: SIM110 - as above
        if pattern.matches.fullmatch(relative):
            return True
    return False


def _is_below(names: list[str]) -> bool:
    return len(names) > 1 and names[-1] == "**"


def _split(text: str) -> list[str]:
    """Split a pattern into names; a pattern that matches at any depth begins with `**`."""
    names = [name for name in text.split("/") if name not in ("", ".")]
    if text.endswith("/"):
        names.append("**")
    if "/" not in text[:-1]:
        names.insert(0, "**")
    return [name for at, name in enumerate(names) if name != "**" or names[at - 1 : at] != ["**"]]


def _compile(names: list[str], text: str, *, exclude: bool = False, names_hidden: bool = False) -> Pattern:
    """Compile a pattern; an excluding one also matches hidden names, and everything below a match."""
    if len(text) > MAX_CHARS:
        raise ConfigError(f"input: the pattern {text[:40]!r}… has {len(text)} characters, need at most {MAX_CHARS}")
    guard = "" if exclude or names_hidden else _VISIBLE
    try:
        steps = tuple(None if name == "**" else _matcher(_name(name, guard), [name]) for name in names)
        path_matcher = _matcher(_path(names, guard) + ("(?:/.*)?" if exclude else ""), names)
    except re.error as cause:
        raise ConfigError(f"input: the pattern {text!r} cannot be used: {cause.msg}") from cause
    return Pattern(path_matcher, steps, names_hidden or any(name.startswith(HIDDEN) for name in names))


def _matcher(pattern: str, names: list[str]) -> _Matcher:
    """Return a matcher: `re` if it cannot backtrack (one `**`, one `*` in each name), else a linear-time one."""
    stars = [len(_STARS.findall(name)) for name in names if name != "**"]
    quick = names.count("**") <= 1 and max(stars, default=0) <= 1
    return re.compile(pattern, re.DOTALL) if quick else LinearRegex(pattern, re.DOTALL)


def _path(names: list[str], guard: str) -> str:
    *above, last = names or ["**"]
    any_name = f"{guard}[^/]+"
    folders = "".join(f"(?:{any_name}/)*" if name == "**" else _name(name, guard) + "/" for name in above)
    return folders + (f"(?:{any_name}/)*{any_name}" if last == "**" else _name(last, guard))


_STARS = re.compile(r"\*+")
_PIECE = re.compile(r"\*+|\?|\[(?P<not>[!^]?)(?P<set>\]?[^\]]*)\]|\\(?P<plain>.)|.", re.DOTALL)


def _name(name: str, guard: str) -> str:
    pieces = "".join(_piece(match) for match in _PIECE.finditer(name))
    return guard + pieces if name[0] in "*?[" else pieces


def _piece(match: re.Match[str]) -> str:
    text = match.group()
    if text.startswith("*"):
        return "[^/]*"
    if text == "?":
        return "[^/]"
    if match["set"]:
        characters = re.sub(r"([\\\[\]^&~|])", r"\\\1", match["set"])
        return f"[^/{characters}]" if match["not"] else f"[{characters}]"
    return re.escape(match["plain"] or text)

"""Every regular expression of the package is linear: found by reading the source, attacked in a process of its own.

A pattern is attacked with what it repeats: for each of its repeats, a text that leads there, goes round a great many
times, and then does not fit. A quadratic pattern needs seconds for 64 kB of that, a linear one some milliseconds.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipeline.linear_regex.program import LEAVES, _leaf, parse

PACKAGE = Path(__file__).resolve().parent.parent / "pipeline"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
METHODS = {"search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}

DYNAMIC = {
    "linear_regex/__init__.py": "what it leaves to the standard library is plain: test_linear_regex.py",
    "linear_regex/automaton.py": "patterns of one character or position",
    "documents/patterns.py": "globs with one star: test_documents.py",
    "documents/special_tokens.py": "a choice of the literal names that an agent's prompt uses",
    "long/folding.py": "classes of the characters of one text: test_quotes.py",
    "report/marks.py": "one class of characters",
    "config/yaml_file.py": "the scalars of a configuration file, which its author writes",
    "config/secret_forms.py": "the secrets of the configuration: test_redaction.py",
}
"""Modules that put patterns together when they run, and why no text makes them slow."""

BOUNDED = {
    "llm/error_bodies.py: _HEADING": 20_000,
    "llm/error_bodies.py: _MARKUP": 20_000,
    "documents/patterns.py: _PIECE": 4096,
    "stores/clouds.py: error_text": 2000,
    "cli/usage.py: shortened": 4000,
    **{f"documents/office/number_format.py: {name}": 255 for name in ("_TOKEN", "_SECTIONS", "_NO_DATE")},
}
"""Patterns whose text is cut before they see it, with the most characters that they get."""

TINY, SMALL, LARGE, LIMIT_S = 1 << 12, 1 << 16, 1 << 20, 0.5
USUAL = [
    " ",
    "\n",
    " \n",
    "a",
    "0",
    "<",
    "<a",
    "\\",
    '"',
    '\\"',
    "[",
    "{",
    ",",
    ", ",
    "?",
    "/",
    "://",
    "a=",
    "`",
    ".",
    "-",
]


def found_in(module: str) -> Iterator[tuple[str, str | bytes, int, set[str]]]:
    """Return name, pattern, flags and used methods of each pattern in a module; ValueError for a dynamic one."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    loaded = importlib.import_module(
        "pipeline." + module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    )
    compiled: set[str | bytes] = set()
    for name, value in vars(loaded).items():
        for number, regex in enumerate(patterns_in(value)):
            compiled.add(regex.pattern)
            yield f"{module}: {name}[{number}]", regex.pattern, regex.flags, used(name)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if getattr(node.func.value, "id", "") != "re" or node.func.attr not in METHODS | {"compile"}:
            continue
        try:
            pattern = eval(compile(ast.Expression(node.args[0]), module, "eval"), vars(loaded))
        except NameError:
            at_top = not any(
                isinstance(function, ast.FunctionDef) and node in ast.walk(function) for function in ast.walk(tree)
            )
            if module not in DYNAMIC and not at_top and not in_function_of_module_level(tree, node):
                raise ValueError(f"{module} line {node.lineno}: a pattern is put together at run time") from None
            continue
        if isinstance(pattern, (str, bytes)) and not (node.func.attr == "compile" and pattern in compiled):
            flags = sum(getattr(re, name).value for name in re.findall(r"re\.([A-Z]+)", ast.unparse(node)))
            methods = used("") if node.func.attr == "compile" else {node.func.attr}
            yield f"{module}: {place_of(tree, node)}", pattern, flags, methods


def place_of(tree: ast.Module, call: ast.Call) -> str:
    """Return the function that contains a call, or its line."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return next((function.name for function in functions if call in list(ast.walk(function))), f"line {call.lineno}")


def in_function_of_module_level(tree: ast.Module, call: ast.Call) -> bool:
    """Return whether the module calls the function on import, so that its patterns are found as values."""
    made = {
        node.func.id
        for statement in tree.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign))
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return any(
        isinstance(node, ast.FunctionDef) and node.name in made and call in list(ast.walk(node)) for node in tree.body
    )


def patterns_in(value: object, depth: int = 0) -> Iterator[Any]:
    """Yield the compiled patterns in a value of a module: itself, its items, its fields."""
    if isinstance(value, re.Pattern):
        yield value
    elif depth < 4 and isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from patterns_in(item, depth + 1)
    elif depth < 4 and isinstance(value, dict):
        yield from patterns_in(list(value.values()), depth + 1)
    elif depth < 4 and hasattr(type(value), "__dataclass_fields__"):
        yield from patterns_in([getattr(value, name) for name in type(value).__dataclass_fields__], depth + 1)


SOURCES = "\n".join((PACKAGE / module).read_text(encoding="utf-8") for module in MODULES)


def used(name: str) -> set[str]:
    """Return the methods called on a name anywhere; all scanning methods if there are none."""
    matches = set(re.findall(rf"\b{re.escape(name)}\.({'|'.join(METHODS)})\b", SOURCES)) if name else set()
    return matches or {"search"}


def attacks(pattern: str) -> list[tuple[str, str, str]]:
    """Yield beginning, repeated part and end of each text that attacks a pattern."""
    tree = parse(pattern)
    pumps = list(dict.fromkeys(pumps_of(tree, "")))
    texts = [(before, pump, end) for before, pump in pumps for end in ("\0", "\0" + before)]
    texts += [("", before + pump, "\0") for before, pump in pumps]
    texts += [("", sample(tree)[:-1], "\0"), *(("", pump, "\0") for pump in USUAL)]
    return [(before, pump or "x", end) for before, pump, end in dict.fromkeys(texts)]


def pumps_of(tree: Any, before: str) -> Iterator[tuple[str, str]]:
    """Yield for each repeat the text that leads to it, and the text of one iteration."""
    for op, argument in tree:
        name = str(op)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            yield before, sample(argument[2]) or "x"
            yield from pumps_of(argument[2], before)
        elif name == "SUBPATTERN":
            yield from pumps_of(argument[3], before)
        elif name == "BRANCH":
            for branch in argument[1]:
                yield from pumps_of(branch, before)
        elif name in ("ASSERT", "ASSERT_NOT"):
            yield from pumps_of(argument[1], before)
        before += sample([(op, argument)])


def sample(tree: Any) -> str:
    """Return a short text that the tree matches."""
    text = ""
    for op, argument in tree:
        name = str(op)
        if name == "LITERAL":
            text += chr(argument)
        elif name in LEAVES:
            fits = re.compile(_leaf(name, argument), re.DOTALL).fullmatch
            text += next(
                (char for char in map(chr, [97, 32, 48, *range(33, 127), 10, 9, *range(0x110000)]) if fits(char)), ""
            )
        elif name == "SUBPATTERN":
            text += sample(argument[3])
        elif name == "BRANCH":
            text += sample(argument[1][0])
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            text += sample(argument[2]) * max(1, argument[0])
    return text


def run(regex: Any, method: str, text: str | bytes) -> float:
    """Return the CPU seconds of one call."""
    started = time.process_time()
    call = getattr(regex, method)
    if method in ("sub", "subn"):
        call(lambda match: match.group(), text)
    elif method == "finditer":
        list(call(text))
    else:
        call(text)
    return time.process_time() - started


def child() -> None:
    """Attack the patterns from standard input, and print which one is next before it does."""
    resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
    for where, pattern, is_bytes, flags, methods, bound in json.load(sys.stdin):
        print(where, flush=True)
        regex = re.compile(pattern.encode("latin-1") if is_bytes else pattern, flags)
        slowest: list[tuple[float, str, tuple[str, str, str]]] = []
        for size, method, attack in product((TINY, SMALL), methods, attacks(pattern)):
            seconds = run(regex, method, filled(attack, min(bound, size), is_bytes))
            seconds *= SMALL / size if bound >= SMALL else 1
            slowest.append((seconds, method, attack))
            if seconds >= LIMIT_S:
                break
        slowest.sort(reverse=True)
        if slowest[0][0] < LIMIT_S and bound >= LARGE:
            slowest[0] = max(
                (run(regex, how, filled(attack, LARGE, is_bytes)) / 8, how, attack) for _, how, attack in slowest[:2]
            )
        print(json.dumps(slowest[0]), flush=True)


def filled(attack: tuple[str, str, str], size: int, is_bytes: bool) -> str | bytes:
    before, pump, end = attack
    text = before + pump * (size // len(pump)) + end
    return text.encode("latin-1", "replace") if is_bytes else text


@pytest.mark.slow
def test_every_pattern_is_linear() -> None:
    """No attack text of 64 kB or 1 MB, made of the pattern's repeats, takes long."""
    jobs = {}
    places = set()
    for module in MODULES:
        if module == "__main__.py":
            continue
        for where, pattern, flags, methods in found_in(module):
            text = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
            places.add(where.split("[")[0])
            bound = BOUNDED.get(where.split("[")[0], LARGE)
            job = (where, text, isinstance(pattern, bytes), flags & ~re.UNICODE.value, sorted(methods), bound)
            jobs.setdefault(json.dumps(job[1:]), job)
    assert len(jobs) > 40
    assert BOUNDED.keys() <= places, "a pattern was renamed"
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(list(jobs.values())), capture_output=True, text=True, check=False
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (lines[-1:], done.stderr[-2000:])
    slow = [
        (where, line) for where, line in zip(lines[::2], lines[1::2], strict=True) if json.loads(line)[0] >= LIMIT_S
    ]
    assert slow == []


@pytest.mark.parametrize("pattern", [r"\s+$", "(a+)+$", "a*b", r"<[^>]*>", "https?://[^?]*[?]", r"(\w+\s?)*!"])
def test_attack_detects_quadratic_patterns(pattern: str) -> None:
    """Known slow patterns are slow under it; 4 kB are enough to see the square."""
    small, large = (
        max(run(re.compile(pattern), "search", filled(attack, size, False)) for attack in attacks(pattern))
        for size in ((10, 22) if "+)+" in pattern or "?)*" in pattern else (1 << 11, 1 << 13))
    )
    assert large > 6 * small


if __name__ == "__main__":
    child()

"""The layers of the program: imports go one way, each library has one owner, threads start in one place."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pipeline"

LEVELS = (
    "errors evidence record_lines records shards window_answers linear_regex quick_init",
    "config",
    "stores answers long logs values child_python",
    "terminal",
    "documents llm output",
    "agents report truth",
    "run",
    "engines review api",
    "cli",
    "__main__",
)
"""Folders and root modules by level, lowest first; a level may import its own parts (without cycles) and lower ones."""

LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts.split()}

HOMES = {
    "requests": {"llm/transport/http.py", "llm/transport/call_errors.py", "llm/transport/proxies.py"},
    "urllib3": {
        "llm/transport/http.py",
        "llm/transport/call_errors.py",
        "llm/transport/connection.py",
        "llm/transport/pool.py",
    },
    "jsonschema": {"answers/schema.py", "answers/keywords.py"},
    "referencing": {"answers/schema.py"},
    "yaml": {"config/yaml_file.py"},
    "argcomplete": {"cli/completion.py"},
    "jinja2": {"report/page_template.py"},
    "rich": {"run/display/progress.py"},
    "chardet": {"documents/encodings/guessing.py"},
    "trafilatura": {"documents/html/page.py"},
    "compressed_rtf": {"documents/mail/msg.py"},
    "brotli": {"documents/archives/content_encoding.py"},
    "warcio": {"documents/archives/warc.py"},
    "oxmsg": {"documents/mail/msg.py"},
    "pypdfium2": {"documents/pdf/text_layer.py", "documents/pdf/annotations.py"},
    "zstandard": {"documents/archives/zstd.py"},
    "json_repair": {"answers/json_parsing.py"},
    "prometheus_client": {"run/display/metric_families.py", "run/display/metrics.py"},
    "obstore": {"stores/remote.py", "stores/clouds.py", "stores/foreign.py"},
    "sqlite3": {"output/latest_pairs.py", "output/index_database.py", "run/chunks/table.py"},
    "pyarrow": {"documents/tables/parquet.py", "output/parquet.py", "engines/spark_frame.py"},
    "pyspark": {"engines/spark.py", "engines/spark_frame.py"},
    "ray": {"engines/ray.py"},
    "fcntl": {"documents/helpers/process.py", "output/lock.py", "truth/gold_file.py", "engines/end_with_parent.py"},
}
"""Library → the modules that may import it; a third-party library that is not named here may be imported nowhere."""

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def part_of(name: str) -> str:
    """Return the folder or root module of a file or a dotted name below `pipeline`."""
    return name.removesuffix(".py").replace("/", ".").split(".")[0]


def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


@cache
def imported(module: str, *, types: bool = True) -> tuple[str, ...]:
    """Return the dotted names that a module imports, also inside of functions; `from a import b` gives a.b.

    Not `types`: without what only the type checker imports.
    """
    return tuple(_imported(tree_of(module), module, types=types))


def _imported(tree: ast.Module, module: str, *, types: bool) -> Iterator[str]:
    if not types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(module: str, *, types: bool = True) -> Iterator[str]:
    """Return the parts of the package that a module imports, without its own."""
    names = (name.removeprefix("pipeline.") for name in imported(module, types=types) if name.startswith("pipeline."))
    yield from (part_of(name) for name in names if part_of(name) != part_of(module) and part_of(name) != "__version__")


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__.py"])
def test_imports_go_one_way(module: str) -> None:
    """A part imports parts of its own level and lower ones; each part has a level."""
    level = LEVEL[part_of(module)]
    higher = sorted(name for name in set(own(module)) if LEVEL[name] > level)
    assert higher == [], f"{module} (level {level}) imports {higher}"


def test_parts_import_each_other_without_cycles() -> None:
    """Parts of one level may import each other; imports for annotations do not count."""
    edges: dict[str, set[str]] = {}
    for module in MODULES:
        edges.setdefault(part_of(module), set()).update(own(module, types=False))
    while leaves := {part for part, others in edges.items() if not others & edges.keys()}:
        edges = {part: others for part, others in edges.items() if part not in leaves}
    assert edges == {}


def test_each_library_is_used_by_one_module() -> None:
    """It can be replaced there, and its errors are translated there."""
    collected: dict[str, set[str]] = {}
    for module in MODULES:
        for name in imported(module):
            library = name.split(".")[0]
            if library in HOMES or library not in sys.stdlib_module_names | {"pipeline", "pipeline_command"}:
                collected.setdefault(library, set()).add(module)
    assert {library: homes for library, homes in collected.items() if not homes <= HOMES.get(library, set())} == {}


def test_threads_start_in_the_runner_alone() -> None:
    """No other module makes a thread, a timer or an executor; processes start as helpers or as worker processes.

    The server of a review has a thread for each connection, which only reads and calls one locked function.
    """
    starters = {"Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "Process", "start_new_thread"}
    starters |= {"ThreadingHTTPServer", "ReviewServer"}
    starters |= {"Popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "check_output", "execv"}
    collected = {
        module
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in starters
    }
    assert collected == {"run/runner.py", "run/workers/link.py", "documents/helpers/pool.py", "cli/review.py"} | {
        "engines/chunk_process.py",
        "engines/spark_frame.py",  # the requests of a task of a DataFrame, outside of any run
    }


def test_parsed_command_line_stays_in_cli() -> None:
    """Below `cli` a typed object has the flags."""
    assert {module for module in MODULES if "argparse" in set(imported(module))} <= {
        module for module in MODULES if module.startswith("cli/")
    }


def test_only_process_catches_everything() -> None:
    """A broad `except` elsewhere would hide bugs; cli's own turns them into exit code 70, metrics log theirs."""
    collected = {
        module
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or getattr(node.type, "id", "") == "Exception")
    }
    assert collected == {
        "run/document/process.py",
        "run/display/metrics.py",
        "cli/main.py",
        "cli/schema.py",  # the module that a user names in --from-pydantic
        "documents/helpers/process.py",
    }


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_stay_small(module: str) -> None:
    """No module exceeds 300 lines, no function 45."""
    text = (PACKAGE / module).read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.end_lineno and node.end_lineno - node.lineno >= 45
    }
    assert long == {}

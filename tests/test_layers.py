"""Who may import whom, and where each foreign package has its home."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "arta_mcp"

MAY_IMPORT = {
    # small tools
    "redaction": "",
    "matching": "",
    "files": "",
    "errors": "redaction",
    "background": "errors",
    "bounded_http": "",
    "untrusted_json": "errors redaction",
    "styles": "errors matching redaction",
    # the remote side, and what outlives a process
    "arta": "background errors redaction styles untrusted_json",
    "config": "arta errors redaction",
    "state": "arta background errors files redaction untrusted_json",
    # the embedded service and what draws for it
    "engines": "config errors redaction styles untrusted_json",
    "local": "arta bounded_http engines errors files redaction styles untrusted_json",
    # the deep module, its two faces, and who joins them; `cli` may import all
    "generations": "arta background errors matching redaction state styles untrusted_json",
    "server": "arta bounded_http errors generations matching redaction styles untrusted_json",
    "app": "arta background config engines errors files generations local redaction state",
    "quick_replies": "files",
}
"""room -> the rooms that it may import at most; nothing imports `cli`"""

HOMES = {
    "PIL": "cli engines generations server",
    "argparse": "cli",
    "asyncio": "bounded_http local server",
    "diffusers": "engines",
    "filelock": "local state",
    "httpx": "arta",
    "huggingface_hub": "engines",
    "httpcore": "arta",
    "h2": "arta",
    "jwt": "local server",
    "mcp": "server",
    "platformdirs": "app",
    "pydantic": "arta generations server",
    "redis": "state",
    "shtab": "cli",
    "socket": "arta cli local server",
    "sqlite3": "state",
    "starlette": "local server",
    "torch": "engines",
    "tqdm": "cli",
    "transformers": "engines",
    "uvicorn": "bounded_http local server",
}
"""foreign package, or one of Python's that reaches out -> the rooms that may know it"""

NO_IO = {
    *("anyio", "asyncio", "httpx", "os", "shutil", "socket"),
    *("sqlite3", "subprocess", "tempfile", "time"),
}
"""what a module that says it does no I/O does not import"""

FORBIDDEN_NAMES = ("utils", "util", "helpers", "models", "constants", "managers", "common", "misc")


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name below `arta_mcp` -> what stands in the module; the package itself left out."""
    found: dict[str, ast.Module] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")
        if text := path.read_text(encoding="utf-8"):
            found[name.removesuffix(".__init__")] = ast.parse(text)
    del found["__init__"]
    return found


def room(module: str) -> str:
    """The row of a module: a package is one room."""
    return module.partition(".")[0]


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in the tree, with its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports say whole names"
            assert node.module is not None
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            if node.module == "arta_mcp":
                yield from names
            else:
                yield from (name if is_module(name) else node.module for name in names)


def is_module(name: str) -> bool:
    path = SOURCE.parent / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def own(tree: ast.AST) -> set[str]:
    """The rooms of ours that are imported; `__version__` is the package's own word."""
    names = {
        name.removeprefix("arta_mcp.") for name in imported(tree) if name.startswith("arta_mcp.")
    }
    return {room(name) for name in names - {"__version__"}}


def foreign(tree: ast.AST) -> set[str]:
    packages = {name.partition(".")[0] for name in imported(tree)}
    return packages - {"arta_mcp", "__future__"}


def at_run_time(tree: ast.Module) -> ast.Module:
    """The module less what is there for the type checker only."""
    checking = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    skipped = {id(child) for node in checking for child in ast.walk(node)}
    kept = [node for node in ast.walk(tree) if id(node) not in skipped]
    imports = [node for node in kept if isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.Module(body=[*imports], type_ignores=[])


@cache
def rooms() -> dict[str, set[str]]:
    """Room -> the rooms that any of its modules imports."""
    found: dict[str, set[str]] = {}
    for name, tree in modules().items():
        found.setdefault(room(name), set()).update(own(tree) - {room(name)})
    return found


# Who may import whom


def test_every_room_has_a_row_and_every_row_a_room() -> None:
    assert sorted(rooms()) == sorted({*MAY_IMPORT, "cli", "__main__"})


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_at_most_the_rooms_of_its_row(name: str) -> None:
    assert sorted(rooms()[name] - set(MAY_IMPORT[name].split())) == []


def test_no_import_leads_back_to_where_it_began() -> None:
    """A `CycleError` here names the modules; imports inside functions count, no room is excused."""
    graph = {name: own_modules(at_run_time(tree)) - {name} for name, tree in modules().items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules())


def own_modules(tree: ast.AST) -> set[str]:
    names = {name.removeprefix("arta_mcp.") for name in imported(tree)}
    return names & set(modules())


def test_the_embedded_service_knows_the_wire_and_not_our_client() -> None:
    """It would agree with the client's bugs."""
    shared = {"arta.protocol", "arta.refusals", "arta.url_guard"}
    for name, tree in modules().items():
        if room(name) == "local":
            used = {other for other in own_modules(tree) if room(other) == "arta"}
            assert used <= shared, name


# Where foreign packages live


@pytest.mark.parametrize("package", HOMES)
def test_a_foreign_package_is_known_in_its_homes_only(package: str) -> None:
    users = {room(name) for name, tree in modules().items() if package in foreign(tree)}
    assert sorted(users - set(HOMES[package].split())) == []


def test_what_draws_with_torch_is_the_process_of_its_own() -> None:
    extra = {"torch", "diffusers", "transformers", "huggingface_hub"}
    users = {name for name, tree in modules().items() if extra & foreign(tree)}
    assert users == {"engines.worker"}
    # Its parent imports it, for the words that the two exchange.
    body = modules()["engines.worker"].body
    at_once = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not extra & foreign(ast.Module([*at_once], type_ignores=[]))


def test_every_package_that_is_not_pythons_has_a_home() -> None:
    used = {package for tree in modules().values() for package in foreign(tree)}
    assert used - set(sys.stdlib_module_names) - {"anyio"} <= set(HOMES)


def test_quick_replies_need_nothing_but_python() -> None:
    assert foreign(modules()["quick_replies"]) <= set(sys.stdlib_module_names)


def silent() -> list[str]:
    return [
        name
        for name, tree in modules().items()
        if "No I/O happens here" in " ".join((ast.get_docstring(tree) or "").split())
    ]


def test_the_words_are_without_io() -> None:
    quiet = {"errors", "untrusted_json", "arta.refusals", "arta.protocol", "matching", "styles"}
    assert {*quiet, "config"} <= set(silent())
    for name in silent():
        tree = modules()[name]
        assert sorted(foreign(tree) & NO_IO) == [], name
        assert [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)] == []
        assert "open" not in called(tree), name


# Words that occur in one place


def called(tree: ast.AST) -> set[str]:
    """The plain names that are called."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {call.id for call in calls if isinstance(call, ast.Name)}


def attributes(tree: ast.AST, owner: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
    }


def test_the_environment_is_read_in_cli_alone() -> None:
    words = {"environ", "environb", "getenv", "putenv"}
    readers = [name for name, tree in modules().items() if attributes(tree, "os") & words]
    assert readers == ["cli.entry"]
    by_name = [
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        if {alias.name for alias in node.names} & words
    ]
    assert by_name == []


def test_nobody_prints_but_cli() -> None:
    assert [name for name, tree in modules().items() if "print" in called(tree)] == ["cli.console"]


def test_nothing_is_mocked() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        names = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
        assert not [name for name in names if "mock" in name], path.name


# How files look


def test_every_module_says_what_it_knows() -> None:
    assert [name for name, tree in modules().items() if not ast.get_docstring(tree)] == []


def test_no_module_is_a_drawer_for_everything() -> None:
    assert [name for name in modules() if name.rpartition(".")[2] in FORBIDDEN_NAMES] == []


EXCEPTION = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore|pragma|fmt:|ruff:)")
WITH_REASON = re.compile(r"#\s*(noqa:|type: ignore|pyright: ignore\[|pragma: )[^#]*?(#|--) ?\S.*\w")


def comments(path: Path) -> Iterator[tuple[int, str]]:
    source = io.StringIO(path.read_text(encoding="utf-8"))
    for token in tokenize.generate_tokens(source.readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_every_exception_to_a_rule_has_its_reason_on_the_same_line() -> None:
    folders = ("src", "tests", "benchmarks", "tools")
    bare = [
        f"{path.relative_to(ROOT)}:{line}: {comment}"
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, comment in comments(path)
        if EXCEPTION.search(comment) and not WITH_REASON.search(comment)
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("comment", "is_enough"),
    [
        ("# noqa", False),
        ("# noqa: S608", False),
        ("# noqa: S608  # constants only", True),
        ("# type: ignore", False),
        ("# type: ignore[override]", False),
        ("# type: ignore[override]  # as uvicorn's", True),
        ("# pyright: ignore  # whatever", False),
        ("# pyright: ignore[reportPrivateUsage] -- pytest's own", True),
        ("# pragma: no cover", False),
    ],
)
def test_what_counts_as_a_reason(comment: str, is_enough: bool) -> None:
    assert EXCEPTION.search(comment)
    assert bool(WITH_REASON.search(comment)) is is_enough

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
MOST_LINES = 450

COMMAND_LINE = {
    *("__main__", "account", "batch", "cli", "commands", "doctor", "embedded", "install"),
}
"""the command line may import everything, and nothing else may import it"""

MAY_IMPORT = {
    # the words: no I/O, and nothing below them
    "errors": "",
    "wire": "errors",
    "refusals": "errors wire",
    "protocol": "errors refusals wire",
    "near": "",
    "styles": "errors near",
    "pacing": "",
    "config": "errors",
    "generation": "errors near protocol styles wire",
    # the remote side
    "errands": "",
    "transport": "errors protocol",
    "state": "errors protocol state.local",
    "state.local": "errors protocol state wire",
    "auth": "errands errors protocol state transport",
    "client": "auth errands errors protocol styles transport",
    "saving": "client",
    "known": "client errands errors state styles",
    # a generation from order to picture
    "watch": "client errors pacing protocol state",
    "standing": "errors generation pacing protocol state styles",
    "ordering": "client errands errors generation protocol state styles watch",
    "generations": """client errands errors generation known ordering pacing protocol saving
        standing state styles watch""",
    "assemble": """auth client config errands errors generations local pacing protocol state
        transport""",
    # what MCP shows
    "content": "errors generation styles",
    "pictures": "errors",
    "resources": "content errors generations near pictures protocol",
    "mending": "",
    "server": "content errors generation generations mending pictures protocol resources styles",
    "frontdesk": "",
    # what a terminal shows
    "terminal": "errors generation",
    "thumbnails": "",
    # the embedded service: never client or auth, it would agree with their bugs
    "local": "errors protocol styles wire",
}
"""room -> the rooms that it may import, and does"""

HOMES = {
    "PIL": "doctor local pictures thumbnails",
    "argparse": "account batch cli commands doctor embedded install",
    "asyncio": "local",
    "filelock": "state.local",
    "httpx": "transport",
    "mcp": "content resources server",
    "platformdirs": "assemble",
    "pydantic": "content generation protocol resources server",
    "rapidfuzz": "near",
    "shtab": "commands",
    "socket": "local transport",
    "sqlite3": "doctor state.local",
    "starlette": "local",
    "tqdm": "cli terminal",
    "uvicorn": "local",
}
"""foreign package, or one of Python's that reaches out -> the rooms that know it"""

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
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    del found["__init__"]
    return found


def room(module: str) -> str:
    """The row of a module: packages are one room, except that `state` has two."""
    return module if module in MAY_IMPORT else module.partition(".")[0]


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


def at_load(tree: ast.Module) -> ast.Module:
    """What is run when the module loads: no bodies of functions, nothing for the checker only."""
    body = [
        node for node in tree.body if not (isinstance(node, ast.If) and _is_checking(node.test))
    ]
    calls = (ast.FunctionDef, ast.AsyncFunctionDef)
    return ast.Module(body=[node for node in body if not isinstance(node, calls)], type_ignores=[])


def _is_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def rooms() -> dict[str, set[str]]:
    """Room -> the rooms that any of its modules imports."""
    found: dict[str, set[str]] = {}
    for name, tree in modules().items():
        found.setdefault(room(name), set()).update(own(tree) - {room(name)})
    return found


# Who may import whom


def test_every_room_has_a_row_and_every_row_a_room() -> None:
    assert sorted(rooms()) == sorted(set(MAY_IMPORT) | COMMAND_LINE)
    assert not set(MAY_IMPORT) & COMMAND_LINE


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_the_rooms_of_its_row_and_no_other(name: str) -> None:
    assert sorted(rooms()[name]) == sorted(MAY_IMPORT[name].split())


def test_nothing_imports_the_command_line_but_itself() -> None:
    guilty = {
        name: sorted(found & COMMAND_LINE)
        for name, found in rooms().items()
        if name not in COMMAND_LINE and found & COMMAND_LINE
    }
    assert guilty == {}


def test_no_modules_wait_for_each_other_while_they_load() -> None:
    """A `CycleError` here names them; an import inside a function is for later."""
    loading = {name: own_modules(at_load(tree)) - {name} for name, tree in modules().items()}
    assert len(list(TopologicalSorter(loading).static_order())) == len(modules())


def own_modules(tree: ast.AST) -> set[str]:
    names = {name.removeprefix("arta_mcp.") for name in imported(tree)}
    return names & set(modules())


def test_the_rooms_are_layers() -> None:
    """Later imports count too: nothing is above and below another. `state` opens what is in it."""
    graph = {name: found for name, found in rooms().items() if name not in COMMAND_LINE}
    graph["state"] = graph["state"] - {"state.local"}
    assert set(TopologicalSorter(graph).static_order()) == set(MAY_IMPORT)


# Where foreign packages live


@pytest.mark.parametrize("package", HOMES)
def test_a_foreign_package_is_known_in_its_homes_only(package: str) -> None:
    users = {room(name) for name, tree in modules().items() if package in foreign(tree)}
    assert sorted(users) == HOMES[package].split()


def test_every_package_that_is_not_pythons_has_a_home() -> None:
    used = {package for tree in modules().values() for package in foreign(tree)}
    assert used - set(sys.stdlib_module_names) - {"anyio"} <= set(HOMES)


def test_the_front_desk_needs_nothing_but_python() -> None:
    assert foreign(modules()["frontdesk"]) <= set(sys.stdlib_module_names)


def silent() -> list[str]:
    return [
        name
        for name, tree in modules().items()
        if "No I/O happens here" in " ".join((ast.get_docstring(tree) or "").split())
    ]


def test_the_words_are_without_io() -> None:
    assert {"errors", "wire", "refusals", "protocol", "near", "styles", "config"} <= set(silent())
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
    assert readers == ["cli"]
    by_name = [
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        if {alias.name for alias in node.names} & words
    ]
    assert by_name == []


def test_nobody_prints_but_cli() -> None:
    assert [name for name, tree in modules().items() if "print" in called(tree)] == ["cli"]


def test_nothing_is_mocked() -> None:
    for path in (ROOT / "tests").glob("*.py"):
        names = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
        assert not [name for name in names if "mock" in name], path.name


# How files look


@pytest.mark.parametrize("name", modules())
def test_a_module_is_of_a_size_to_be_read(name: str) -> None:
    path = SOURCE / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    assert ast.get_docstring(modules()[name])


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

"""Fixtures of every test; what the tests share beyond them is in `harness`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from arta_mcp import redaction

# At run time inside the fixtures: most tests need no service, and should not wait for its imports.
if TYPE_CHECKING:
    from harness.installed import Machine
    from harness.service import ScriptedServer
    from harness.shell import Shell
    from harness.stores import RedisServer, Store


SLOW_FIXTURES = {"dist", "machine", "redis_servers", "shell_process", "node_folder"}
SLOW_MODULES = {
    *("test_end_to_end", "test_fault_matrix", "test_gallery", "test_identity_emulator"),
    *(
        "test_frameworks",
        "test_inspector",
        "test_interop",
        "test_packaging",
        "test_processes",
        "test_quick_replies",
    ),
    *("test_faults", "test_install", "test_loopback", "test_previews", "test_schedule"),
    *("test_secrets", "test_sketch", "test_startup", "test_state_machine"),
    *(
        "test_bundle",
        "test_connection_bounds",
        "test_crowd",
        "test_dist",
        "test_http",
        "test_http_abuse",
        "test_http_auth",
        "test_http_store",
        "test_installers",
        "test_journal_trouble",
        "test_makefile",
        "test_nginx",
        "test_own_engine",
        "test_pages",
        "test_pythons",
        "test_replicas",
        "test_serve",
        "test_serve_http",
        "test_time_limits",
        "test_wire",
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what starts processes, a browser or Node, draws pictures, or takes long."""
    for item in items:
        fixtures: list[str] = getattr(item, "fixturenames", [])
        callspec = getattr(item, "callspec", None)
        is_served = callspec and callspec.params.get("store", "sqlite") != "sqlite"
        if is_served or SLOW_FIXTURES & set(fixtures) or item.path.stem in SLOW_MODULES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def need() -> Callable[[bool, str], None]:
    """`need(there_is_it, reason)` skips with the reason, or fails when REQUIRE_ALL=1."""

    def check(there: bool, reason: str) -> None:
        if there:
            return
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(f"REQUIRE_ALL=1 but {reason}")
        pytest.skip(reason)

    return check


# What is released


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from harness.roads import build_dist

    return build_dist(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def sdist(dist: tuple[Path, Path]) -> Path:
    return dist[0]


@pytest.fixture(scope="session")
def wheel(dist: tuple[Path, Path]) -> Path:
    return dist[1]


@pytest.fixture(autouse=True)
def forget_secrets() -> Iterator[None]:
    """What one test makes up as a secret must not be redacted from the texts of others."""
    known = dict(redaction._known)  # pyright: ignore[reportPrivateUsage]  # forgetting is for tests alone
    yield
    redaction._sorted = None  # pyright: ignore[reportPrivateUsage]  # forgetting is for tests alone
    redaction._newest.clear()  # pyright: ignore[reportPrivateUsage]  # forgetting is for tests alone
    redaction._known.clear()  # pyright: ignore[reportPrivateUsage]  # forgetting is for tests alone
    redaction._known.update(known)  # pyright: ignore[reportPrivateUsage]  # forgetting is for tests alone


# Where processes share their state


@pytest.fixture(scope="session")
def redis_servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Literal["redis", "valkey"]], RedisServer]]:
    """Gives the server of a kind, started once, with nothing in it."""
    from harness.stores import running_server

    started: dict[str, RedisServer] = {}
    with ExitStack() as stack:

        def get(kind: Literal["redis", "valkey"]) -> RedisServer:
            if kind not in started:
                folder = tmp_path_factory.mktemp(kind)
                started[kind] = stack.enter_context(running_server(kind, folder))
            if started[kind].process is None:  # a test has killed it
                started[kind].start()
            started[kind].command("FLUSHALL")
            return started[kind]

        yield get


@pytest.fixture(params=["sqlite", "redis", "valkey"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, need: Callable[[bool, str], None]
) -> Store:
    """Each store that there is, empty; a test that takes it runs with every one."""
    from harness.stores import Store, find_server

    if request.param == "sqlite":
        return Store("sqlite", tmp_path / "state")
    need(find_server(request.param) is not None, f"there is no {request.param} server here")
    servers: Callable[[str], RedisServer] = request.getfixturevalue("redis_servers")
    return Store(request.param, tmp_path / "state", servers(request.param))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Builds pipelines with random weights when they are first wanted, in a process with torch."""
    folder = tmp_path_factory.mktemp("models")

    def build() -> Path:
        if not any(folder.iterdir()):
            program = Path(__file__).parent / "harness/tiny_models.py"
            subprocess.run([sys.executable, str(program), str(folder)], check=True, timeout=120)
        return folder

    return build


# A computer, and a service that stands for the remote one


@pytest.fixture(scope="session")
def remote_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """A service on a port of its own, whose jobs take no time; `service` for most tests."""
    from harness.installed import run_service

    with run_service(tmp_path_factory.mktemp("remote")) as running:
        yield running


@pytest.fixture
def service(remote_service: ScriptedServer) -> Iterator[ScriptedServer]:
    """The same, counting from zero and without faults."""
    remote_service.service.seen.clear()
    remote_service.service.log.clear()
    yield remote_service
    remote_service.service.faults.clear()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A computer with the program, an empty home and no settings: the embedded service draws."""
    from harness.installed import Machine

    return Machine.new(tmp_path / "machine")


@pytest.fixture
def quick(machine: Machine, service: ScriptedServer) -> Machine:
    """The same computer, set to the service that stands for the remote one."""
    from harness.installed import remote_settings

    return machine.set(**remote_settings(service))


@pytest.fixture(scope="session")
def state_after_a_lake(
    remote_service: ScriptedServer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The state folder of a computer on which one picture was drawn."""
    from harness.installed import Machine, remote_settings

    machine = Machine.new(tmp_path_factory.mktemp("used") / "machine")
    ended = machine.set(**remote_settings(remote_service)).run("generate", "a lake", "--no-save")
    assert ended.returncode == 0, ended.stderr
    return machine.state


@pytest.fixture
def used(quick: Machine, state_after_a_lake: Path) -> Machine:
    """The same computer, on which "a lake" was drawn before."""
    shutil.copytree(state_after_a_lake, quick.state)
    quick.state.chmod(0o700)
    return quick


@pytest.fixture
def shell(
    quick: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """Commands on the quick computer, run in this process."""
    from harness.shell import Shell

    return Shell.on(quick, monkeypatch, capsys)

"""The server as a process: whatever ends it, whoever reads it, and with a setting that is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from arta_mcp.cli.streams import MAX_UNREAD
from arta_mcp.local.faults.catalogue import Fault
from harness.installed import TIMEOUT, Machine, remote_settings
from harness.programs import hear_signals
from harness.service import ScriptedServer, ScriptedService
from harness.shell import Terminal
from harness.world import tiny_picture
from test_quick_replies import INITIALIZED, initialize, modern, rpc

CALL = rpc("tools/call", 2, name="generate_image", arguments={"prompt": "a lake"})
LOOK = rpc("tools/call", 3, name="list_models", arguments={"search": "flux"})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ScriptedServer]:
    made = ScriptedService(tmp_path / "service", engine=tiny_picture, queue=3600, draw=0)
    with ScriptedServer(made) as running:
        yield running


@pytest.fixture
def local(tmp_path: Path) -> Machine:
    """A machine without a key."""
    return Machine.new(tmp_path / "machine")


@pytest.fixture
def remote(local: Machine, service: ScriptedServer) -> Machine:
    """A machine whose service never ends a job."""
    return local.set(**remote_settings(service))


@contextmanager
def serving(
    machine: Machine, *lines: str, prepare: Callable[[], None] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """The server as a host starts it, with these lines written to it; `prepare` runs before it."""
    prepare = prepare or hear_signals
    with subprocess.Popen(
        [str(machine.program)],
        env=machine.environ,
        cwd=machine.elsewhere,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=prepare,
    ) as server:
        try:
            write(server, *lines)
            yield server
        finally:
            server.kill()


def write(server: subprocess.Popen[bytes], *lines: str) -> None:
    if server.stdin is not None:
        server.stdin.write("".join(f"{line}\n" for line in lines).encode())
        server.stdin.flush()


def read(server: subprocess.Popen[bytes], count: int = 1) -> list[dict[str, Any]]:
    assert server.stdout is not None
    return [json.loads(server.stdout.readline()) for _ in range(count)]


def wait_until_seen(service: ScriptedServer, endpoint: str) -> None:
    until = time.monotonic() + TIMEOUT
    while not service.service.seen[endpoint]:
        assert time.monotonic() < until
        time.sleep(0.005)


def record_ids(machine: Machine) -> list[str]:
    listed = machine.run("history", "--json").stdout
    return [json.loads(line)["record_id"] for line in listed.splitlines()]


# Signals

ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_in_the_middle_of_a_submit_keeps_the_record_id_of_a_server(
    remote: Machine, service: ScriptedServer, number: signal.Signals
) -> None:
    service.service.faults.add(Fault.parse("slow-headers@submit=3"))
    with serving(remote, initialize(1), INITIALIZED, CALL) as server:
        wait_until_seen(service, "submit")
        server.send_signal(number)
        assert server.wait(TIMEOUT) == ENDS[number]
    assert record_ids(remote) == [*service.service.jobs]
    assert len(service.service.jobs) == 1


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_in_the_middle_of_a_submit_keeps_the_record_id_of_a_command(
    remote: Machine, service: ScriptedServer, number: signal.Signals
) -> None:
    service.service.faults.add(Fault.parse("slow-headers@submit=3"))
    command = subprocess.Popen(
        [str(remote.program), "generate", "a lake"],
        env=remote.environ,
        cwd=remote.elsewhere,
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,
    )
    with command:
        wait_until_seen(service, "submit")
        command.send_signal(number)
        _, errors = command.communicate(timeout=TIMEOUT)
    assert command.returncode == ENDS[number]
    assert errors.decode().splitlines()[-1] == "stopped"
    assert record_ids(remote) == [*service.service.jobs]
    assert len(service.service.jobs) == 1


def test_a_host_that_closes_and_then_terminates_keeps_the_record_id(
    remote: Machine, service: ScriptedServer
) -> None:
    service.service.faults.add(Fault.parse("slow-headers@submit=3.5"))
    with serving(remote, initialize(1), INITIALIZED, CALL) as server:
        wait_until_seen(service, "submit")
        assert server.stdin is not None
        server.stdin.close()
        time.sleep(2)  # as the SDKs' clients do it, which kill after 2 s more
        server.terminate()
        server.wait(TIMEOUT)
    assert record_ids(remote) == [*service.service.jobs]


def test_a_second_interrupt_does_not_wait_for_a_submit(
    remote: Machine, service: ScriptedServer
) -> None:
    service.service.faults.add(Fault.parse("slow-headers@submit=30"))
    with serving(remote, initialize(1), INITIALIZED, CALL) as server:
        wait_until_seen(service, "submit")
        server.send_signal(signal.SIGINT)
        time.sleep(0.3)
        server.send_signal(signal.SIGINT)
        assert server.wait(2) == 130


@pytest.mark.parametrize("state", ["idle", "busy", "unread"])
@pytest.mark.parametrize("number", ENDS)
def test_one_signal_ends_a_server_whose_host_stays(
    remote: Machine, service: ScriptedServer, number: signal.Signals, state: str
) -> None:
    with serving(remote, initialize(1), INITIALIZED, LOOK) as server:
        read(server, 2)
        match state:
            case "idle":
                pass
            case "busy":
                write(server, CALL)
                wait_until_seen(service, "status")
            case _:  # "unread": a pipe holds 64 KiB: the server stands in a write
                write(server, *(rpc("tools/list", number) for number in range(100)))
                time.sleep(0.5)
        server.send_signal(number)
        assert server.wait(5) == ENDS[number]
        assert server.stderr is not None
        assert server.stderr.read() == b"stopped\n"


@pytest.mark.parametrize("quick", ["on", "off"])
def test_a_host_that_closes_and_reads_nothing_ends_the_server(local: Machine, quick: str) -> None:
    with serving(local.set(ARTA_QUICK_REPLIES=quick), initialize(1), INITIALIZED, LOOK) as server:
        read(server, 2)
        write(server, *(rpc("tools/list", number) for number in range(100)))
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(10) == 0


def test_an_ignored_hangup_stays_ignored(local: Machine) -> None:
    with subprocess.Popen(
        ["nohup", str(local.program)],
        env=local.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        write(server, initialize(1), INITIALIZED, LOOK)
        read(server, 2)
        server.send_signal(signal.SIGHUP)
        write(server, rpc("ping", 4))
        assert read(server) == [{"jsonrpc": "2.0", "id": 4, "result": {}}]
        server.communicate(timeout=TIMEOUT)
        assert server.returncode == 0


@pytest.mark.parametrize("after", [0.05, 0.15, 0.3, 2.0])
def test_ctrl_c_at_a_terminal_ends_the_server_at_once(local: Machine, after: float) -> None:
    with Terminal(local, ()) as terminal:
        terminal.until("for people")
        time.sleep(after)  # while the SDK loads, or when it waits for a line
        terminal.interrupt()
        assert terminal.end() == 130
    assert "Traceback" not in terminal.screen
    assert terminal.screen.splitlines()[-1] == "stopped"


# The parent

LAUNCHER = """
import os, subprocess, sys, time
sibling = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
server = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
print(server.pid, sibling.pid, file=sys.stderr, flush=True)
time.sleep(60)
"""
"""a host whose other child holds the server's pipes too"""


def test_a_server_ends_when_its_host_is_killed_while_another_child_holds_the_pipe(
    local: Machine,
) -> None:
    keep_reading, keep_writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(local.program)],
        env=local.environ,
        stdin=keep_reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,
    ) as host:
        assert host.stderr is not None
        server, sibling = map(int, host.stderr.readline().split())
        try:
            os.write(keep_writing, f"{initialize(1)}\n{INITIALIZED}\n{LOOK}\n".encode())
            read(host, 2)
            host.kill()
            host.wait(TIMEOUT)
            until = time.monotonic() + 10
            while is_alive(server):
                assert time.monotonic() < until
                time.sleep(0.05)
        finally:
            os.kill(sibling, signal.SIGKILL)
            if is_alive(server):
                os.kill(server, signal.SIGKILL)
            os.close(keep_reading)
            os.close(keep_writing)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Standard streams


@pytest.mark.parametrize("quick", ["on", "off"])
def test_without_a_stderr_stdout_carries_the_protocol_alone(local: Machine, quick: str) -> None:
    machine = local.set(ARTA_LOG_LEVEL="DEBUG", ARTA_MAXWAIT="1", ARTA_QUICK_REPLIES=quick)
    with serving(machine, prepare=close_stderr) as server:
        write(server, initialize(1), INITIALIZED, "{", CALL)
        assert sorted(str(reply["id"]) for reply in read(server, 3)) == ["1", "2", "None"]
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(TIMEOUT) == 0
        assert server.stdout is not None
        assert server.stdout.read() == b""


def close_stderr() -> None:
    hear_signals()
    os.close(2)


@pytest.mark.parametrize(
    ("command", "code", "out"),
    [
        (("models", "--search", "flux", "--json"), 0, '{"as_of"'),
        (("generate", "a lake", "--no-save", "--json"), 0, '{"record_id"'),
        (("generate", "a lake", "-n", "9"), 2, ""),
        (("genrate",), 2, ""),
        (("doctor", "--no-picture", "--json"), 0, '{"ok"'),
    ],
)
def test_without_a_stderr_a_command_prints_its_data_alone(
    local: Machine, command: tuple[str, ...], code: int, out: str
) -> None:
    ended = subprocess.run(
        [str(local.program), *command],
        env=local.set(ARTA_MAXWAIT="1").environ,
        cwd=local.elsewhere,
        stdout=subprocess.PIPE,
        preexec_fn=close_stderr,
        check=False,
        timeout=TIMEOUT,
    )
    assert ended.returncode == code
    assert ended.stdout.decode().startswith(out)
    assert len(ended.stdout.splitlines()) == (1 if out else 0)


def test_a_stderr_that_nobody_reads_blocks_no_call(local: Machine) -> None:
    machine = local.set(ARTA_LOG_LEVEL="DEBUG")
    with serving(machine, initialize(1), INITIALIZED) as server:
        read(server)
        for number in range(2, 302):  # each is some lines of the log, a pipe holds 64 KiB
            write(server, "{" + "x" * 70, rpc("nothing", number) + "x", LOOK)
            read(server, 3)
        server.send_signal(signal.SIGTERM)
        assert server.wait(5) == 143


def test_a_log_that_is_read_late_says_how_much_was_dropped(local: Machine) -> None:
    code = (
        "import sys, time; from arta_mcp.cli.streams import unblock_stderr\n"
        "with unblock_stderr():\n"
        "    for number in range(20_000):\n"
        "        print(number, 'x' * 60, file=sys.stderr)\n"
        "    print('written', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    time.sleep(0.5)\n"
        "    print('the end', file=sys.stderr)\n"
        "    time.sleep(0.5)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        _, errors = process.communicate(b"go on\n", timeout=TIMEOUT)
    assert len(errors) < 2 * MAX_UNREAD
    assert b"what nobody read in time was dropped" in errors
    assert errors.endswith(b"the end\n")


# A wrong setting

WRONG = "error: ARTA_MAX_WAIT is 'soon', not a number of seconds in 0..3600"
REMEDY = "hint: set ARTA_MAX_WAIT to a number, or leave it out"


@pytest.fixture
def wrong(local: Machine) -> Machine:
    return local.set(ARTA_MAX_WAIT="soon")


@pytest.mark.parametrize("quick", ["on", "off"])
def test_with_a_wrong_setting_a_host_is_served_and_every_call_says_what_is_wrong(
    wrong: Machine, quick: str
) -> None:
    right = Machine.new(wrong.folder / "right")
    with serving(right, initialize(1), INITIALIZED, rpc("tools/list", 2)) as server:
        expected = read(server, 2)
    calls: dict[int, tuple[str, dict[str, Any]]] = {
        10: ("generate_image", {"prompt": "a lake"}),
        11: ("generate_image", {"prompt": 7}),
        12: ("get_generation", {"record_id": "x"}),
        13: ("list_models", {}),
    }
    with serving(wrong.set(ARTA_QUICK_REPLIES=quick), initialize(1), INITIALIZED) as server:
        write(server, rpc("tools/list", 2))
        assert read(server, 2) == expected
        for number, (name, arguments) in calls.items():
            write(server, rpc("tools/call", number, name=name, arguments=arguments))
            (reply,) = read(server)
            assert reply["result"] == {
                "content": [{"type": "text", "text": f"{WRONG}\n{REMEDY}"}],
                "isError": True,
            }
        for method, params in (
            ("resources/read", {"uri": "arta://generations"}),
            ("resources/read", {"uri": "arta://models"}),
            ("prompts/get", {"name": "nothing"}),
        ):
            write(server, rpc(method, 20, **params))
            (reply,) = read(server)
            assert reply["error"] == {"code": -32603, "message": f"{WRONG}\n{REMEDY}"}
        argument = {"name": "record_id", "value": ""}
        ref = {"type": "ref/resource", "uri": "arta://generations/{record_id}"}
        write(server, rpc("completion/complete", 30, ref=ref, argument=argument))
        write(server, rpc("ping", 31))
        replies = {reply["id"]: reply["result"] for reply in read(server, 2)}
        assert replies[30]["completion"]["values"] == []
        _, errors = server.communicate(timeout=TIMEOUT)
    assert server.returncode == 2
    assert errors.decode().splitlines() == [WRONG, REMEDY]
    assert not wrong.state.exists()
    assert list(wrong.home.iterdir()) == []


def test_with_a_wrong_setting_a_modern_host_is_served_too(wrong: Machine) -> None:
    with serving(wrong, modern("tools/list", 1)) as server:
        (listed,) = read(server)
        assert len(listed["result"]["tools"]) == 3
        call = modern("tools/call", 2).replace('{"_meta"', '{"name": "list_models", "_meta"')
        write(server, call)
        (reply,) = read(server)
        assert reply["result"]["isError"] is True
        assert reply["result"]["content"][0]["text"] == f"{WRONG}\n{REMEDY}"


@pytest.mark.parametrize("command", [(), ("serve",)])
def test_with_a_wrong_setting_nobody_is_waited_for(
    wrong: Machine, command: tuple[str, ...]
) -> None:
    ended = wrong.run(*command)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [WRONG, REMEDY]
    with Terminal(wrong, command) as terminal:
        assert terminal.end() == 2
    assert WRONG in terminal.screen

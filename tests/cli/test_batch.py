"""Batches: one prompt a line, resumed where they stopped, ordered once."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from arta_mcp.cli import batch
from arta_mcp.cli.batch import read_items
from arta_mcp.cli.generate import add_generate
from arta_mcp.cli.parser import build_parser
from arta_mcp.config import Settings
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.local.faults.catalogue import Fault
from harness.installed import remote_settings, run_service
from harness.service import ScriptedServer
from harness.shell import CommandResult, Shell, Terminal

LINES = "a hill\n# not this one\n\n   a lake  \na tree\n"


def draw(shell: Shell, lines: str, *options: str) -> CommandResult:
    (shell.machine.elsewhere / "prompts").write_text(lines, encoding="utf-8")
    return shell("generate", "--batch", "prompts", "-o", "out", *options)


def test_every_line_is_a_prompt_but_blank_ones_and_remarks(shell: Shell) -> None:
    said = draw(shell, LINES, "--json")
    told = {(line["line"], line["prompt"], line["status"]) for line in said.json_lines}
    assert said.code == 0, said.err
    assert told == {(1, "a hill", "done"), (4, "a lake", "done"), (5, "a tree", "done")}
    assert len(list((shell.machine.elsewhere / "out").iterdir())) == 3
    assert "3 prompts: 3 drawn" in said.err


def test_paths_go_to_stdout_and_talk_to_stderr(shell: Shell) -> None:
    said = draw(shell, LINES)
    paths = [shell.machine.elsewhere / line for line in said.out.splitlines()]
    assert sorted(paths) == sorted((shell.machine.elsewhere / "out").iterdir())
    assert all(f"line {number}: drawn in" in said.err for number in (1, 4, 5))


def test_prompts_come_from_stdin_too(shell: Shell, service: ScriptedServer) -> None:
    said = shell("generate", "--batch", "-", "--no-save", stdin="ein Hügel\na lake".encode())
    assert said.code == 0, said.err
    assert service.service.seen["submit"] == 2
    assert "ein Hügel" in shell("history").out


def test_run_again_it_orders_nothing_and_tells_everything(
    shell: Shell, service: ScriptedServer
) -> None:
    first = draw(shell, LINES)
    before = service.service.seen.copy()
    again = draw(shell, LINES)
    assert again.code == 0
    assert sorted(again.out.splitlines()) == sorted(first.out.splitlines())
    assert service.service.seen == before
    assert "3 prompts: 3 drawn before" in again.err
    assert "--idempotency-key NAME draws them anew" in again.err


def test_a_new_line_is_the_only_one_ordered(shell: Shell, service: ScriptedServer) -> None:
    draw(shell, LINES)
    said = draw(shell, "a cloud\n" + LINES)
    assert "4 prompts: 3 drawn before, 1 drawn" in said.err or "1 drawn, 3 drawn" in said.err
    assert service.service.seen["submit"] == 4


def test_a_line_of_another_file_is_another_picture(shell: Shell, service: ScriptedServer) -> None:
    draw(shell, "a hill\n")
    (shell.machine.elsewhere / "others").write_text("a hill\n", encoding="utf-8")
    other = shell("generate", "--batch", "others", "--no-save")
    assert "1 prompt: 1 drawn" in other.err
    assert service.service.seen["submit"] == 2
    absolute = shell.machine.elsewhere / "others"
    again = shell("generate", "--batch", str(absolute), "--no-save")
    assert "1 prompt: 1 drawn before" in again.err
    assert service.service.seen["submit"] == 2


def test_what_a_batch_of_0_1_0_ordered_is_not_ordered_again(
    shell: Shell, service: ScriptedServer
) -> None:
    request = GenerationRequest.of(prompt="a hill")
    key = batch.key_for(request, 0, "", 1)
    assert shell("generate", "a hill", "--idempotency-key", key, "--no-save").code == 0
    assert "1 drawn before" in draw(shell, "a hill\n").err
    assert service.service.seen["submit"] == 1


def test_results_are_printed_in_the_order_of_the_lines(shell: Shell, tmp_path: Path) -> None:
    lines = [f"prompt {number}" for number in range(8)]
    with run_service(tmp_path / "slow") as slow:
        shell.set(**remote_settings(slow))
        slow.service.faults.add(
            Fault.parse("slow-headers@submit*2=1"), Fault.parse("error-code@status+3")
        )
        said = draw(shell, "\n".join(lines), "--json")
        again = draw(shell, "\n".join(lines))
    assert [line["line"] for line in said.json_lines] == [*range(1, 9)]
    (failed,) = [line for line in said.json_lines if line["status"] == "failed"]
    assert failed["error"]
    assert failed["hint"]
    assert failed["record_id"]
    assert [line.split("-")[1] for line in again.out.splitlines()] == [*"01234567"]


def test_lines_that_are_left_out_are_told(shell: Shell) -> None:
    assert "1 line left out: remarks, which begin with #" in draw(shell, LINES).err
    assert "which begin with #" in " ".join(shell("generate", "--help").out.split())


def test_the_same_line_twice_is_two_pictures(shell: Shell, service: ScriptedServer) -> None:
    said = draw(shell, "a hill\na hill\n", "--json")
    assert len({line["record_id"] for line in said.json_lines}) == 2
    assert draw(shell, "a hill\na hill\n").code == 0
    assert service.service.seen["submit"] == 2


@pytest.mark.parametrize(
    "options", [("-n", "2"), ("--seed", "7"), ("--idempotency-key", "a second time")]
)
def test_other_options_or_another_name_draw_anew(
    shell: Shell, service: ScriptedServer, options: tuple[str, ...]
) -> None:
    draw(shell, "a hill\n")
    assert draw(shell, "a hill\n", *options).code == 0
    assert service.service.seen["submit"] == 2


def test_the_spelling_of_a_ratio_draws_nothing_anew(shell: Shell, service: ScriptedServer) -> None:
    for spelled in ("16:9", "16x9", "'16:9' "):
        assert draw(shell, "a lake", "-a", spelled).code == 0
    assert service.service.seen["submit"] == 1


def test_the_spelling_of_a_model_draws_nothing_anew(shell: Shell, service: ScriptedServer) -> None:
    draw(shell, "a hill\n", "-m", "vincent-van-gogh")
    draw(shell, "a hill\n", "-m", "Vincent Van Gogh")
    assert service.service.seen["submit"] == 1


def test_a_picture_that_was_deleted_is_fetched_and_not_ordered(
    shell: Shell, service: ScriptedServer
) -> None:
    first = draw(shell, "a hill\n")
    picture = shell.machine.elsewhere / first.out.strip()
    picture.unlink()
    polls = service.service.seen["status"]
    again = draw(shell, "a hill\n")
    assert again.out == first.out
    assert picture.exists()
    assert service.service.seen["status"] > polls  # the old address may have run out
    assert service.service.seen["submit"] == 1


def test_a_failed_line_stops_no_other_and_is_tried_on_the_next_run(
    shell: Shell, service: ScriptedServer
) -> None:
    shell.set(ARTA_MAX_CONCURRENCY="1")
    service.service.faults.add(Fault("error-code", "status", after=0))
    first = draw(shell, LINES, "--json")
    again = draw(shell, LINES, "--json")
    failed = [line for line in first.json_lines if line["status"] == "failed"]
    assert first.code == 1
    assert [line["line"] for line in failed] == [1]
    assert "the service gave the job up" in str(failed[0]["error"])
    assert "error: line 1: the service gave the job up" in first.err
    assert "3 prompts: 1 failed, 2 drawn" in first.err
    assert "run it again" in first.err
    assert again.code == 0
    assert {line["status"] for line in again.json_lines} == {"done"}
    assert service.service.seen["submit"] == 4


def test_a_line_that_is_too_long_fails_alone(shell: Shell, service: ScriptedServer) -> None:
    said = draw(shell, "a hill\n" + "long " * 1000 + "\n")
    assert said.code == 1
    assert "error: line 2: prompt is" in said.err
    assert service.service.seen["submit"] == 1


def test_what_every_line_would_meet_is_met_once(shell: Shell, service: ScriptedServer) -> None:
    shell.set(ARTA_MAX_CONCURRENCY="1")
    service.service.faults.add(Fault("API_KEY_INVALID", "sign_up", times=None))
    said = draw(shell, LINES)
    assert said.code == 1
    assert "3 prompts: 3 not tried" in said.err
    assert said.err.count("API key not valid") == 1
    assert service.service.seen["sign_up"] == 1
    assert "API key not valid" in str(draw(shell, LINES, "--json").json["error"])


@pytest.mark.parametrize(
    ("seconds", "times", "pauses", "code"),
    [("45", 1, [45.0], 0), ("45", None, [45.0, 45.0], 1), ("60", None, [], 1)],
)
def test_a_line_without_room_waits_as_long_as_the_service_says_but_not_for_ever(
    shell: Shell,
    service: ScriptedServer,
    seconds: str,
    times: int | None,
    pauses: list[float],
    code: int,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await anyio.lowlevel.checkpoint()

    shell.patch.setattr(batch, "MAX_PAUSE", 50.0)
    service.service.faults.add(Fault("429-wait", "submit", value=seconds, times=times))
    prompts = shell.machine.elsewhere / "prompts"
    prompts.write_text("a hill\n", encoding="utf-8")
    options = build_parser(add_generate).parse_args(
        ["generate", "--batch", str(prompts), "--no-save"]
    )
    settings = Settings.from_env(shell.machine.environ)
    assert batch.Batch(settings, options, {}, sleep=sleep).run() == code
    assert slept == pauses
    assert service.service.seen["submit"] == len(pauses) + 1


def test_a_wrong_option_is_refused_before_the_first_line(
    shell: Shell, service: ScriptedServer
) -> None:
    said = draw(shell, LINES, "-n", "9")
    assert said.code == 2
    assert "error: -n is '9'" in said.err
    assert not service.service.seen


def test_no_more_jobs_are_in_flight_than_allowed(shell: Shell, service: ScriptedServer) -> None:
    shell.set(ARTA_MAX_CONCURRENCY="1")
    draw(shell, LINES)
    told = [event.endpoint for event in service.service.log]
    order = [word for word in told if word in ("submit", "image")]
    assert order == ["submit", "image"] * 3


def test_with_no_patience_every_line_is_pending_and_a_second_run_fetches_it(
    shell: Shell, tmp_path: Path
) -> None:
    with run_service(tmp_path / "slow", draw=1) as slow:
        shell.set(**remote_settings(slow))
        first = draw(shell, LINES, "--max-wait", "0", "--json")
        again = draw(shell, LINES, "--json")
        orders = slow.service.seen["submit"]
    assert first.code == 3
    assert {line["status"] for line in first.json_lines} == {"pending"}
    assert "3 prompts: 3 pending" in first.err
    assert again.code == 0
    assert {line["record_id"] for line in again.json_lines} == {
        line["record_id"] for line in first.json_lines
    }
    assert orders == 3


def test_stopped_in_the_middle_it_goes_on_and_orders_nothing_twice(
    shell: Shell, tmp_path: Path
) -> None:
    (shell.machine.elsewhere / "prompts").write_text(LINES, encoding="utf-8")
    command = ("generate", "--batch", "prompts", "-o", "out")
    with run_service(tmp_path / "slow", draw=1) as slow:
        shell.set(**remote_settings(slow), ARTA_MAX_CONCURRENCY="1")
        with Terminal(shell.machine, command) as terminal:
            terminal.until("line 1: drawn in")
            terminal.interrupt()
            code = terminal.end()
        again = shell(*command)
        orders = slow.service.seen["submit"]
    assert code == 130
    assert "run it again to go on, nothing is ordered twice" in terminal.screen
    assert "Traceback" not in terminal.screen
    assert again.code == 0, again.err
    assert len(again.out.splitlines()) == 3
    assert orders == 3


def test_a_terminal_shows_how_many_are_done(shell: Shell) -> None:
    (shell.machine.elsewhere / "prompts").write_text(LINES, encoding="utf-8")
    said = shell.at_terminal("generate", "--batch", "prompts", "--no-save")
    assert said.code == 0, said.err
    assert "0 of 3" in said.err
    assert said.err.count("drawn in") == 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "--batch is 'prompts'; allowed is a file of prompts or - (no such file"),
        (b"\xff\xfe\x00", "--batch is 'prompts'; allowed is text in UTF-8"),
    ],
)
def test_a_file_that_is_none_is_refused(
    shell: Shell, service: ScriptedServer, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (shell.machine.elsewhere / "prompts").write_bytes(content)
    said = shell("generate", "--batch", "prompts")
    assert said.code == 2
    assert sentence in said.err
    assert not service.service.seen


def test_a_file_without_prompts_draws_nothing(shell: Shell) -> None:
    said = draw(shell, "\n# nothing\n")
    assert (said.code, said.out) == (0, "")
    assert "nothing to draw: no line of prompts is a prompt" in said.err


def test_line_numbers_and_copies_are_counted() -> None:
    items, remarks = read_items("a\r\n\r\nb\n# no\na\n")
    assert remarks == 1
    assert [(item.line, item.prompt, item.copy) for item in items] == [
        (1, "a", 0),
        (3, "b", 0),
        (5, "a", 1),
    ]

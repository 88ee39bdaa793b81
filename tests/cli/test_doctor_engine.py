"""The doctor and an engine of the person's own: it is tried, and what it leaves out is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from arta_mcp.local.store import Store
from harness.image_server import ImageServer
from harness.installed import Machine
from harness.shell import CommandResult, Shell

KEY = "sk-sentinel-0123456789"
NOWHERE = "http://127.0.0.1:9"
"""a proxy that is not there, so that nothing leaves this machine"""


@pytest.fixture
def shell(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """Without settings: each test names its engine."""
    return Shell.on(machine, monkeypatch, capsys)


@pytest.fixture
def server() -> Iterator[ImageServer]:
    made = ImageServer(models=[{"id": "flux-schnell"}, {"id": "other"}])
    with made.running():
        yield made


def findings(said: CommandResult, name: str) -> list[tuple[str, str, str]]:
    found = json.loads(said.out)["findings"]
    return [(one["status"], one["detail"], one["remedy"]) for one in found if one["name"] == name]


def test_the_engine_is_asked_for_its_models_and_one_small_picture(
    shell: Shell, server: ImageServer
) -> None:
    shell.set(ARTA_LOCAL_ENGINE="openai", ARTA_LOCAL_URL=server.url)
    said = shell("doctor")
    assert said.code == 0, said.out
    assert f"AI pictures by the model that is loaded at {server.url}" in said.out
    assert f"openai at {server.url} has 2 models: flux-schnell, other" in said.out
    assert "takes prompt, aspect_ratio; leaves out negative_prompt, guidance_scale" in said.out
    assert "512x512 in " in said.out
    assert " by flux-schnell; it does not say how many steps that took" in said.out
    assert f"{shell.machine.home}/Pictures/arta-mcp, made when it is needed" in said.out
    assert "note: one small picture is drawn now, 512x512" in said.err
    assert [body["size"] for body in server.bodies] == ["512x512"]
    assert shell("history").out == ""  # it is no generation of the person's
    assert "sketch" not in said.out
    assert shell("generate", "a fox", "--no-save").code == 0
    shell.set(ARTA_LOCAL_ENGINE="sketch", ARTA_LOCAL_URL="")
    assert "0 jobs, 0 MB; beyond 1000" in shell("doctor", "--no-picture").out


def test_seconds_of_a_step_are_told_where_the_server_says_how_many(
    shell: Shell, server: ImageServer
) -> None:
    server.steps, server.delay = 6, 4.0
    shell.set(ARTA_LOCAL_ENGINE="sdapi", ARTA_LOCAL_URL=server.url)
    said = shell("doctor", "--json")
    [(status, detail, _)] = findings(said, "picture")
    assert status == "ok"
    seconds = float(detail.partition("turbo-v1, ")[2].partition(" s a step (6 steps)")[0])
    assert 0.3 < seconds < 1.5
    engine = findings(said, "engine")
    assert (
        engine[0][1] == f"sdapi at {server.url} gives no list of models; draws with what it has"
        " loaded"
    )
    assert engine[1][1] == (
        "takes prompt, aspect_ratio, negative_prompt, guidance_scale, num_inference_steps, seed"
    )


def test_without_a_picture_only_the_list_is_asked_for(shell: Shell, server: ImageServer) -> None:
    shell.set(ARTA_LOCAL_ENGINE="openai", ARTA_LOCAL_URL=server.url, ARTA_LOCAL_MODEL="sdxl")
    said = shell("doctor", "--no-picture", "--json")
    assert (said.code, said.err) == (0, "")
    assert set(server.paths) == {"/v1/models"}
    status, detail, remedy = findings(said, "engine")[0]
    assert (status, remedy) == ("warn", "set ARTA_LOCAL_MODEL to one of them")
    assert detail.endswith("flux-schnell, other; sdxl is not among them")
    assert not shell.machine.state.exists()


def test_where_a_picture_may_cost_money_none_is_drawn_without_a_word(shell: Shell) -> None:
    # An address that answers nothing: what is proven is that no picture is asked for.
    shell.set(ARTA_LOCAL_ENGINE="openai", ARTA_LOCAL_KEY=KEY)
    shell.set(ARTA_LOCAL_URL="https://images.invalid", ARTA_PROXY=NOWHERE)
    said = shell("doctor", "--json")
    assert findings(said, "picture") == [
        ("ok", "not tried: it may cost money at https://images.invalid; --draw draws one", "")
    ]
    assert findings(said, "hourly limit") == [
        ("ok", "hosts have asked for 0 of 120 pictures of an hour (ARTA_HOURLY_LIMIT)", "")
    ]
    assert KEY not in said.out + said.err


def test_a_key_at_a_server_of_ones_own_costs_nothing_and_is_shown_nowhere(
    shell: Shell, server: ImageServer
) -> None:
    shell.set(ARTA_LOCAL_ENGINE="openai", ARTA_LOCAL_URL=server.url, ARTA_LOCAL_KEY=KEY)
    said = shell("doctor", "--json")
    assert findings(said, "picture")[0][0] == "ok"
    assert server.keys == [f"Bearer {KEY}"] * len(server.keys)
    assert KEY not in said.out + said.err


def test_a_server_that_is_not_there_or_refuses_fails_with_what_to_do(
    shell: Shell, server: ImageServer
) -> None:
    shell.set(ARTA_LOCAL_ENGINE="openai", ARTA_LOCAL_URL="http://127.0.0.1:9")
    said = shell("doctor", "--json")
    assert said.code == 1
    [(status, detail, remedy)] = findings(said, "engine")
    assert status == "fail"
    assert "127.0.0.1:9" in detail
    assert remedy == "start the server that ARTA_LOCAL_URL names, then try again"
    server.answer = lambda _: JSONResponse({"error": "no model is loaded"}, status_code=500)
    shell.set(ARTA_LOCAL_URL=server.url)
    said = shell("doctor", "--json")
    assert said.code == 1
    status, detail, remedy = findings(said, "engine")[-1]
    assert (status, detail) == ("fail", f"{server.url} answers 500: no model is loaded")
    assert remedy


def test_while_another_process_draws_the_engine_is_left_to_it(
    shell: Shell, server: ImageServer
) -> None:
    shell.set(ARTA_LOCAL_ENGINE="openai", ARTA_LOCAL_URL=server.url)
    shell.machine.state.mkdir(mode=0o700)
    with Store(shell.machine.state / "local", keep=9).drawing_lock("openai"):
        said = shell("doctor", "--json")
    assert findings(said, "picture") == [
        (
            "warn",
            "not tried: another process of arta-mcp has the engine now",
            "try again once it has drawn",
        )
    ]
    assert server.bodies == []


def test_what_is_set_and_not_used_and_what_travels_in_the_clear_is_said(
    shell: Shell, tmp_path: Path
) -> None:
    shell.set(
        ARTA_LOCAL_ENGINE="sdapi",
        ARTA_LOCAL_URL="http://gpu.internal:7860",
        ARTA_LOCAL_HTTP="on",
        ARTA_PROXY=NOWHERE,
        ARTA_API_KEY=KEY,
        ARTA_BACKEND="arta",
        ARTA_STATE_DIR="/dev/null/x",  # nothing is asked of the remote service
    )
    said = shell("doctor", "--no-picture", "--json")
    assert findings(said, "settings")[1] == (
        "warn",
        "ARTA_LOCAL_ENGINE=sdapi is not used: ARTA_BACKEND is arta",
        "remove what is not meant",
    )
    shell.set(ARTA_BACKEND="auto")
    said = shell("doctor", "--no-picture", "--json")
    unused = "ARTA_API_KEY is not used: ARTA_LOCAL_ENGINE=sdapi draws"
    assert unused in said.out
    shell.set(ARTA_STATE_DIR=str(tmp_path / "state"))
    assert f"warning: {unused}" in shell("history").err
    assert findings(said, "engine")[0] == (
        "warn",
        "prompts and key travel in the clear to http://gpu.internal:7860",
        "use https:// where others share the network",
    )


def test_a_mistake_in_a_file_of_styles_is_told_by_its_line(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "styles.json"
    lines = ["[", *(f'{{"name": "a{n}", "prompt": "{{prompt}}, x"}},' for n in range(10))]
    path.write_text("\n".join([*lines, '{"name": "b", "prompt": "x"}', "]"]), encoding="utf-8")
    shell.set(ARTA_LOCAL_STYLES=str(path))
    said = shell("doctor", "--no-picture", "--json")
    assert said.code == 1
    status, detail, remedy = findings(said, "styles")[0]
    assert (status, "{prompt}" in remedy) == ("fail", True)
    assert detail == f"ARTA_LOCAL_STYLES: {path}, line 12: the prompt of 'b' has no {{prompt}}"
    started = shell("history")
    assert started.code == 2
    assert f"error: {detail}" in started.err
    path.write_text('[{"name": "b", "prompt": "{prompt}, x"}]', encoding="utf-8")
    said = shell("doctor", "--no-picture", "--json")
    assert findings(said, "styles")[0][1] == f"1 style of yours in {path} (ARTA_LOCAL_STYLES)"

"""A picture server that nobody here wrote, from an MCP client over stdio to the file on disk.

Aquiles-Image is unlike OpenAI in the usual ways: it has a closed list of sizes, ignores fields that
it does not know, and gives addresses at which nothing answers. `make test-engines` installs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.aquiles import KEY, PROGRAM, Aquiles, running_aquiles
from harness.installed import Machine, connect, content_of, decode, text_of

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MODEL = "stabilityai/stable-diffusion-3.5-medium"


@pytest.fixture(scope="module")
def aquiles(
    need: Callable[[bool, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Aquiles]:
    need(PROGRAM.exists(), "make test-engines makes the environment that this needs")
    with running_aquiles(tmp_path_factory.mktemp("aquiles")) as running:
        yield running


@pytest.fixture
def own(machine: Machine, aquiles: Aquiles) -> Machine:
    """A machine whose settings name that server."""
    return machine.set(ARTA_LOCAL_ENGINE="openai", ARTA_LOCAL_URL=aquiles.url, ARTA_LOCAL_KEY=KEY)


async def test_a_host_gets_its_pictures_and_is_told_what_was_not_as_it_asked(
    own: Machine, aquiles: Aquiles
) -> None:
    asked = {"prompt": "a red fox in snow", "n": 2, "aspect_ratio": "16:9", "seed": 5}
    async with connect(own) as client:
        called = await client.call_tool("generate_image", {**asked, "num_inference_steps": 4})
        done = content_of(called)
        told = text_of(called)
    assert (done["engine"], done["engine_model"]) == ("openai", MODEL)
    notice = str(done["notice"])
    assert f"drawn by {MODEL} through openai" in notice
    # It draws 1792 x 1024 and no 1360 x 768, and takes neither a seed nor steps.
    assert "1792 x 1024 pixels in place of 1360 x 768" in notice
    assert notice.count("not passed on, as the engine takes none: num_inference_steps, seed") == 1
    assert notice in told
    images = done["images"]
    assert isinstance(images, list)
    paths = [Path(str(image["path"])) for image in images]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON
    assert {path.parent for path in paths} == {own.home / "Pictures" / "arta-mcp"}
    for path in paths:
        picture = decode(path.read_bytes())
        assert picture.size == (1792, 1024)
        assert picture.info["model"] == MODEL
        assert str(picture.info["parameters"]).endswith(", Size: 1792x1024")
    refused = aquiles.log.read_text(encoding="utf-8").count('generations HTTP/1.1" 422')
    assert refused == 1  # it is asked for a size that it has not once, and never again


async def test_an_address_at_which_nothing_answers_is_told_with_the_way_out(own: Machine) -> None:
    # The fields of OpenAI itself, which never asks for b64_json: this one gives an address then.
    async with connect(own.set(ARTA_LOCAL_DIALECT="openai")) as client:
        failed = await client.call_tool("generate_image", {"prompt": "a fox"})
    assert failed.is_error
    assert "says that the picture lies at http://0.0.0.0:5500/images/" in text_of(failed)
    assert "have it answer with b64_json" in text_of(failed)
    assert "Record id: " in text_of(failed)


async def test_a_wrong_key_names_the_setting_and_is_shown_nowhere(own: Machine) -> None:
    wrong = "sk-wrong-0123456789"
    machine = own.set(ARTA_LOCAL_KEY=wrong)
    async with connect(machine) as client:
        failed = await client.call_tool("generate_image", {"prompt": "a fox"})
    assert failed.is_error
    assert "answers 403: Invalid API key" in text_of(failed)
    assert "set ARTA_LOCAL_KEY" in text_of(failed)
    assert wrong not in text_of(failed) + machine.log


async def test_a_prompt_that_is_too_long_for_it_is_refused_in_its_words(own: Machine) -> None:
    async with connect(own) as client:
        failed = await client.call_tool("generate_image", {"prompt": "fox " * 400})
    assert failed.is_error
    assert "answers 422: prompt: String should have at most 1000 characters" in text_of(failed)


def test_the_doctor_and_setup_try_it(own: Machine, aquiles: Aquiles) -> None:
    said = own.run("doctor", "--json")
    assert said.returncode == 0, said.stdout
    findings = {one["name"]: one["detail"] for one in json.loads(said.stdout)["findings"]}
    assert findings["picture"].startswith("512x512 in ")
    assert "leaves out negative_prompt, guidance_scale" in findings["engine"]
    made = own.run("setup", "--run", "aquiles-image", "--url", aquiles.url, "--model", MODEL)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == [
        "ARTA_LOCAL_ENGINE=openai",
        f"ARTA_LOCAL_URL={aquiles.url}",
        f"ARTA_LOCAL_MODEL={MODEL}",
    ]
    assert KEY not in said.stdout + said.stderr + made.stdout + made.stderr

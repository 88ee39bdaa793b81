"""Documents say what the code does: tables, server.json, changelog, snippets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

import replicas
import write_clients
import write_documents
import write_performance
from arta_mcp import __version__
from arta_mcp.cli.setup import PROGRAMS
from arta_mcp.config import SETTINGS, Settings
from arta_mcp.generations.values import GenerationRequest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVER = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))


def test_the_settings_table_and_server_json_are_what_the_code_says() -> None:
    assert write_documents.readme(README) == README
    assert (ROOT / "server.json").read_text(encoding="utf-8") == write_documents.server_json()


def test_the_page_of_clients_is_what_the_last_run_and_the_data_file_say() -> None:
    page = write_clients.PAGE.read_text(encoding="utf-8")
    assert write_clients.clients_page(page) == page


def test_server_json_fits_the_registry_schema() -> None:
    path = ROOT / "tests" / "schemas" / "server.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    checker = jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker())
    errors = list(checker.iter_errors(SERVER))  # pyright: ignore[reportUnknownMemberType]  # its stub is partial
    assert errors == []


def test_server_json_names_this_version_every_setting_and_its_secrecy() -> None:
    package = SERVER["packages"][0]
    assert SERVER["version"] == package["version"] == __version__
    told = {entry["name"]: entry["isSecret"] for entry in package["environmentVariables"]}
    assert told == {setting.name: setting.secret for setting in SETTINGS}
    assert told["ARTA_API_KEY"] is True
    assert f"<!-- mcp-name: {SERVER['name']} -->" in README


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert next(heading for heading in headings if heading != "Unreleased") == __version__
    assert "Unreleased" not in headings[1:]


def test_the_readme_lists_every_argument_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", README.split("## Tools")[1], re.MULTILINE)
    told = dict(rows)
    for name, field in GenerationRequest.model_fields.items():
        if field.is_required():
            assert told[name] == "required"
        elif field.default is not None:
            assert told[name].strip("`") == str(field.default)


def test_the_snippet_for_a_host_is_the_one_of_the_page_of_hosts() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    hosts = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
    assert block in hosts.split("## Claude Desktop")[1].split("\n## ")[0]
    assert "claude mcp add arta -- /absolute/path/to/arta-mcp" in README


def test_the_first_screen_has_one_way_in_one_host_and_what_to_say() -> None:
    first_screen = "\n".join(README.splitlines()[:45])
    for sign in (
        *("no AI pictures", "docs/contact-sheet.webp", "uv tool install .", "arta-mcp generate"),
        *("mcpServers", "say: *Draw", "arta-mcp setup", "never run against the real service"),
    ):
        assert sign in first_screen
    assert first_screen.index("uv tool install .") < first_screen.index("uvx arta-mcp")


def test_links_inside_the_repository_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_no_document_or_code_names_a_registry_or_this_machine() -> None:
    hosts = ("pypi" + ".org", "npmjs" + ".org", "deb.debian" + ".org", "/work" + "/main")
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        known = path.suffix in {".py", ".md", ".json", ".toml", ".txt", ".mjs", ".html", ""}
        hidden = parts[0].startswith(".") and parts[0] != ".ci"
        if path.is_file() and known and not hidden and "node_modules" not in parts:
            found = path.read_text(encoding="utf-8", errors="replace")
            assert not [host for host in hosts if host in found], path


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def test_every_file_that_a_page_names_is_there() -> None:
    for page in PAGES:
        named = re.findall(
            r"`((?:[\w.-]+/)*\w+\.py|tests/[\w./-]+)`", page.read_text(encoding="utf-8")
        )
        for name in named:
            places = [ROOT, ROOT / "src" / "arta_mcp"]
            found = any((place / name).exists() for place in places)
            by_name = "/" not in name and any(
                next((ROOT / folder).rglob(name), None) for folder in ("src", "tests", "tools")
            )
            assert found or by_name, f"{page.name} names {name}"


def test_no_number_of_a_benchmark_is_older_than_its_run() -> None:
    measured: list[str] = []
    for page in write_performance.PAGES:
        document = page.read_text(encoding="utf-8")
        assert write_performance.render(document) == document
        measured += re.findall(r"<!-- results: (\w+) -->", document)
    benchmarks = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert sorted(measured) == sorted(benchmarks - {"bench_world", "bare_server", "run_all"})


def test_no_number_of_the_replicas_is_older_than_its_run() -> None:
    assert replicas.render(page := replicas.PAGE.read_text(encoding="utf-8")) == page


LOCAL = (ROOT / "docs" / "local.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```sh\n(ARTA_LOCAL_.*?)```", LOCAL, re.DOTALL))
def test_the_settings_on_the_page_of_engines_are_taken_as_they_stand(block: str) -> None:
    lines = [line.partition("=") for line in block.strip().splitlines()]
    environ = {name: value.replace("sk-...", "sk-0123456789") for name, _, value in lines}
    if environ.keys() == {"ARTA_LOCAL_STYLES"}:
        assert Settings.from_env(environ).local_styles is not None
    else:
        assert Settings.from_env(environ).draws_with_ai
        assert not Settings.from_env(environ).unknown


def test_the_page_of_engines_starts_each_program_that_setup_knows() -> None:
    for program in PROGRAMS:
        assert f"`{program.name}`" in LOCAL, program.name
        if program.url:
            assert f"ARTA_LOCAL_URL={program.url}\n" in LOCAL, program.name
    for name in re.findall(r"--run (\S+)", LOCAL):
        assert name in {program.name for program in PROGRAMS} or name.startswith("`"), name

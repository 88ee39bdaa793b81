"""`make dist`: what a release holds is whole, checked, and told to the registry as it is."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from arta_mcp import __version__
from harness.clients import ROOT, Need, node
from harness.roads import run

IMAGE = f"registry.example/arta-mcp:{__version__}"


@pytest.fixture(scope="module")
def release(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    node(need)
    folder = tmp_path_factory.mktemp("release")
    (folder / "of an older release.whl").touch()
    run(sys.executable, ROOT / "tools" / "build_dist.py", folder, "--container", IMAGE)
    return folder


def test_a_release_is_wheel_sdist_bundle_and_their_checksums(release: Path) -> None:
    names = {path.name for path in release.iterdir()}
    ours = {f"arta_mcp-{__version__}-py3-none-any.whl", f"arta_mcp-{__version__}.tar.gz"}
    assert names == {*ours, f"arta-mcp-{__version__}.mcpb", "server.json", "SHA256SUMS"}
    lines = (release / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {name: told for told, name in (line.split("  ") for line in lines)}
    assert sums.keys() == names - {"SHA256SUMS"}
    for name, told in sums.items():
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == told


def test_the_registry_is_told_of_the_bundle_and_the_container_that_exist(release: Path) -> None:
    server: dict[str, Any] = json.loads((release / "server.json").read_text(encoding="utf-8"))
    schema = ROOT / "tests" / "schemas" / "server.schema.json"
    checker = jsonschema.Draft7Validator(
        json.loads(schema.read_text(encoding="utf-8")), format_checker=jsonschema.FormatChecker()
    )
    assert list(checker.iter_errors(server)) == []  # pyright: ignore[reportUnknownMemberType]  # its stub is partial
    package, bundle, container = server["packages"]
    in_repository = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))
    assert in_repository["packages"] == [package]  # of the others none is made yet
    packed = (release / f"arta-mcp-{__version__}.mcpb").read_bytes()
    assert bundle["fileSha256"] == hashlib.sha256(packed).hexdigest()
    assert bundle["identifier"].endswith(f"/v{__version__}/arta-mcp-{__version__}.mcpb")
    assert container["identifier"] == IMAGE
    assert container["environmentVariables"] == package["environmentVariables"]

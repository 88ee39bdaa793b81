"""What a public forge will run: valid files that call targets which exist, and hooks that refuse.

No forge has run them; what can be shown without one is here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from arta_mcp import __version__
from harness.clients import ROOT
from harness.roads import BIN, run

FORGE = ROOT / ".github"
SCHEMAS = {
    "workflows/ci.yml": "vendor.github-workflows",
    "workflows/release.yml": "vendor.github-workflows",
    "dependabot.yml": "vendor.dependabot",
    "ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    "ISSUE_TEMPLATE/host.yml": "vendor.github-issue-forms",
    "ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
}


def test_every_file_of_the_forge_fits_its_schema() -> None:
    there = {str(path.relative_to(FORGE)) for path in FORGE.rglob("*.yml")} - {"zizmor.yml"}
    assert there == SCHEMAS.keys()
    for name, schema in SCHEMAS.items():
        run(BIN / "check-jsonschema", "--builtin-schema", schema, FORGE / name)


def test_the_workflows_give_no_job_more_than_it_needs() -> None:
    run(BIN / "zizmor", "--offline", "--no-progress", "--config", FORGE / "zizmor.yml", FORGE)


def read_commands(name: str) -> list[str]:
    """Every shell command of a workflow."""
    workflow: dict[str, Any] = yaml.safe_load((FORGE / "workflows" / name).read_text("utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return [step["run"] for step in steps if "run" in step]


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_the_workflows_call_the_targets_that_people_call(name: str) -> None:
    made = [line for line in read_commands(name) if line.startswith("make ")]
    assert made
    for command in made:
        run("sh", "-c", command.replace("make ", "make --dry-run ", 1), cwd=ROOT)
    assert name != "ci.yml" or "bash .ci/run" in read_commands(name)


def test_the_newest_dependencies_are_installed_without_a_pin() -> None:
    command = ("make", "--dry-run", "--always-make", ".venv/.tested")
    assert "--constraint constraints.txt" in run(*command, cwd=ROOT)
    newest = run(*command, "CONSTRAINTS=", cwd=ROOT)
    assert "--constraint" not in newest
    assert "pip install --quiet  --group dev" in newest


@pytest.mark.parametrize(("tag", "code"), [(f"v{__version__}", 0), ("v99.0.0", 1)])
def test_a_tag_that_is_not_the_version_releases_nothing(tag: str, code: int) -> None:
    (check,) = [line for line in read_commands("release.yml") if "__version__" in line]
    environ = {**os.environ, "GITHUB_REF_NAME": tag}
    assert (
        subprocess.run(["sh", "-c", check], cwd=ROOT, env=environ, check=False).returncode == code
    )


def test_the_hook_takes_the_checkout_and_refuses_a_file_that_lint_does(
    checkout: Path, tmp_path: Path
) -> None:
    clone = shutil.copytree(checkout, tmp_path / "clone", ignore=shutil.ignore_patterns(".venv"))
    (clone / ".venv").symlink_to(ROOT / ".venv")
    git = ("git", "-c", "init.defaultBranch=main")
    run(*git, "init", "--quiet", cwd=clone)
    run(*git, "add", "--all", cwd=clone)
    # The environment is there: nothing is installed, whatever the times of the files are.
    hook = (BIN / "pre-commit", "run", "--all-files")
    environ = {"MAKEFLAGS": "--old-file=.venv/.tested", "PRE_COMMIT_HOME": str(tmp_path / "hooks")}
    assert re.search(r"make check-fast\)\.+Passed", run(*hook, cwd=clone, environ=environ))
    with (clone / "src" / "arta_mcp" / "cli" / "tables.py").open("a", encoding="utf-8") as file:
        file.write("import os\n")
    refused = subprocess.run(
        hook, cwd=clone, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert re.search(r"make check-fast\)\.+Failed", refused.stdout)

"""Builds the MCP bundle (.mcpb) of a wheel, with the official tool: `make bundle`.

The bundle is the wheel, a project that needs it, and a manifest whose settings are the code's.
Its host (Claude Desktop) starts it through uv, which brings Python and what we depend on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

from PIL import Image, ImageDraw

from arta_mcp import __version__
from arta_mcp.config import SETTINGS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NPM_FOLDER = ROOT / ".cache" / "mcpb"

ASKED = {
    "ARTA_API_KEY": "Key of the remote service",
    "ARTA_LOCAL_ENGINE": "What draws without that key",
    "ARTA_LOCAL_URL": "Address of your own server",
    "ARTA_LOCAL_KEY": "Key of your own server",
    "ARTA_LOCAL_MODEL": "Model of your own server",
    "ARTA_HOURLY_LIMIT": "Pictures in an hour at most",
    "ARTA_OUTPUT_DIR": "Folder for pictures",
}
"""setting -> its title in the host's dialog; the others keep their defaults"""

LONG = """\
Draws pictures from text in three tools, with progress, and orders no picture twice.

Without any setting it draws **sketches by rules, no AI pictures**, on this machine and offline.
AI pictures come from an engine of your own, which you name below.
The remote service is optional: this is an unofficial client of it, no key is shipped, it was never
tried against the real service, and you answer for having the right to use it.

**Privacy.** Nothing leaves this machine unless you set a key or an address. With them, prompts go
to that server and nowhere else. Prompts and pictures are kept in your user folder until you
remove them. There is no telemetry.
"""

TOOLS = {
    "generate_image": "Draws 1 to 8 pictures of a prompt",
    "get_generation": "Tells where an earlier generation stands, and its pictures",
    "list_models": "Lists the models (styles) that can be drawn with",
}


def write_manifest() -> dict[str, object]:
    """The manifest of this version, with nothing in it that the code says otherwise."""
    site = PROJECT["urls"]["Documentation"]
    return {
        "manifest_version": "0.4",
        "name": "arta-mcp",
        "display_name": "ARTA image generation",
        "version": __version__,
        "description": PROJECT["description"],
        "long_description": LONG,
        "author": {"name": PROJECT["authors"][0]["name"], "url": PROJECT["urls"]["Homepage"]},
        "repository": {"type": "git", "url": PROJECT["urls"]["Source"]},
        "homepage": site,
        "documentation": f"{site}hosts/",
        "support": PROJECT["urls"]["Issues"],
        "icon": "icon.png",
        "server": {
            "type": "uv",
            "entry_point": "server.py",
            "mcp_config": {
                "command": "uv",
                "args": ["run", "--quiet", "--directory", "${__dirname}", "arta-mcp"],
                "env": {name: f"${{user_config.{_field(name)}}}" for name in ASKED},
            },
        },
        "tools": [{"name": name, "description": text} for name, text in TOOLS.items()],
        "prompts_generated": True,
        "keywords": PROJECT["keywords"],
        "license": PROJECT["license"],
        "privacy_policies": [f"{site}security/#what-leaves-this-machine"],
        "compatibility": {"runtimes": {"python": PROJECT["requires-python"]}},
        "user_config": {_field(name): _option(name, title) for name, title in ASKED.items()},
    }


def _field(name: str) -> str:
    return name.removeprefix("ARTA_").lower()


def _option(name: str, title: str) -> dict[str, object]:
    (setting,) = (setting for setting in SETTINGS if setting.name == name)
    return {
        "type": "directory" if name.endswith("_DIR") else "string",
        "title": title,
        "description": setting.description.replace("`", ""),
        "required": False,
        "sensitive": setting.secret,
        # Without one, a host hands over the literal `${user_config.…}` of what is left empty.
        "default": setting.default,
    }


def write_project(wheel: str) -> str:
    """The project that uv makes an environment of: our wheel, which lies beside it."""
    return f"""\
[project]
name = "arta-mcp-bundle"
version = "{__version__}"
requires-python = "{PROJECT["requires-python"]}"
dependencies = ["arta-mcp"]

[tool.uv]
package = false

[tool.uv.sources]
arta-mcp = {{ path = "{wheel}" }}
"""


ENTRY_POINT = '''\
"""For hosts that start the entry point themselves instead of the command of the manifest."""

import sys

from arta_mcp.cli import main

sys.exit(main())
'''


def draw_icon(path: Path) -> None:
    """The server's own icon (`server/build.py`) as what hosts take: a PNG of 512 px."""
    unit = 256  # drawn four times as large, for smooth edges
    picture = Image.new("RGB", (8 * unit, 8 * unit), "#224455")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((5 * unit, 1 * unit, 7 * unit, 3 * unit), fill="gold")
    hills = ((1, 7), (3, 3), (5, 6), (6, 5), (7, 7))
    draw.polygon([(x * unit, y * unit) for x, y in hills], fill="coral")
    picture.resize((512, 512), Image.Resampling.LANCZOS).save(path, optimize=True)


def install_mcpb() -> Path:
    """The official tool, as pinned in packaging/package.json."""
    pins = ROOT / "packaging" / "package.json"
    program = NPM_FOLDER / "node_modules" / ".bin" / "mcpb"
    NPM_FOLDER.mkdir(parents=True, exist_ok=True)
    there = NPM_FOLDER / "package.json"
    if not program.exists() or there.read_bytes() != pins.read_bytes():
        shutil.copy(pins, there)
        flags = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(["npm", "install", "--loglevel=error", *flags], cwd=NPM_FOLDER, check=True)
    return program


def build(wheel: Path, out: Path) -> Path:
    """Validates and packs the bundle of this wheel; `subprocess` raises what the tool refuses."""
    bundle = out / f"arta-mcp-{__version__}.mcpb"
    mcpb = install_mcpb()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(wheel, folder)
        shutil.copy(ROOT / "LICENSE", folder)
        draw_icon(folder / "icon.png")
        texts = {
            "manifest.json": json.dumps(write_manifest(), indent=2, ensure_ascii=False) + "\n",
            "pyproject.toml": write_project(wheel.name),
            "server.py": ENTRY_POINT,
        }
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        subprocess.run([mcpb, "validate", folder / "manifest.json"], check=True)
        subprocess.run([mcpb, "pack", folder, bundle], check=True, stdout=subprocess.DEVNULL)
    return bundle


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    print(build(options.wheel, options.out))

"""A foreign client that asks a server of ours for one picture, and what each side saw of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.clients import INTEROP
from harness.installed import Machine, remote_settings, run_service

TIMEOUT = 180
"""seconds; CrewAI's import alone takes 20 on a busy machine"""

NO_WAY_OUT = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
    "OTEL_SDK_DISABLED": "true",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "MCP_USE_ANONYMIZED_TELEMETRY": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "AGNO_TELEMETRY": "false",
}
"""foreign programs reach loopback only"""


@dataclass(frozen=True)
class Heard:
    """A line that a server of ours got, or the end of its stream (`message` None)."""

    process: int
    at: float
    message: Any

    @property
    def method(self) -> str:
        return "" if self.message is None else self.message.get("method", "")


@dataclass(frozen=True)
class Run:
    """What came of one request: `calls` as the model saw them, `jobs` at the service."""

    tools: list[dict[str, Any]]
    calls: list[dict[str, Any]]
    jobs: int
    heard: list[Heard]

    @property
    def answer(self) -> str:
        """What the model read last."""
        return self.calls[-1]["result"]

    @cached_property
    def orders(self) -> list[Heard]:
        """The calls of `generate_image` on the wire."""
        return [
            one
            for one in self.heard
            if one.method == "tools/call" and one.message["params"]["name"] == "generate_image"
        ]

    @property
    def protocol(self) -> str:
        """The revision that the client speaks when it calls."""
        params = self.orders[0].message["params"]
        modern = params.get("_meta", {}).get("io.modelcontextprotocol/protocolVersion")
        return modern or self._hello["protocolVersion"]

    @property
    def introduced_as(self) -> str:
        """The client's own name for itself."""
        params = self.orders[0].message["params"]
        modern = params.get("_meta", {}).get("io.modelcontextprotocol/clientInfo")
        return (modern or self._hello["clientInfo"])["name"]

    @property
    def cuts(self) -> list[tuple[float, str]]:
        """After how many seconds each call was given up, and how that showed on the wire."""
        found: list[tuple[float, str]] = []
        for call, following in pairwise(self.orders):
            for one in self.heard:
                if one.process != call.process or one.at <= call.at:
                    continue
                if one.method == "notifications/cancelled":
                    how = f"cancelled: `{one.message['params'].get('reason')}`"
                elif one.message is None:
                    how = "the process is ended"
                elif one is following:
                    how = "silence: the call is repeated"
                else:
                    continue
                found.append((one.at - call.at, how))
                break
        return found

    @property
    def _hello(self) -> dict[str, Any]:
        process = self.orders[0].process
        return next(
            one.message["params"]
            for one in self.heard
            if one.process == process and one.method == "initialize"
        )


def ask_for_picture(command: list[str], folder: Path, *, draw: float, **settings: str) -> Run:
    """Runs a client whose model wants one picture, of a service that draws it in `draw` seconds."""
    log, program = folder / "heard.jsonl", folder / "arta-mcp"
    tap = f'exec "{sys.executable}" "{INTEROP / "tapped.py"}" "{log}" "$@"'
    program.write_text(f"#!/bin/sh\n{tap}\n", encoding="utf-8")
    program.chmod(0o755)
    with run_service(folder / "service", draw=draw) as running:
        machine = Machine.new(folder / "machine", program=program)
        machine = machine.set(**remote_settings(running), **settings)
        told = run_client(command, machine, machine.environ)
        jobs = len(running.service.jobs)
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    heard = [
        Heard(one["process"], one["at"], one["line"] and json.loads(one["line"])) for one in entries
    ]
    return Run(told["tools"], told["calls"], jobs, heard)


def run_client(command: list[str], machine: Machine, environ: dict[str, str] | None) -> Any:
    """What a client's model saw, which started our server on the machine with this environment.

    None leaves that to the client, as its quick start does.
    """
    server = {"command": str(machine.program), "env": environ, "cwd": str(machine.elsewhere)}
    ended = subprocess.run(
        [*command, json.dumps(server)],
        env={"PATH": os.environ["PATH"], "HOME": str(machine.home), **NO_WAY_OUT},
        cwd=machine.elsewhere,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])  # some print beside it

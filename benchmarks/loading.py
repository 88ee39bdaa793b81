"""What it saves to build the SDK's models at their first use: CPU and memory of a server's start.

`python benchmarks/loading.py [--quick]`. Alternating processes import the SDK, build our server and
answer `initialize` and `list_models` on a wire in memory; CPU counts from before the import of
pydantic and the SDK. *At once* is how a plain import does it, *at first use* what
`server/loading.py` does by a public setting of pydantic. *Adapters too* is what more there would
be, by a private attribute. Memory is the most that a process had.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib import import_module
from importlib.metadata import version

VARIANTS = ("at once", "at first use", "adapters too")
METRICS = ("CPU of the import", "CPU until the answer", "memory")


class Lines:
    """A wire with these messages, which ends when request 2 is answered."""

    read_at = 0.0

    def __init__(self, *messages: dict[str, object]) -> None:
        self._lines = [json.dumps({"jsonrpc": "2.0", **one}) + "\n" for one in messages]
        self._is_answered = threading.Event()
        self.answer: dict[str, dict[str, dict[str, str]]] = {}

    def readline(self) -> str:
        if self._lines:
            return self._lines.pop(0)
        self._is_answered.wait(30)
        return ""

    def write(self, text: str, /) -> None:
        if (message := json.loads(text)).get("id") == 2:
            self.answer = message
            self._is_answered.set()


def serve_once(variant: str) -> list[float]:
    """What one process has spent, for each of `METRICS`: milliseconds twice, then megabytes."""
    gc.disable()  # as the command line does it
    began = time.process_time()
    import anyio
    from pydantic import TypeAdapter

    from arta_mcp.server import loading

    if variant == "at once":
        import_module("mcp.server.mcpserver")
        import_module("mcp.server.apps")
    else:
        if variant == "adapters too":
            TypeAdapter._defer_build = property(lambda _: True)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]  # pydantic's own
        loading.load_sdk()
    imported = time.process_time()

    from arta_mcp.app import open_generations
    from arta_mcp.config import Settings
    from arta_mcp.server.build import build_server
    from arta_mcp.server.tools import ResultExtras
    from arta_mcp.server.wire import serve_connection

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.from_env({"ARTA_BACKEND": "local", "ARTA_STATE_DIR": folder})
        generations = open_generations(settings)
        server = build_server(generations, ResultExtras(), drawn_by=settings.drawn_by)
        client = {"name": "loading", "version": "1"}
        opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        wire = Lines(
            {"id": 1, "method": "initialize", "params": opening},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/call", "params": {"name": "list_models", "arguments": {}}},
        )
        anyio.run(serve_connection, server, wire)
    assert wire.answer["result"]["structuredContent"]["backend"] == "local"
    spent = [(at - began) * 1000 for at in (imported, time.process_time())]
    return [*spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000]


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] == "--child":
        print(json.dumps(serve_once(sys.argv[2])))
        return 0
    from bench_world import Report, spread  # late: it imports what is measured

    quick = "--quick" in sys.argv
    warm, rounds = 1, 3 if quick else 13
    seen: dict[str, list[list[float]]] = {variant: [] for variant in VARIANTS}
    for number in range(warm + rounds):
        for variant in VARIANTS:
            command = [sys.executable, __file__, "--child", variant]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            if number >= warm:
                seen[variant].append(json.loads(done.stdout))
    ratios = {
        variant: [
            [mine[i] / base[i] for mine, base in zip(every, seen["at once"], strict=True)]
            for i in range(len(METRICS))
        ]
        for variant, every in seen.items()
    }
    size = [statistics.median(one[i] for one in seen["at once"]) for i in range(len(METRICS))]
    report = Report("loading")
    report.table(
        f"{rounds} alternating processes each, mcp {version('mcp')}, pydantic"
        f" {version('pydantic')}; to models that are built at once (1.00 is {size[0]:.0f} ms,"
        f" {size[1]:.0f} ms and {size[2]:.0f} MB)",
        ["models of the SDK", *METRICS],
        [[variant, *(spread(values) for values in found)] for variant, found in ratios.items()],
    )
    found = statistics.median(ratios["at first use"][1])
    report.budget("CPU until the answer, to models built at once", found, 1.0)
    return report.end(quick=quick, ratios=ratios)


if __name__ == "__main__":
    raise SystemExit(main())

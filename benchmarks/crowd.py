"""200 sketches at once over MCP on stdio, on one core: who is refused, and how long all is silent.

`python benchmarks/crowd.py [--quick]`. One server with the embedded service in it, as a host starts
it, bound to one core with everything that it starts; this host runs on the others. All calls are
sent at once, each with a progress token, and meanwhile a `ping` every 0.2 s. A progress gap is the
time between two of a call's reports, or from the call to its first or from its last to its answer.
For Linux, which can bind a process to a core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from bench_world import Report, quantile

SERVER = [str(Path(sys.executable).parent / "arta-mcp")]
PING_EVERY = 0.2
LONGEST = 240.0
"""seconds after which the server is ended, whatever it still owes"""


class Host:
    """Writes calls, and takes the time of everything that comes back."""

    def __init__(self, state: str) -> None:
        environ = {name: v for name, v in os.environ.items() if not name.startswith("ARTA_")}
        environ |= {"ARTA_BACKEND": "local", "ARTA_STATE_DIR": state}
        self.process = subprocess.Popen(
            SERVER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        )
        self._lock = threading.Lock()
        self.last: dict[str, float] = {}
        self.gaps: list[float] = []
        self.pings: list[float] = []
        self._ping_at = 0.0
        self.ended = Counter[str]()

    def say(self, method: str, params: dict[str, object] | None = None, **more: object) -> None:
        line = {"jsonrpc": "2.0", "method": method, "params": params or {}, **more}
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()

    def hear(self) -> str | None:
        """Notes one message; the id of what it answers."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        now = time.perf_counter()
        if not line:
            raise SystemExit("the server ended")
        message = json.loads(line)
        answered = message.get("id") if "method" not in message else None
        token = message.get("params", {}).get("progressToken", answered)
        if token in self.last:
            self.gaps.append(now - self.last[token])
            self.last[token] = now
        if answered == "ping":
            self.pings.append(now - self._ping_at)
        elif answered in self.last:
            result = message.get("result", {})
            content = result.get("structuredContent") or {}
            refused = result.get("isError") or "error" in message
            self.ended["refused" if refused else str(content.get("status"))] += 1
        return answered

    def ask(self, method: str, params: dict[str, object] | None = None) -> None:
        self.say(method, params, id=method)
        while self.hear() != method:
            pass

    def ping_until(self, over: threading.Event) -> None:
        while not over.wait(PING_EVERY):
            if len(self.pings) == self.sent:  # one at a time
                self.sent += 1
                self._ping_at = time.perf_counter()
                self.say("ping", id="ping")

    sent = 0


def run(count: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as state:
        host = Host(state)
        watchdog = threading.Timer(LONGEST, host.process.kill)
        watchdog.start()
        try:
            client = {"name": "crowd", "version": "1"}
            opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
            host.ask("initialize", opening)
            host.say("notifications/initialized")
            host.ask("tools/list")
            host.ask("resources/read", {"uri": "arta://generations"})  # opens everything
            over = threading.Event()
            pinger = threading.Thread(target=host.ping_until, args=(over,))
            began = time.perf_counter()
            pinger.start()
            for number in range(count):
                host.last[str(number)] = time.perf_counter()
                arguments = {"prompt": f"a red fox in snow {number}"}
                meta = {"progressToken": str(number)}
                params = {"name": "generate_image", "arguments": arguments, "_meta": meta}
                host.say("tools/call", params, id=str(number))
            while host.ended.total() < count:
                host.hear()
            seconds = time.perf_counter() - began
            over.set()
            pinger.join()
        finally:
            watchdog.cancel()
            host.process.kill()
            host.process.wait(10)
    return {
        "seconds": seconds,
        "ended": dict(host.ended),
        "gaps": [max(host.gaps), quantile(host.gaps, 0.99)],
        "pings": [max(host.pings), quantile(host.pings, 0.99), quantile(host.pings, 0.5)],
    }


def main() -> int:
    quick = "--quick" in sys.argv
    report, rows = Report("crowd"), list[list[str]]()
    results: dict[str, object] = {}
    for count in (60,) if quick else (24, 200):
        found = results[str(count)] = run(count)
        ended, gaps, pings = found["ended"], found["gaps"], found["pings"]
        assert isinstance(ended, dict)
        assert isinstance(gaps, list)
        assert isinstance(pings, list)
        told = ", ".join(f"{number} {status}" for status, number in sorted(ended.items()))
        rows.append(
            [
                str(count),
                f"{found['seconds']:.1f}",
                told,
                f"{gaps[0]:.2f}, {gaps[1]:.2f}",
                ", ".join(f"{ping * 1000:.0f}" for ping in pings),
            ]
        )
        report.budget(f"{count} at once: refused", ended.get("refused", 0), 0.0)
        report.budget(f"{count} at once: longest progress gap, s", gaps[0], 3.0)
        report.budget(f"{count} at once: longest ping, s", pings[0], 0.5)
    head = [
        "at once",
        "seconds",
        "ended as",
        "progress gap s: most, p99",
        "ping ms: most, p99, p50",
    ]
    report.table("Sketches over MCP on stdio, the server on one core", head, rows)
    return report.end(quick=quick, results=results)


if __name__ == "__main__":
    raise SystemExit(main())

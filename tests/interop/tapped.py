"""The program of ours in one process with a tap on what comes in: `tapped.py LOG [arguments]`.

Each line from the host is written down as `{"process", "at", "line"}` (at: seconds since the
epoch), the end of its stream as `line: null`. A process of its own beside ours would change what
a host that kills or closes it does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path


def main() -> int:
    log = Path(sys.argv.pop(1))
    host = os.dup(0)
    ours, tapped = os.pipe()
    os.dup2(ours, 0)
    os.close(ours)
    threading.Thread(target=copy_lines, args=(host, tapped, log), daemon=True).start()
    from arta_mcp.cli import main as run

    return run()


def copy_lines(host: int, tapped: int, log: Path) -> None:
    """Passes everything on at once and writes the lines down."""
    rest = b""
    with log.open("a", encoding="utf-8", buffering=1) as file:
        while content := os.read(host, 65536):
            os.write(tapped, content)
            *lines, rest = (rest + content).split(b"\n")
            for line in lines:
                file.write(_entry(line.decode("utf-8", "replace")))
        file.write(_entry(None))
    os.close(tapped)


def _entry(line: str | None) -> str:
    return json.dumps({"process": os.getpid(), "at": time.time(), "line": line}) + "\n"


if __name__ == "__main__":
    sys.exit(main())

"""The container's health check: /healthz of a server on HTTP; on stdio its host sees to it."""

import os
import sys
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

if b"--http" in Path("/proc/1/cmdline").read_bytes().split(b"\0"):
    port = os.environ.get("ARTA_HTTP_PORT") or "8000"
    address = f"http://127.0.0.1:{port}/healthz"
    try:
        with build_opener(ProxyHandler({})).open(address, timeout=4):
            pass
    except OSError as exc:
        sys.exit(f"{address}: {exc}")

"""python -m arta_mcp."""

import sys

# `python -m` puts the current folder before the library, and a host may start us in any: a
# `json.py` there must not be run. (What install writes has -P, which does it earlier still.)
if not sys.flags.safe_path:
    del sys.path[0]

from arta_mcp.cli import main

raise SystemExit(main())

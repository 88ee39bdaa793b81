"""python -m arta_mcp."""

import os
import sys

# `-m` puts the current folder before Python's own modules, and a host starts us in any: a `json.py`
# there would be run. `-P` does the same for `arta_mcp.py`, which nothing in here can prevent.
if not sys.flags.safe_path and os.path.dirname(os.path.dirname(__file__)) != sys.path[0]:  # noqa: PTH120  # pathlib is not loaded, and could be a file there
    del sys.path[0]

from arta_mcp.cli import main

raise SystemExit(main())

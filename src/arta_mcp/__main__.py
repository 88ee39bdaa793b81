"""python -m arta_mcp."""

from arta_mcp.cli import main

raise SystemExit(main())

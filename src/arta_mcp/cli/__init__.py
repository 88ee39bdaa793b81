"""The command line. Only `main` stands here: no command loads before its turn."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0 ok, 1 failed, 2 usage, 3 pending."""
    from arta_mcp.cli.interrupts import ExitAtInterrupt

    with ExitAtInterrupt():
        from arta_mcp.cli.entry import main as run

        return run(argv)

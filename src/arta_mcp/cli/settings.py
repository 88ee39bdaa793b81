"""The settings of a command, and the log that they ask for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from arta_mcp.cli.console import print_message
from arta_mcp.config import SETTINGS, Settings
from arta_mcp.redaction import redact


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings; sets up logging, warns of variables that mean nothing. Raises ConfigError."""
    settings = Settings.from_env(environ)
    set_up_log(settings.log_level)
    if settings.local_styles is not None:  # a mistake in it is told at the start
        from arta_mcp.engines.recipes import Recipes

        Recipes.load(settings.local_styles)
    if settings.draws_with_ai and settings.local_engine == "diffusers":
        from arta_mcp.engines.worker import check_start

        check_start(settings.local_model or "")
    if settings.unused:
        print_message(f"warning: {settings.unused}")
    for name in settings.unknown:
        from arta_mcp.matching import suggest

        meant = suggest(name, [setting.name for setting in SETTINGS], limit=1)
        did_you_mean = f"; did you mean {meant[0]}?" if meant else ""
        print_message(f"warning: {name} means nothing here{did_you_mean}")
    return settings


def set_up_log(level: str) -> None:
    """Sends the log to stderr: stdout belongs to the protocol, or to data."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class RedactingFormatter(logging.Formatter):
    """Removes secrets from whole lines, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The line as it may be read by anybody."""
        return redact(super().format(record))

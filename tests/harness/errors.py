"""One error of every class of ours, for tests that walk an edge."""

from __future__ import annotations

from arta_mcp.errors import ArtaError

WORDS = "it went wrong. Hint: do this. Record id: r1"
"""what `explain` makes of each of them"""


def every_error() -> list[ArtaError]:
    """An ArtaError and one of each class below it, wherever it is defined."""
    return [_error(kind) for kind in _kinds(ArtaError)]


def _kinds(kind: type[ArtaError]) -> list[type[ArtaError]]:
    return [kind, *(below for sub in kind.__subclasses__() for below in _kinds(sub))]


def _error(kind: type[ArtaError]) -> ArtaError:
    error = kind.__new__(kind)  # the classes take this and that; here they all say the same
    ArtaError.__init__(error, "it went wrong", hint="do this", record_id="r1")
    return error

"""Draws pictures through the ARTA text-to-image API, as an MCP server, a library and a command."""

# No import at the top: with `python -m arta_mcp` the current folder goes before Python's own
# modules until `__main__` has taken it away, and a `typing.py` there would be run.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from arta_mcp.app import open_generations
    from arta_mcp.config import Settings
    from arta_mcp.errors import ArtaError
    from arta_mcp.generations.service import Generations
    from arta_mcp.generations.values import GeneratedImage, Generation, GenerationRequest, Update

__version__ = "0.1.0"

__all__ = [
    "ArtaError",
    "GeneratedImage",
    "Generation",
    "GenerationRequest",
    "Generations",
    "Settings",
    "Update",
    "open_generations",
]

_HOMES = {
    "ArtaError": "errors",
    "GeneratedImage": "generations.values",
    "Generation": "generations.values",
    "GenerationRequest": "generations.values",
    "Generations": "generations.service",
    "Settings": "config",
    "Update": "generations.values",
    "open_generations": "app",
}


def __getattr__(name: str) -> object:
    """The public names load on first use (PEP 562): a server replies before it needs them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

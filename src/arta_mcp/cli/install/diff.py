"""Shows a change of a configuration file without showing what else the file holds.

Who reads it may be an assistant that ran the command: other servers' keys are none of its
business. No I/O happens here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import unified_diff

from arta_mcp.cli.install import jsonc
from arta_mcp.cli.install import jsonc_edit as splice

LONGEST_LINE = 400
"""characters; a file with longer lines is shown as if it were indented"""

CONTEXT = 3
"""lines round a change"""


def difference(
    before: str,
    after: str,
    path: str,
    entry: Sequence[str],
    public: Collection[str],
    is_ours: Callable[[object], bool],
) -> list[str]:
    """A unified diff in which only our entry's texts are legible.

    `entry` leads to it; of its `env`, only values of `public` variables and references are shown.
    """
    old, new = (_veil(text, entry, public, is_ours) for text in (before, after))
    if max(map(len, (*old.splitlines(), *new.splitlines())), default=0) > LONGEST_LINE:
        old, new = _indented(old), _indented(new)
    lines = unified_diff(old.splitlines(), new.splitlines(), path, path, lineterm="", n=CONTEXT)
    shown = [_printable(line) for line in lines]
    return shown or [f"{path}: a value changes that is not shown here"]


def _veil(
    text: str, path: Sequence[str], public: Collection[str], is_ours: Callable[[object], bool]
) -> str:
    document = jsonc.parse(text)
    node = document.at(path)
    kept = [(node.start, node.end)] if node and is_ours(node.data()) else []
    inputs = document.at(("inputs",))
    kept += [
        (item.start, item.end)
        for item in (inputs.children if inputs else ())
        if (named := item.value.named("id")) and f'"{path[-1]}-' in named.value.token
    ]
    env = document.at((*path, "env"))
    hidden = [
        (value.start, value.end)
        for child in (env.children if env else ())
        for value in _texts(child.value)
        if child.key not in public and "${" not in value.token
    ]
    return splice.veiled(text, kept, hidden)


def _texts(node: jsonc.Node) -> Iterator[jsonc.Node]:
    if node.token.startswith('"'):
        yield node
    for child in node.children:
        yield from _texts(child.value)


def _indented(text: str) -> str:
    root = jsonc.parse(text).root
    return json.dumps(root.data(), indent=2, ensure_ascii=False) if root else ""


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in line)

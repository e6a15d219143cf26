"""Makes Markdown of the docstrings for the site: numpydoc sections become lists.

A docstring here describes each parameter after a colon, shape and dtype first, where numpydoc has a
type there and the description below it. The types are in the signature.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.M)
_ITEM = re.compile(r"^(\S[^:\n]*?) : (.*(?:\n[ ]{2,}.*)*)", re.M)
_CODE = re.compile(r"(``.+?``|`[^`]+`)", re.S)


class NumpydocAsMarkdown(griffe.Extension):
    """Rewrites the docstring of every object that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite it, if there is one."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """The docstring as Markdown."""
    text = inspect.cleandoc(text)
    head, *rest = _SECTION.split(text)
    parts = [_prose(head)]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        parts += [f"**{title}**", _items(body)]
    return "\n\n".join(parts)


def _items(body: str) -> str:
    """A section as a list of its items; text that is not an item stays prose."""
    lines, at = [], 0
    for match in _ITEM.finditer(body):
        lines += [_prose(body[at : match.start()])]
        names = ", ".join(f"`{name.strip()}`" for name in match[1].split(","))
        lines.append(f"- {names}: {_escaped(' '.join(match[2].split()))}")
        at = match.end()
    lines.append(_prose(body[at:]))
    return "\n".join(line for line in lines if line)


def _prose(text: str) -> str:
    """Text outside sections: tables stay as they are, in monospace; items become a list."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if block.startswith("==="):
            blocks.append("```\n" + block + "\n```")
        elif _ITEM.match(block) and not block.startswith(" "):
            blocks.append(_items(block))
        else:
            blocks.append(_escaped(block))
    return "\n" + "\n\n".join(block for block in blocks if block.strip()) + "\n"


def _escaped(text: str) -> str:
    """Escape what Markdown would read as emphasis, links or tags, outside code."""
    parts = _CODE.split(text)
    for at in range(0, len(parts), 2):
        text = re.sub(r"([*_\[\]])", r"\\\1", parts[at])
        parts[at] = text.replace("<", "&lt;").replace(">", "&gt;")
    return "".join(parts)

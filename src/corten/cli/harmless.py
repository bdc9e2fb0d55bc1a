"""Words of images, registries and containers on their way to a terminal, which must not take them as orders."""

from __future__ import annotations


def harmless(text: str, kept: str = "\n\t") -> str:
    """`text` with its control characters written out ("\\x1b"), save those in `kept`: lines and columns."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)

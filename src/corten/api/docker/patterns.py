"""Go's path.Match, as filters use it."""

from __future__ import annotations

import re
from functools import lru_cache

from corten.errors import InvalidArgument, clip


@lru_cache(maxsize=256)
def path_pattern(text: str) -> re.Pattern[str]:
    """A pattern in which a star and a question mark stay within one part of a path.

    Raises InvalidArgument for one that is malformed, in Go's words.
    """
    out, at = "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            part, at = _set(text, at)
            out += part
        else:
            if char == "\\":
                char, at = _one(text, at - 1)
            out += re.escape(char)
    return re.compile(out, re.DOTALL)


def _set(text: str, at: int) -> tuple[str, int]:
    """A set in brackets, the first of which was read: its regular expression, and where it ends."""
    negated = text[at : at + 1] == "^"
    at += negated
    members: list[tuple[str, str]] = []
    while text[at : at + 1] != "]" or not members:
        low, at = _member(text, at)
        high = low
        if text[at : at + 1] == "-":
            high, at = _member(text, at + 1)
        members.append((low, high))
    # A range that is upside down matches nothing.
    ranges = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in members if low <= high)
    if not ranges:
        return (r"[\s\S]" if negated else r"(?!)"), at + 1
    return f"[{'^' if negated else ''}{ranges}]", at + 1


def _member(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] in ("", "-", "]"):
        raise _malformed(text)
    return _one(text, at)


def _one(text: str, at: int) -> tuple[str, int]:
    """The character at `at`, or the one behind a backslash there."""
    at += text[at] == "\\"
    if at >= len(text):
        raise _malformed(text)
    return text[at], at + 1


def _malformed(text: str) -> InvalidArgument:
    return InvalidArgument(f"invalid filter 'reference={clip(text, 200)}': syntax error in pattern")

"""Detach keys in Docker's notation: "ctrl-p,ctrl-q", "a,ctrl-@", "ctrl-\\\\,d"."""

from __future__ import annotations

from corten.errors import InvalidArgument, clip

DEFAULT = "ctrl-p,ctrl-q"

_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31} | {chr(97 + n): n + 1 for n in range(26)}


def parse(keys: str) -> bytes:
    """The bytes that detach a client; "" stands for the default.

    Raises InvalidArgument for a key that is neither one character nor `ctrl-` and one of a-z @ [ \\ ] ^ _.
    """
    return bytes(_key(word) for word in (keys or DEFAULT).split(","))


def _key(word: str) -> int:
    if len(word) == 1 and ord(word) < 128:
        return ord(word)
    if word.startswith("ctrl-") and (code := _CONTROL.get(word[5:].lower())) is not None:
        return code
    raise InvalidArgument(f"Invalid detach keys provided: Unknown character: '{clip(word, 40)}'")

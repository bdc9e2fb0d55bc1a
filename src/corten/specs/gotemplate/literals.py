"""Go's quoted strings and character constants."""

from __future__ import annotations

import re

_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "'": "'", '"': '"'}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)


def unquote(text: str) -> str | None:
    """The value of a string in double quotes; None when an escape is not Go's. `\\xff` is a byte, of UTF-8 or not."""
    out = bytearray()
    at, body = 0, text[1:-1]
    for match in _ESCAPE.finditer(body):
        out += body[at : match.start()].encode("utf-8", "surrogateescape")
        at = match.end()
        piece = _escape(match)
        if piece is None:
            return None
        out += piece
    out += body[at:].encode("utf-8", "surrogateescape")
    return out.decode("utf-8", "surrogateescape")


def _escape(match: re.Match[str]) -> bytes | None:
    hexadecimal, short, long, octal, simple = match.groups()
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if octal:
        value = int(octal, 8)
        return bytes([value]) if value < 256 else None
    if short or long:
        code = int(short or long, 16)
        return None if code > 0x10FFFF or 0xD800 <= code < 0xE000 else chr(code).encode()
    return _SIMPLE[simple].encode() if simple in _SIMPLE else None


def unquote_char(text: str) -> int | None:
    """The code point of a character in single quotes."""
    value = unquote(text)
    return ord(value) if value is not None and len(value) == 1 else None


def quote(text: str) -> str:
    """`text` as Go's %q prints it."""
    return '"' + "".join(_quoted(character) for character in text) + '"'


def _quoted(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    for name, value in _SIMPLE.items():
        if value == character and name not in "'\"\\":
            return "\\" + name
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

"""The json-file driver's format, byte for byte what Docker's readers expect.

One object a line: `{"log":"text\\n","stream":"stdout","time":"2006-01-02T15:04:05.123456789Z"}`. A piece of a line
that is longer than 16 KiB, and a last line without newline, have no `\\n` at the end of "log".

Runs in the shim. Speed comes from never looking at single lines: a chunk that holds nothing to escape becomes its
records with one `bytes.replace`. What must be escaped is found by one `bytes.translate`.
"""

from __future__ import annotations

import os
from _json import encode_basestring  # the json package itself is too costly to import here

from corten.logs.files import RotatingFile
from corten.logs.stamps import format_ns

PREFIX = b'{"log":"'
STREAMS = {1: b"stdout", 2: b"stderr"}

# As Go's encoding/json with HTML escaping. Not in it: U+2028 and U+2029, invalid UTF-8 (both below), and newline.
_ESCAPES = {byte: f"\\u{byte:04x}".encode() for byte in (*range(0x20), *b"<>&") if byte not in b"\n\r"} | {
    ord('"'): b'\\"',
    ord("\\"): b"\\\\",
    ord("\r"): b"\\r",
}
_PLAIN = bytes(byte for byte in range(0x80) if byte not in _ESCAPES)
_FEW = 8  # up to here one replace per kind of character beats going through str
_LINE_BREAKS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))

REPAIR_BLOCK = 64 * 1024


def escape(data: bytes, newline: bytes) -> bytes:
    """`data` as the inside of a JSON string, with each newline as `newline`."""
    special = data.translate(None, _PLAIN)
    if not special:
        return data.replace(b"\n", newline)
    if not special.isascii():
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return _escape_binary(data, newline)
        if any(raw in data for raw, _ in _LINE_BREAKS):
            return _escape_text(text, newline)
    kinds = {byte for byte in set(special) if byte < 0x80}
    if len(kinds) > _FEW:
        return _escape_text(data.decode(), newline)
    if 0x5C in kinds:  # first, as the others bring backslashes in
        data = data.replace(b"\\", b"\\\\")
    for byte in kinds:
        if byte != 0x5C:
            data = data.replace(bytes((byte,)), _ESCAPES[byte])
    return data.replace(b"\n", newline)


# A character that no decoder yields (a lone high surrogate) stands for the newline while the rest is escaped.
_HOLD = "\ud800"


def _escape_text(text: str, newline: bytes) -> bytes:
    held = encode_basestring(text.replace("\n", _HOLD))[1:-1]
    return _html(held.replace(_HOLD, newline.decode()).encode(), newline)


def _escape_binary(data: bytes, newline: bytes) -> bytes:
    """As `_escape_text`; every byte that is not UTF-8 becomes `\\ufffd`, one for each byte as Go does.

    `surrogateescape` marks them, and encoding with "replace" turns the marks into question marks in C; the real
    question marks hide as \\x01 meanwhile, which is free because control characters are escaped by then.
    """
    text = data.decode("utf-8", "surrogateescape").replace("\n", _HOLD)
    held = encode_basestring(text)[1:-1].replace("?", "\x01").replace(_HOLD, newline.decode())
    return _html(held.encode("utf-8", "replace").replace(b"?", b"\\ufffd").replace(b"\x01", b"?"), newline)


def _html(escaped: bytes, newline: bytes) -> bytes:
    """What encode_basestring leaves as it is and Go does not. `newline` holds none of these characters."""
    for raw in (b"<", b">", b"&"):
        escaped = escaped.replace(raw, _ESCAPES[raw[0]])
    for raw, replacement in _LINE_BREAKS:
        escaped = escaped.replace(raw, replacement)
    return escaped


def encode(data: bytes, terminated: bool, stream: int, stamp_ns: int) -> bytes:
    """Records for whole lines (`terminated`) or for one piece of a line; all have the same time."""
    end = b'","stream":"' + STREAMS[stream] + b'","time":"' + format_ns(stamp_ns) + b'"}\n'
    if not terminated:
        return PREFIX + escape(data, b"\\n") + end
    return PREFIX + escape(data[:-1], b"\\n" + end + PREFIX) + b"\\n" + end


def whole_records(fd: int, size: int) -> int:
    """The length of a file up to and with its last newline."""
    at = size
    while at > 0:
        start = max(0, at - REPAIR_BLOCK)
        newline = os.pread(fd, at - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        at = start
    return 0


class JsonFile:
    """The driver: `write` takes what LineCutter yields."""

    __slots__ = ("_file",)

    def __init__(self, path: str, max_size: int, max_files: int) -> None:
        self._file = RotatingFile(path, max_size, max_files, whole_records)

    def write(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> None:
        """Append; a file takes records until it is at or over its size, then the next one is begun, as Docker does."""
        records = encode(data, terminated, stream, stamp_ns)
        while (room := self._file.room) >= 0 and room < len(records):
            end = (
                records.find(b"\n", max(0, room - 1)) + 1
            )  # the record that reaches the limit still belongs to this file
            if room:
                self._file.append(records[:end])
                records = records[end:]
                if not records:
                    return
            self._file.rotate()
        self._file.append(records)

    def close(self) -> None:
        self._file.close()

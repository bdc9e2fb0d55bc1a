"""The json-file driver's format, byte for byte what Docker's readers expect.

One object a line: `{"log":"text\\n","stream":"stdout","time":"2006-01-02T15:04:05.123456789Z"}`. A piece of a line
that is longer than 16 KiB, and a last line without newline, have no `\\n` at the end of "log".

Runs in the shim. Speed comes from never looking at single lines: a chunk that holds nothing to escape becomes its
records with one `bytes.replace`. What must be escaped is found by one `bytes.translate`.
"""

from __future__ import annotations

import os

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
# The backslash comes first, as the others bring backslashes in.
_BY_BYTE = tuple((bytes((byte,)), _ESCAPES[byte]) for byte in sorted(_ESCAPES, key=lambda byte: byte != 0x5C))
_SEPARATORS = (("\u2028", "\\u2028"), ("\u2029", "\\u2029"))

REPAIR_BLOCK = 64 * 1024


def escape(data: bytes, newline: bytes) -> bytes:
    """`data` as the inside of a JSON string, with each newline as `newline`."""
    special = data.translate(None, _PLAIN)
    if special:
        data = _escape_ascii(data, special)
        if not special.isascii():
            data = _escape_unicode(data)
    return data.replace(b"\n", newline)


def _escape_ascii(data: bytes, special: bytes) -> bytes:
    """One replace per kind of character: it searches with memchr, so kinds that are rare cost next to nothing."""
    if len(special) == len(data) and special[0] < 0x80 and not special.strip(special[:1]):
        return _ESCAPES[special[0]] * len(data)  # a file full of zeros: byte by byte would be slow
    for raw, escaped in _BY_BYTE:
        if raw in special:
            data = data.replace(raw, escaped)
    return data


def _escape_unicode(data: bytes) -> bytes:
    """Line separators, and `\\ufffd` for every byte that is not UTF-8, one for each byte as Go does.

    No control characters but newline are left in `data`. `surrogateescape` marks the bytes, and encoding with
    "replace" turns the marks into question marks in C; the real question marks hide as \\x01 meanwhile.
    """
    valid = True
    try:
        text = data.decode()
    except UnicodeDecodeError:
        valid = False
        text = data.replace(b"?", b"\x01").decode("utf-8", "surrogateescape")
    # Looked for in the text: one character is found by memchr, its three bytes are not.
    for separator, escaped in _SEPARATORS:
        if separator in text:
            text, data = text.replace(separator, escaped), data.replace(separator.encode(), escaped.encode())
    if not valid:
        data = text.encode("utf-8", "replace").replace(b"?", b"\\ufffd").replace(b"\x01", b"?")
    return data


def encode(data: bytes, terminated: bool, stream: int, stamp_ns: int, attributes: bytes = b"") -> bytes:
    """Records for whole lines (`terminated`) or for one piece of a line; all have the same time.

    `attributes` is what each record has between its stream and its time: nothing, or `"attrs":{...},`.
    """
    end = b'","stream":"' + STREAMS[stream] + b'",' + attributes + b'"time":"' + format_ns(stamp_ns) + b'"}\n'
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
    """The driver: `write` takes what LineCutter yields. `attributes` is a JSON object for each record, or nothing."""

    __slots__ = ("_attributes", "_file")

    def __init__(
        self, path: str, max_size: int, max_files: int, *, compress: bool = False, attributes: bytes = b""
    ) -> None:
        self._file = RotatingFile(path, max_size, max_files, whole_records, compress=compress)
        self._attributes = b'"attrs":' + attributes + b"," if attributes else b""

    def write(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> None:
        """Append; a file takes records until it is at or over its size, then the next one is begun, as Docker does."""
        records = encode(data, terminated, stream, stamp_ns, self._attributes)
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

"""Reading json-file logs in bulk.

Entries that the writer wrote in one go differ in their text only, so a whole run is taken apart with two `replace`
calls and, when something is escaped, one JSON string decoded; nothing is done line by line. A file in which each line
has a time of its own (Docker's) is read by the same code, in runs of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote_plus

import msgspec

from corten.logs.jsonfile import PREFIX
from corten.logs.runs import Mark, Run, parse_stamp
from corten.logs.stamps import pad_fraction

_BEFORE_STREAM = b'","stream":"'
_TAIL = re.compile(rb'","stream":"(stdout|stderr)"(?:,"attrs":(\{.*\}))?,"time":"([^"]+)"\}\n')
_FIRST_WINDOW = 4096


@lru_cache(maxsize=64)
def _mark(tail: bytes) -> Mark | None:
    """The mark of a record that ends so; None when it is no record's end."""
    match = _TAIL.fullmatch(tail)
    if match is None:
        return None
    stream, attributes, stamp = match.groups()
    try:
        pairs = msgspec.json.decode(attributes or b"{}", type=dict[str, str])
        time_ns = parse_stamp(stamp)
    except (ValueError, msgspec.MsgspecError):
        return None
    text = ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(pairs.items()))
    return Mark(1 if stream == b"stdout" else 2, pad_fraction(stamp), time_ns, text.encode())


def runs(block: bytes, timestamps: bool, details: bool) -> Iterator[Run]:
    """The runs of a block of whole lines. Lines that are no records (a torn one, zeros after a crash) are skipped."""
    at = 0
    while at < len(block):
        end = block.find(b"\n", at) + 1
        cut = block.find(_BEFORE_STREAM, at, end) if block.startswith(PREFIX, at) else -1
        mark = _mark(block[cut:end]) if cut >= 0 else None
        if mark is None:
            at = end
            continue
        tail = block[cut:end]
        end = _run_end(block, end, tail)
        data = _text(block[at:end], tail, mark.prefix(timestamps, details))
        if data is not None:
            yield Run(mark, data)
        at = end


def _run_end(block: bytes, end: int, tail: bytes) -> int:
    """Where the entries with this tail end, of which one ends at `end`: in windows that grow while they are full."""
    window = _FIRST_WINDOW
    while True:
        last = block.rfind(tail, end, end + window)
        if last < 0:
            return end
        stop = last + len(tail)
        if block.count(b"\n", end, stop) != block.count(tail, end, stop):
            return _short_run_end(block, end, tail)  # others are mixed in: rare, two streams within one nanosecond
        if stop - end < window // 2:
            return stop
        end, window = stop, window * 4


def _short_run_end(block: bytes, end: int, tail: bytes) -> int:
    while True:
        line = block.find(b"\n", end) + 1
        if not line or not block.endswith(tail, end, line):
            return end
        end = line


def _text(region: bytes, tail: bytes, prefix: bytes) -> bytes | None:
    """The entries of a run as they were said, each after `prefix`; None when they are not what the writer writes."""
    inner = region[len(PREFIX) : len(region) - len(tail)]
    if inner.endswith(b"\\n"):
        plain = inner[:-2].replace(b"\\n" + tail + PREFIX, b"\n" + prefix) + b"\n"
        if b"\\" not in plain and tail not in plain:
            return prefix + plain
    joined = b'"' + prefix_escaped(prefix) + inner.replace(tail + PREFIX, prefix_escaped(prefix)) + b'"'
    try:
        return msgspec.json.decode(joined, type=str).encode()
    except (msgspec.DecodeError, UnicodeEncodeError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=64)
def prefix_escaped(prefix: bytes) -> bytes:
    """A prefix as it has to stand inside a JSON string."""
    return msgspec.json.encode(prefix.decode())[1:-1]

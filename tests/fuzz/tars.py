"""Tar archives that nobody would write: each part drawn by itself, more often valid than not, then damaged."""

from __future__ import annotations

import os

from hypothesis import strategies as st

from tests.unit.storage.test_hostile_layers import padded, record

BLOCK = 512
UID, GID = os.getuid(), os.getgid()
MAGICS = {"ustar": b"ustar\x0000", "gnu": b"ustar  \0", "v7": bytes(8)}

parts = st.sampled_from([b"a", b"b", b"d", b"dd", b"f", b"n" * 40, b"\xc3\xa9", b"\xff", b"x y", b"l\n"])
names = st.one_of(
    parts,
    st.builds(b"/".join, st.lists(parts, min_size=2, max_size=4)),
    st.sampled_from(
        [b"", b".", b"./", b"a/", b"/a", b"a//b", b"..", b"../a", b"a/../b", b"n" * 99, b"n" * 100, b"a\0b"]
    ),
    st.sampled_from([b"p/" * 60 + b"x", b"n" * 101, b"n" * 300]),
)


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """As GNU tar writes what octal digits cannot say; cut to the width."""
    raw = (value & ((1 << (8 * width - 1)) - 1)).to_bytes(width, "big")
    return bytes([raw[0] | 0x80]) + raw[1:]


def odd_numbers(width: int) -> list[bytes]:
    """What may stand in a numeric field and is not what most archives have there."""
    odd = [b"%o" % 512, b" %o " % 512, b"\0%o" % 512, b"%o\x007" % 512, b"", b" ", b"\0", b"9", b"-1", b"+1", b"0x1"]
    odd += [b"1_1", b"1 1", b"7" * width, b"\xff" * width, b"\x80" * width, b"\xc0" + bytes(width - 1)]
    return odd + [base256(value, width) for value in (1, 700, -5, 1 << 40, 1 << 62)]


ODD = {width: st.sampled_from(odd_numbers(width)) for width in (8, 12)}
FIELDS = [(100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)]


def summed(block: bytearray, how: str = "right") -> bytes:
    """The header with its checksum."""
    block[148:156] = b" " * 8
    total = sum(block)
    if how == "signed":
        total -= 256 * sum(byte > 127 for byte in block)
    if how == "wrong":
        total += 1
    block[148:156] = b"%06o\0 " % (max(total, 0) & 0o777777)
    return bytes(block)


def fill(block: bytearray, at: int, width: int, value: bytes) -> None:
    block[at : at + width] = value[:width].ljust(width, b"\0")


KINDS = b"0123456" * 2 + b"\0\0007S"


@st.composite
def headers(draw: st.DrawFn, kind: bytes, name: bytes, size: bytes, link: bytes = b"") -> bytes:
    """One header block; in one of five a field, the prefix or the checksum is odd."""
    block = bytearray(BLOCK)
    fill(block, 0, 100, name)
    for (at, width), value in zip(FIELDS, (0o644, UID, GID, 1_700_000_000, 1, 3), strict=True):
        fill(block, at, width, octal(value, width))
    fill(block, 124, 12, size)
    block[156:157] = kind
    fill(block, 157, 100, link)
    magic = draw(st.sampled_from(["ustar", "ustar", "gnu", "v7"]))
    block[257:265] = MAGICS[magic]
    how, check = draw(st.integers(0, 39)), "right"
    if how < len(FIELDS):
        fill(block, *FIELDS[how], draw(ODD[FIELDS[how][1]]))
    elif how < 8:
        check = ["signed", "wrong"][how - 6]
    elif how < 10 and magic == "ustar":
        fill(block, 345, 155, draw(names))
    return summed(block, check)


NUMBERS = st.integers(0, 1500).map(lambda number: b"%d" % number)
GOOD: dict[bytes, st.SearchStrategy[bytes]] = {
    b"path": names,
    b"linkpath": names,
    b"size": st.sampled_from([b"0", b"4", b"4", b"512", b"700"]),
    b"uid": NUMBERS,
    b"gid": NUMBERS,
    b"mtime": st.sampled_from([b"0", b"5.5", b"-3.25", b"1.", b".5", b"1.0000000001", b"99999999999"]),
    b"comment": st.binary(max_size=4),
    b"SCHILY.xattr.user.a": st.binary(max_size=4),
}
SPARSE = [b"GNU.sparse." + word for word in b"major minor name realsize size map numblocks offset numbytes".split()]
values = st.one_of(st.binary(max_size=4), names, st.sampled_from([b"", b"0", b"1", b"0,1", b"1e3", b" 1", b"-1"]))


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A record of a pax header, about something that may be so or not."""
    how = draw(st.integers(0, 19))
    key = draw(st.sampled_from(SPARSE if how == 0 else list(GOOD)))
    value = draw(values) if how < 3 else draw(GOOD[key])
    made = record(key, value)
    if how == 3:
        made = draw(
            st.sampled_from([made[:-1], b"0" + made, made + b"\n", b"9" + made, made.replace(b"=", b""), b"\0"])
        )
    return made


@st.composite
def metas(draw: st.DrawFn) -> bytes:
    """Something that is said about the next member."""
    kind = draw(st.sampled_from([b"x", b"x", b"x", b"g", b"L", b"K"]))
    if kind in b"xg":
        body = b"".join(draw(st.lists(records(), max_size=4)))
    else:
        body = draw(names) + draw(st.sampled_from([b"\0", b"", b"\0x"]))
    size = octal(len(body), 12) if draw(st.integers(0, 15)) else draw(ODD[12])
    return draw(headers(kind, b"PaxHeaders/x", size)) + padded(body)


@st.composite
def sparse_members(draw: st.DrawFn) -> bytes:
    """A sparse file in one of its four forms, whose map may lie."""
    count = draw(st.integers(0, 6))
    cuts = draw(st.lists(st.integers(0, 1500), min_size=2 * count, max_size=2 * count).map(sorted))
    segments = [(cuts[at], cuts[at + 1] - cuts[at]) for at in range(0, 2 * count, 2)]
    real = draw(st.integers(cuts[-1] if cuts else 0, 2000))
    if draw(st.integers(0, 5)) == 0:
        segments.append(draw(st.tuples(st.integers(0, 3000), st.integers(0, 600))))
    if draw(st.integers(0, 9)) == 0:
        real = draw(st.integers(0, 1 << 40))
    data = bytes(at % 251 for at in range(sum(length for _, length in segments)))
    form = draw(st.sampled_from(["old", "0.0", "0.1", "1.0"]))
    return _old_sparse(segments, real, data) if form == "old" else _pax_sparse(draw, form, segments, real, data)


def _old_sparse(segments: list[tuple[int, int]], real: int, data: bytes) -> bytes:
    block = bytearray(BLOCK)
    fill(block, 0, 100, b"s")
    for at, value in ((100, 0o644), (108, UID), (116, GID)):
        fill(block, at, 8, octal(value, 8))
    fill(block, 124, 12, octal(len(data), 12))
    block[156:157], block[257:265] = b"S", MAGICS["gnu"]
    fields = [octal(offset, 12) + octal(length, 12) for offset, length in segments]
    block[386 : 386 + 24 * len(fields[:4])] = b"".join(fields[:4])
    block[482] = len(fields) > 4
    block[483:495] = octal(real, 12)
    more = b""
    for at in range(4, len(fields), 21):
        here = b"".join(fields[at : at + 21])
        more += here.ljust(504, b"\0") + bytes([at + 21 < len(fields)]) + bytes(7)
    return summed(block) + more + padded(data)


def _pax_sparse(draw: st.DrawFn, form: str, segments: list[tuple[int, int]], real: int, data: bytes) -> bytes:
    said = [(b"GNU.sparse.name", b"s"), (b"GNU.sparse.numblocks", b"%d" % len(segments))]
    numbers = [b"%d" % number for segment in segments for number in segment]
    if form == "1.0":
        text = b"".join(number + b"\n" for number in [b"%d" % len(segments), *numbers])
        data = padded(text) + data
        said += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"%d" % real)]
    else:
        said.append((b"GNU.sparse.size", b"%d" % real))
    if form == "0.1":
        said += [(b"GNU.sparse.map", b",".join(numbers))]
        said += draw(st.sampled_from([[], [(b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"1")]]))
    if form == "0.0":
        keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        said += [(keys[at % 2], number) for at, number in enumerate(numbers)]
    if draw(st.integers(0, 9)) == 0 and said:
        said.pop(draw(st.integers(0, len(said) - 1)))
    body = b"".join(record(*pair) for pair in said)
    size = octal(len(data), 12)
    about = draw(headers(b"x", b"PaxHeaders/s", octal(len(body), 12))) + padded(body)
    return (
        about + draw(headers(draw(st.sampled_from([b"0", b"0", b"0", b"2"])), b"GNUSparseFile/s", size)) + padded(data)
    )


@st.composite
def members(draw: st.DrawFn) -> bytes:
    """What is said about it, header and data."""
    if draw(st.integers(0, 5)) == 0:
        return draw(sparse_members())
    about = b"".join(draw(st.lists(metas(), max_size=3))) if draw(st.booleans()) else b""
    at = draw(st.integers(0, len(KINDS)))
    kind = KINDS[at : at + 1] or draw(st.sampled_from([b"V", b"A", b"D", b"\xff"]))
    data = draw(st.sampled_from([b"", b"data", b"x" * 512, b"y" * 700]))
    data = data if kind in b"0\0" + b"7" or draw(st.integers(0, 5)) == 0 else b""
    size = octal(len(data), 12) if draw(st.integers(0, 9)) else draw(ODD[12])
    return about + draw(headers(kind, draw(names), size, draw(names))) + padded(data)


ENDS = [bytes(1024)] * 9 + [b"", bytes(512), bytes(10240), bytes(512) + b"x", bytes(513), b"x" * 600]


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Whole ones, one after the other, and ones that were cut or damaged."""
    data = b"".join(draw(st.lists(members(), max_size=4))) + draw(st.sampled_from(ENDS))
    if draw(st.integers(0, 7)) == 0:
        data += b"".join(draw(st.lists(members(), max_size=2)))
    how = draw(st.integers(0, 11))
    if how == 0:
        data = data[: draw(st.integers(0, len(data)))]
    elif how == 1 and data:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(min_size=1, max_size=30)) + data[at + 1 :]
    elif how == 2:
        at = BLOCK * draw(st.integers(0, len(data) // BLOCK))
        data = data[:at] + data[at + BLOCK :] if draw(st.booleans()) else data[:at] + data[at : at + BLOCK] + data[at:]
    return data

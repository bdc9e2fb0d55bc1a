"""Decompressing: what the standard library makes of it, in pieces of any size, or InvalidArgument."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidArgument
from corten.storage.decompress import chunks
from tests.fuzz.profile import fuzzed

Pack = Callable[[bytes], bytes]
HEAD = 16  # bytes that whoever reads gives at least, at first


def stored(data: bytes) -> bytes:
    """A gzip member with a name, a comment and extra fields in its header."""
    body = zlib.compressobj(0, zlib.DEFLATED, -15)
    packed = body.compress(data) + body.flush()
    head = b"\x1f\x8b\x08\x1c" + bytes(6) + b"\x03\0abc" + b"name\0" + b"comment\0"
    return head + packed + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


def skippable(data: bytes) -> bytes:
    return b"\x52\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data + zstandard.compress(data)


FAMILIES: dict[str, tuple[list[Pack], Pack]] = {
    "gzip": ([gzip.compress, stored, lambda data: gzip.compress(data, 0)], gzip.decompress),
    "zstd": (
        [zstandard.compress, skippable, zstandard.ZstdCompressor(write_checksum=True).compress],
        lambda data: data,
    ),
    "xz": (
        [lambda data: lzma.compress(data, preset=0), lambda data: lzma.compress(data, check=lzma.CHECK_NONE)],
        lzma.decompress,
    ),
    "bzip2": ([bz2.compress, lambda data: bz2.compress(data, 1)], bz2.decompress),
}
bodies = st.one_of(
    st.binary(max_size=30),
    st.integers(1, 5000).map(bytes),
    st.integers(1, 5000).map(lambda size: bytes((at * at) % 251 for at in range(size))),
)


def unpacked(blob: bytes, piece: int) -> bytes:
    source = io.BytesIO(blob)
    sizes = iter([HEAD])
    return b"".join(chunks(lambda: source.read(next(sizes, piece)), lambda _: None))


@given(
    st.sampled_from(sorted(FAMILIES)),
    st.lists(st.tuples(st.integers(0, 2), bodies), min_size=1, max_size=4),
    st.sampled_from([1, 17, 4096]),
)
@fuzzed(120)
def test_members_one_after_the_other(family: str, parts: list[tuple[int, bytes]], piece: int) -> None:
    packers, standard = FAMILIES[family]
    blob = b"".join(packers[which % len(packers)](data) for which, data in parts)
    whole = b"".join(data for _, data in parts)
    assert unpacked(blob, piece) == whole
    if family != "zstd":
        assert standard(blob) == whole


@given(st.sampled_from(sorted(FAMILIES)), bodies, bodies, st.integers(0, 400), st.binary(max_size=20), st.booleans())
@fuzzed(200)
def test_damage_is_seen_or_harms_nothing(family: str, one: bytes, two: bytes, at: int, noise: bytes, cut: bool) -> None:
    """Cut short nothing is taken for whole; changed, it is refused, or says what the standard library says."""
    packers, standard = FAMILIES[family]
    first, second = packers[0](one), packers[-1](two)
    whole = first + second
    blob = whole[: max(HEAD, len(whole) - 1 - at)] if cut else whole[:at] + noise + whole[at + len(noise) :]
    try:
        found = unpacked(blob, 64)
    except InvalidArgument as error:
        assert str(error).isprintable()  # noqa: PT017  # whichever of the two it is
        return
    if cut and len(blob) > HEAD and len(blob) != len(first):
        assert not len(first) < len(blob), "half of it was taken for all"
    if family != "zstd" and blob[:6] == whole[:6] and blob[-1:] != b"\0":
        assert standard(blob) == found
    if not blob.startswith(whole[:4]):
        assert len(found) <= len(blob) or blob[:2] in (b"\x1f\x8b", b"BZ")


@given(
    st.binary(min_size=HEAD, max_size=200),
    st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh9"]),
)
@fuzzed(150)
def test_noise(noise: bytes, magic: bytes) -> None:
    try:
        found = unpacked(magic + noise, 50)
    except InvalidArgument as error:
        assert str(error).isprintable()  # noqa: PT017  # whichever of the two it is
        return
    assert len(found) < 1 << 20

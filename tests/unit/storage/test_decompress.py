"""What was cut, or goes on after it has ended, is not taken for whole: the same rules for each way of packing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from corten.errors import InvalidArgument
from corten.storage.decompress import CHUNK, chunks

Pack = Callable[[bytes], bytes]
PLAIN = bytes(range(256)) * 400
PACKERS = [gzip.compress, zstandard.compress, lzma.compress, bz2.compress]
IDS = ["gzip", "zstd", "xz", "bzip2"]


def unpacked(blob: bytes, piece: int = CHUNK) -> bytes:
    source = io.BytesIO(blob)
    read: list[int] = []
    first = source.read(16)  # whoever reads gives enough to tell by at first

    def take() -> bytes:
        nonlocal first
        start, first = first, b""
        return start or source.read(piece)

    data = b"".join(chunks(take, read.append))
    assert sum(read) == len(blob)
    return data


@pytest.mark.parametrize("pack", PACKERS, ids=IDS)
@pytest.mark.parametrize("cut", [1, 4, 5, 9, 100])
def test_a_cut_is_seen(pack: Pack, cut: int) -> None:
    """Of zstd's frames nothing told: half an archive would have been imported as a whole one."""
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        unpacked(pack(PLAIN)[:-cut])
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        unpacked(pack(PLAIN) + pack(PLAIN)[:-cut])
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        unpacked(pack(PLAIN) + pack(PLAIN)[:cut])


@pytest.mark.parametrize("pack", PACKERS, ids=IDS)
@pytest.mark.parametrize("piece", [7, 1000, CHUNK])
def test_one_after_the_other(pack: Pack, piece: int) -> None:
    assert unpacked(pack(b"a") + pack(b"") + pack(PLAIN) + pack(b"z"), piece) == b"a" + PLAIN + b"z"
    assert unpacked(pack(b""), piece) == b""


@pytest.mark.parametrize("flags", [2, 4, 8, 16, 2 | 8, 4 | 8, 8 | 16, 2 | 4 | 8 | 16])
@pytest.mark.parametrize("piece", [1, 3, 16, 100])
def test_a_gzip_header_in_parts(flags: int, piece: int) -> None:
    """Found by fuzzing: the library takes what is left of a header with several fields for data."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    head += b"\x03\0abc" * (flags >> 2 & 1) + b"name\0" * (flags >> 3 & 1) + b"comment\0" * (flags >> 4 & 1)
    if flags & 2:
        head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    member = head + gzip.compress(PLAIN)[10:]
    assert gzip.decompress(member) == PLAIN
    assert unpacked(member + member, piece) == PLAIN + PLAIN
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        unpacked(member + member[: len(head) - 1], piece)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress], ids=["gzip", "xz", "bzip2"])
@pytest.mark.parametrize("zeros", [1, 511, CHUNK, 3 * CHUNK])
def test_padding_does_not_hide_what_follows_it(pack: Pack, zeros: int) -> None:
    """After a whole piece of zeros the rest was taken for read."""
    assert unpacked(pack(b"a") + bytes(zeros)) == b"a"
    assert unpacked(pack(b"a") + bytes(zeros) + pack(b"b")) == b"ab"


@pytest.mark.parametrize("pack", PACKERS, ids=IDS)
@pytest.mark.parametrize("garbage", [b"x", b"garbage that is long enough to be looked at", b"\x1f", b"BZ"])
def test_garbage_after_the_end(pack: Pack, garbage: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"unexpected EOF|invalid compressed data"):
        unpacked(pack(PLAIN) + garbage)


@pytest.mark.parametrize(("pack", "at"), [(gzip.compress, -6), (lzma.compress, -40), (bz2.compress, -8)])
def test_a_wrong_checksum(pack: Pack, at: int) -> None:
    blob = bytearray(pack(PLAIN))
    blob[at] ^= 1
    with pytest.raises(InvalidArgument, match="invalid compressed data"):
        unpacked(bytes(blob))


def test_zstd_with_checksums_and_skippable_frames() -> None:
    packer = zstandard.ZstdCompressor(write_checksum=True)
    skipped = b"\x50\x2a\x4d\x18\x05\0\0\0skip!"
    assert unpacked(skipped + packer.compress(PLAIN) + skipped) == PLAIN
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        unpacked(packer.compress(PLAIN) + skipped[:-1])
    blob = bytearray(packer.compress(PLAIN))
    blob[-1] ^= 1
    with pytest.raises(InvalidArgument, match="invalid compressed data"):
        unpacked(bytes(blob))


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_cut_inside_the_header_of_the_next_frame(cut: int) -> None:
    """Found by fuzzing: the library forgets a header that was cut when a whole frame comes next."""
    for next_frame in (zstandard.compress(PLAIN), zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN[:300])):
        for before in (b"", zstandard.compress(b"x" * 100)):
            with pytest.raises(InvalidArgument, match="unexpected EOF"):
                unpacked(before + next_frame[: max(cut, 0 if before else 4)])


def test_a_frame_that_swallows_what_comes_after_it_is_a_cut_one() -> None:
    """A raw block whose data are not there: whatever follows becomes its data, the frame that marks the end as well."""
    head = b"\x28\xb5\x2f\xfd\x00\x58"  # a window and no content size
    for length in range(1, 64):
        with pytest.raises(InvalidArgument, match=r"unexpected EOF|invalid compressed data"):
            unpacked(head + (length << 3 | 1).to_bytes(3, "little"))


@pytest.mark.parametrize("pack", PACKERS, ids=IDS)
def test_memory_does_not_grow_with_what_is_said(pack: Pack) -> None:
    packed = pack(bytes(24 << 20))
    source = io.BytesIO(packed)
    tracemalloc.start()
    try:
        assert sum(len(piece) for piece in chunks(lambda: source.read(CHUNK), lambda _: None)) == 24 << 20
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()

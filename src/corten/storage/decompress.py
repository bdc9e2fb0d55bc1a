"""A layer blob as a stream of its uncompressed bytes: gzip, zstd, xz, bzip2 or plain, told by its first bytes.

Imported by the layer workers: keep light; the decompressors are imported when they are needed.
"""

from __future__ import annotations

import os

from corten.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

CHUNK = 256 << 10
_EOF = "unexpected EOF"
_MAGIC = 6  # bytes that tell how it is compressed
_MAX_HEADER = 1 << 20  # of one gzip member
_XZ_MEMORY = 256 << 20  # what its header may ask for; xz -9 needs 65 MiB


def chunks(source: Callable[[], bytes], consumed: Callable[[int], None]) -> Iterator[bytes]:
    """Uncompressed pieces of what `source` gives until it gives nothing; `consumed` is told the bytes of each.

    Raises InvalidArgument.
    """

    def read() -> bytes:
        data = source()
        consumed(len(data))
        return data

    first = read()
    while 0 < len(first) < _MAGIC and (more := read()):
        first += more
    if first.startswith(b"\x1f\x8b"):
        return _stream(read, first, _gzip)
    if first.startswith(b"\x28\xb5\x2f\xfd") or (first[1:4] == b"\x2a\x4d\x18" and first[0] & 0xF0 == 0x50):
        return _zstd(read, first)
    if first.startswith(b"\xfd7zXZ\0"):
        return _stream(read, first, _xz)
    if first.startswith(b"BZh"):
        return _stream(read, first, _bzip2)
    return _plain(read, first)


def load_all() -> None:
    """Import all decompressors, for a process that cannot when it needs them."""
    import bz2
    import lzma

    import zstandard
    from isal import igzip_lib

    _ = bz2, lzma, zstandard, igzip_lib


def _plain(read: Callable[[], bytes], data: bytes) -> Iterator[bytes]:
    while data:
        yield data
        data = read()


def _gzip() -> Any:
    from isal import igzip_lib

    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _xz() -> Any:
    import lzma

    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


def _bzip2() -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _stream(read: Callable[[], bytes], data: bytes, make: Callable[[], Any]) -> Iterator[bytes]:
    """For the decompressors of bz2's kind. Members may follow each other (pigz and estargz write many)."""
    decompressor = make()
    fresh = make is _gzip
    while True:
        if fresh:
            data, fresh = _with_header(read, data), False
        try:
            piece = decompressor.decompress(data, CHUNK)
        except Exception as error:  # each library has its own class for it
            raise InvalidArgument(f"invalid compressed data: {error}") from None
        if piece:
            yield piece
        if decompressor.eof:
            data = _unpadded(decompressor.unused_data or b"", read)
            if not data:
                return
            decompressor, fresh = make(), make is _gzip
        elif decompressor.needs_input:
            data = read()
            if not data:
                raise InvalidArgument(_EOF)
        else:
            data = b""


def _with_header(read: Callable[[], bytes], data: bytes) -> bytes:
    """`data` and as much more as its gzip header takes: the library loses its way in one that comes in parts."""
    while len(data) < _MAX_HEADER and not _header_ends(data) and (more := read()):
        data += more
    return data


def _header_ends(data: bytes) -> bool:
    """Whether all of a gzip header (RFC 1952) is there."""
    if len(data) < 12:
        return False
    flags, at = data[3], 10
    if flags & 4:
        at += 2 + int.from_bytes(data[10:12], "little")
    for flag in (8, 16):  # a name and a comment, each up to a NUL
        if flags & flag:
            at = data.find(b"\0", at) + 1
            if not at:
                return False
    return len(data) >= at + (2 if flags & 2 else 0)


def _unpadded(data: bytes, read: Callable[[], bytes]) -> bytes:
    """What comes next that is no padding of zeros; nothing at the end."""
    while not (data := data.lstrip(b"\0")):
        if not (data := read()):
            break
    return data


def _zstd(read: Callable[[], bytes], data: bytes) -> Iterator[bytes]:
    import zstandard

    # The library does not tell a stream that was cut from a whole one. So a frame of our own comes last: its content
    # arrives if all frames before it have ended.
    mark = os.urandom(16)
    seal: Iterator[bytes] | None = None

    class Source:
        def read(self, _: int) -> bytes:
            nonlocal data, seal
            held, data = data, b""
            if seal is None and (part := held or read()):
                return part
            if seal is None:
                frame = zstandard.ZstdCompressor(write_checksum=True).compress(mark)
                # In two pieces: a frame that is one by itself is taken even where the header of another was cut.
                seal = iter((frame[:5], frame[5:]))
            return next(seal, b"")

    reader = zstandard.ZstdDecompressor().stream_reader(Source(), read_size=CHUNK, read_across_frames=True)  # type: ignore[arg-type]  # read() is all it calls
    last = b""
    while True:
        try:
            piece = reader.read(CHUNK)
        except zstandard.ZstdError as error:
            raise InvalidArgument(_EOF if seal else f"invalid compressed data: {error}") from None
        if not piece:
            break
        if seal:
            last += piece  # no more than the decompressor held back
        else:
            yield piece
    if not last.endswith(mark):
        raise InvalidArgument(_EOF)
    if last := last.removesuffix(mark):
        yield last

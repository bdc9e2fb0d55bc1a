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


def chunks(fd: int, consumed: Callable[[int], None]) -> Iterator[bytes]:
    """Uncompressed pieces of the file `fd`; `consumed` is told the bytes of each read. Raises InvalidArgument."""
    first = _read(fd, consumed)
    if first.startswith(b"\x1f\x8b"):
        return _stream(fd, first, consumed, _gzip)
    if first.startswith(b"\x28\xb5\x2f\xfd") or (first[1:4] == b"\x2a\x4d\x18" and first[0] & 0xF0 == 0x50):
        return _zstd(fd, first, consumed)
    if first.startswith(b"\xfd7zXZ\0"):
        return _stream(fd, first, consumed, _xz)
    if first.startswith(b"BZh"):
        return _stream(fd, first, consumed, _bzip2)
    return _plain(fd, first, consumed)


def _read(fd: int, consumed: Callable[[int], None]) -> bytes:
    data = os.read(fd, CHUNK)
    consumed(len(data))
    return data


def _plain(fd: int, data: bytes, consumed: Callable[[int], None]) -> Iterator[bytes]:
    while data:
        yield data
        data = _read(fd, consumed)


def _gzip() -> Any:
    from isal import igzip_lib

    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _xz() -> Any:
    import lzma

    return lzma.LZMADecompressor()


def _bzip2() -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _stream(fd: int, data: bytes, consumed: Callable[[int], None], make: Callable[[], Any]) -> Iterator[bytes]:
    """For the decompressors of bz2's kind. Members may follow each other (pigz and estargz write many)."""
    decompressor = make()
    while True:
        try:
            piece = decompressor.decompress(data, CHUNK)
        except Exception as error:  # each library has its own class for it
            raise InvalidArgument(f"invalid compressed data: {error}") from None
        if piece:
            yield piece
        if decompressor.eof:
            data = (decompressor.unused_data or b"").lstrip(b"\0") or _read(fd, consumed).lstrip(b"\0")
            if not data:
                return
            decompressor = make()
        elif decompressor.needs_input:
            data = _read(fd, consumed)
            if not data:
                raise InvalidArgument(_EOF)
        else:
            data = b""


def _zstd(fd: int, data: bytes, consumed: Callable[[int], None]) -> Iterator[bytes]:
    import zstandard

    class Source:
        def read(self, _: int) -> bytes:
            nonlocal data
            held, data = data, b""
            return held or _read(fd, consumed)

    reader = zstandard.ZstdDecompressor().stream_reader(Source(), read_size=CHUNK, read_across_frames=True)  # type: ignore[arg-type]  # read() is all it calls
    while True:
        try:
            piece = reader.read(CHUNK)
        except zstandard.ZstdError as error:
            raise InvalidArgument(f"invalid compressed data: {error}") from None
        if not piece:
            return
        yield piece

"""What a layer may be at most while it is unpacked: a few kilobytes can say that they are a terabyte.

Imported by the layer workers: keep light.
"""

from __future__ import annotations

from corten.errors import InvalidArgument
from corten.storage.tarstream import TarReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from corten.storage.tarstream import Entry

_NO_LIMIT = 1 << 62


class Bounds:
    """The worker's side of `storage.types.LayerLimits`, whose fields these are; none where they are left out."""

    __slots__ = ("entries", "ratio", "ratio_from", "size")

    def __init__(
        self, size: int = _NO_LIMIT, entries: int = _NO_LIMIT, ratio: int = _NO_LIMIT, ratio_from: int = _NO_LIMIT
    ) -> None:
        self.size, self.entries, self.ratio, self.ratio_from = size, entries, ratio, ratio_from

    def pieces(self, source: Iterator[bytes], compressed: Callable[[], int]) -> Iterator[bytes]:
        """`source` as long as it stays within; `compressed` is how many bytes it came from so far.

        Raises InvalidArgument.
        """
        total = 0
        for piece in source:
            total += len(piece)
            if total > self.size:
                raise InvalidArgument(
                    f"the layer is larger than {self.size} bytes unpacked, which is the daemon's limit (max-layer-size)"
                )
            if total > self.ratio_from and total > self.ratio * compressed():
                raise InvalidArgument(
                    f"the layer is {self.ratio} times as large unpacked as it is packed, which is the daemon's limit"
                    " (max-layer-ratio)"
                )
            yield piece


class BoundedReader(TarReader):
    """A reader of so many entries at most."""

    def __init__(self, pieces: Iterator[bytes], limit: int) -> None:
        super().__init__(pieces)
        self._limit = limit

    def __iter__(self) -> Iterator[Entry]:
        for count, entry in enumerate(super().__iter__()):
            if count >= self._limit:
                raise InvalidArgument(
                    f"the layer has more than {self._limit} entries, which is the daemon's limit (max-layer-entries)"
                )
            yield entry

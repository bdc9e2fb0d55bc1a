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

    __slots__ = ("entries", "ratio", "ratio_from", "size", "what")

    def __init__(
        self,
        size: int = _NO_LIMIT,
        entries: int = _NO_LIMIT,
        ratio: int = _NO_LIMIT,
        ratio_from: int = _NO_LIMIT,
        what: str = "layer",
    ) -> None:
        self.size, self.entries, self.ratio, self.ratio_from, self.what = size, entries, ratio, ratio_from, what

    def pieces(self, source: Iterator[bytes], compressed: Callable[[], int]) -> Iterator[bytes]:
        """`source` as long as it stays within; `compressed` is how many bytes it came from so far.

        Raises InvalidArgument.
        """
        total = 0
        for piece in source:
            total += len(piece)
            if total > self.size:
                raise too_large(self.size, self.what)
            if total > self.ratio_from and total > self.ratio * compressed():
                raise _beyond(self.what, f"{self.ratio} times as large unpacked as it is packed", "ratio")
            yield piece


def too_large(size: int, what: str = "layer") -> InvalidArgument:
    """For what has, or will have, more than `size` bytes unpacked."""
    return _beyond(what, f"larger than {size} bytes unpacked", "size")


def _beyond(what: str, excess: str, bound: str) -> InvalidArgument:
    return InvalidArgument(f"the {what} is {excess}, which is the daemon's limit (max-layer-{bound})")


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

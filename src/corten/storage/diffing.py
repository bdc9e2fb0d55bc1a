"""What a container changed, as a compressed layer: a process of its own writes it, as it is much work in small steps.

`argv` are the layer's directory, the one below it where both hold whole trees (else ""), and what is left out of it
(see `archive.write_layer` and `treediff`). The layer goes to stdout, one
line of JSON to stderr: `{"diff_id", "entries"}` or `{"error", "errno"}`. Started with `-I`: keep its imports light.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import zlib

from corten.linux.process import PR_SET_PDEATHSIG, prctl
from corten.storage.archive import write_layer
from corten.storage.treediff import write_difference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, BinaryIO

LEVEL = 1
"""Most of what containers write is small or compressed already; the user waits for the rest."""


class _Packed:
    """A file that hashes what is written to it and passes it on as gzip."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self._gzip = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._out.write(self._gzip.compress(data))
        return len(data)

    def finish(self) -> str:
        self._out.write(self._gzip.flush())
        self._out.flush()
        return f"sha256:{self._hash.hexdigest()}"


def main() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    layer, base, *left_out = sys.argv[1:]
    packed = _Packed(sys.stdout.buffer)
    out: IO[bytes] = packed  # type: ignore[assignment] # it has all that tarfile asks of it
    stubs = frozenset(left_out)
    try:
        entries = write_difference(base, layer, out, stubs) if base else write_layer(layer, out, stubs)
        report = {"diff_id": packed.finish(), "entries": entries}
    except OSError as error:
        report = {"error": str(error), "errno": error.errno or 0}
    os.write(2, json.dumps(report).encode() + b"\n")
    os._exit("error" in report)

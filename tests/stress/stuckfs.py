"""A file system whose server has stopped to answer: who asks it for a file waits in the kernel and can't be killed.

It speaks just enough of FUSE's protocol (include/uapi/linux/fuse.h) to be mounted: INIT and GETATTR of the root are
answered, every other request is read and left.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import threading
from pathlib import Path
from types import TracebackType

from corten.linux import mount

_IN = struct.Struct("<IIQQIIII")  # fuse_in_header: length, opcode, unique, node, uid, gid, pid, padding
_OUT = struct.Struct("<IiQ")  # fuse_out_header: length, error, unique
GETATTR, INIT, FORGET, INTERRUPT = 3, 26, 2, 36
_ROOT = struct.pack("<QII", 3600, 0, 0) + struct.pack(
    "<QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0
)
_READY = struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 12, 9, 4096, 1, 0, 0, 0)


class StuckFileSystem:
    """Mounted on `place` while the context lasts; `asked` is set when somebody waits in it. Leaving lets them go."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.asked = threading.Event()

    def __enter__(self) -> StuckFileSystem:
        self.place.mkdir()
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40755,user_id=0,group_id=0,allow_other"
        mount.mount("stuck", str(self.place), "fuse", 0, options)
        self._until, self._leave = os.pipe()
        self._server = threading.Thread(target=self._serve)
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._leave)
        self._server.join()
        os.close(self._until)
        os.close(self._fd)  # nobody serves it any more: all requests fail with ENOTCONN
        subprocess.run(["umount", "-l", str(self.place)], check=True)

    def _serve(self) -> None:
        while self._until not in select.select([self._fd, self._until], [], [])[0]:
            request = os.read(self._fd, 1 << 17)
            _, opcode, unique, *_ = _IN.unpack_from(request)
            if opcode == INIT:
                self._answer(unique, _READY)
            elif opcode == GETATTR:
                self._answer(unique, _ROOT)
            elif opcode not in (FORGET, INTERRUPT):
                self.asked.set()

    def _answer(self, unique: int, body: bytes) -> None:
        os.write(self._fd, _OUT.pack(_OUT.size + len(body), 0, unique) + body)

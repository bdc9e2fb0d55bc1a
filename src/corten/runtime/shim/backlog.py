"""What is to be logged while output comes in bulk to somebody who is attached: kept raw, encoded by a second process.

Encoding a record is several times slower than passing its bytes on, so that whoever is attached would wait for the
log. In bulk the chunks are written as they came into an unnamed file of fixed size beside the log, a ring of slots. A
fork of the shim, the scribe, reads them there, and writes the log at its own pace. A full ring stalls the output, as a
slow log always did. The container's end is told once the scribe has caught up: then all is in the log, and never later
than without it.

The scribe dies with nobody: when the shim is killed it writes what is in the ring and ends. When it is killed itself,
the shim goes on from the slot that was told last; of a line that was in pieces then, a piece may be missing.
"""

from __future__ import annotations

import marshal
import os
import select

from corten.linux.process import set_process_name
from corten.runtime.shim import signals
from corten.runtime.shim.loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from corten.logs.writer import LogWriter
    from corten.runtime.shim.loop import Loop

SLOT = 64 * 1024
SLOTS = 4096  # 256 MiB
HEADER = 13  # a byte for the stream, 8 for the time in ns, 4 for the length
ROOM = 64
"""Slots that are kept free: a chunk needs up to five, and after the end up to 64 chunks are read without asking."""


class Backlog:
    """Stands in for `log`, which it takes over from the first `write` until `end`.

    `on_room` is called when there is room again after `full`, and when nothing is left to be encoded.
    """

    def __init__(self, loop: Loop, log: LogWriter, directory: str, on_room: Callable[[], None]) -> None:
        """Raises OSError when there is no room for the ring in `directory`, or no process to be had; `log` goes on."""
        self._loop, self._log, self._on_room = loop, log, on_room
        self._written = self._told = 0
        self._lost = False
        self._ring = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self._ring, 0, SLOTS * SLOT)  # a disk that is full later has no say
            self._bell, self._tellings = _fork(self._ring, log)
        except OSError:
            os.close(self._ring)
            raise
        os.set_blocking(self._tellings, False)
        loop.watch(self._tellings, IN, lambda events: self._listen())

    @property
    def left(self) -> int:
        """Slots that are not in the log yet."""
        return self._written - self._told

    @property
    def full(self) -> bool:
        return self.left > SLOTS - ROOM

    def write(self, stream: int, chunk: bytes, now_ns: int) -> None:
        """Waits for the scribe where there is no room at all."""
        view = memoryview(chunk)
        head = bytes((stream,)) + now_ns.to_bytes(8, "big")
        for at in range(0, len(view), SLOT - HEADER):
            piece = view[at : at + SLOT - HEADER]
            while self.left >= SLOTS and not self._lost:
                self._await()
            if self._lost:
                self._log.write(stream, bytes(piece), now_ns)
                continue
            os.pwritev(self._ring, [head + len(piece).to_bytes(4, "big"), piece], self._written % SLOTS * SLOT)
            self._written += 1
            try:
                os.write(self._bell, b".")
            except BrokenPipeError:
                self._await()

    def end(self) -> None:
        """Give the log back. Waits for the scribe, which has nothing left to do, or for what it has."""
        if not self._lost:
            os.close(self._bell)
            self._bell = -1
            while not self._lost:
                self._await()
        os.close(self._ring)

    def _await(self) -> None:
        poll = select.poll()
        poll.register(self._tellings, select.POLLIN)
        poll.poll()
        self._listen()

    def _listen(self) -> None:
        """Count what the scribe has told; at its end take the log back from it."""
        was_full = self.full
        try:
            told = os.read(self._tellings, 65536)
        except BlockingIOError:
            return
        self._told += min(len(told), self.left)
        if not told:
            self._take_over()
        if not self.left or (was_full and not self.full):
            self._on_room()

    def _take_over(self) -> None:
        """The scribe has ended: as it was asked to, or killed with work left."""
        self._loop.unwatch(self._tellings)
        os.close(self._tellings)
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1
        self._lost = True
        size = os.fstat(self._ring).st_size
        kept = os.pread(self._ring, 2 * SLOT, SLOTS * SLOT) if size > SLOTS * SLOT else b""
        self._log.resume(marshal.loads(kept) if kept else ())
        for number in range(self._told, self._written):
            self._log.write(*_record(self._ring, number))
        self._told = self._written


def _fork(ring: int, log: LogWriter) -> tuple[int, int]:
    """Start the scribe. Its bell, to be rung with a byte a slot, and the pipe where it tells of each with one."""
    hears, bell = os.pipe2(os.O_CLOEXEC)
    tellings, tells = os.pipe2(os.O_CLOEXEC)
    state = log.suspend()
    try:
        if os.fork() == 0:
            _scribe(ring, hears, tells, log, state)
    except OSError:
        log.resume(state)
        for fd in (bell, tellings):
            os.close(fd)
        raise
    finally:
        os.close(hears)
        os.close(tells)
    return bell, tellings


def _record(ring: int, number: int) -> tuple[int, bytes, int]:
    slot = os.pread(ring, SLOT, number % SLOTS * SLOT)
    length = int.from_bytes(slot[9:HEADER], "big")
    return slot[0], slot[HEADER : HEADER + length], int.from_bytes(slot[1:9], "big")


def _scribe(ring: int, hears: int, tells: int, log: LogWriter, state: tuple[Any, ...]) -> NoReturn:
    """The life of the second process: slot after slot, until the shim closes its end or has gone.

    It keeps no descriptor of the shim's: with the container's stdin held open here its process would wait for ever.
    What it knows of unfinished lines it leaves behind the ring.
    """
    status = 1
    try:
        set_process_name("corten-scribe")
        signals.unhang_bell()  # the log may compress files in a child: its end must not ring in what is opened here
        last = 2  # standard error is shim.log
        for fd in sorted((ring, hears, tells)):
            os.closerange(last + 1, fd)
            last = fd
        os.closerange(last + 1, 1 << 20)
        log.resume(state)
        number = 0
        while rung := os.read(hears, 64):
            for _ in rung:
                log.write(*_record(ring, number))
                number += 1
            _tell(tells, rung)
        os.pwrite(ring, marshal.dumps(log.suspend()), SLOTS * SLOT)
        status = 0
    finally:
        os._exit(status)


def _tell(tells: int, rung: bytes) -> None:
    try:
        os.write(tells, rung)
    except BrokenPipeError:  # the shim has gone; the log is written all the same
        return

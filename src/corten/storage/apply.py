"""The layer worker: a process that unpacks one layer after the other, as told on its stdin.

```
daemon                                    worker
  {"blob", "target", "delete", …}   ──►
  {"have": bytes, "whole": bool}    ──►                                   (with "final": the blob still grows)
                                    ◄──   {"read": bytes so far}          (now and then)
                                    ◄──   {"done", "diff_id", …}  or  {"error", "message", …}
  end of stdin                      ──►   exits
```
One JSON object a line. It dies with the daemon that started it, so that a new daemon finds nobody writing to a layer.
Started with `-I`: keep its imports light.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import sys
import threading

from corten.errors import CortenError, InvalidArgument, SystemFault
from corten.linux.process import PR_SET_PDEATHSIG, prctl
from corten.storage.bounds import BoundedReader, Bounds
from corten.storage.decompress import CHUNK, chunks
from corten.storage.faults import words
from corten.storage.unpack import Unpacker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_REPORT_EVERY = 1 << 20
_INLINE = 256 << 10  # a smaller blob is not worth a thread
_MAGIC = 8  # bytes that tell how a blob is compressed
_AHEAD = 16  # chunks that the decompressing thread may be ahead


def apply_layer(
    blob: str,
    target: str,
    *,
    delete: bool = False,
    progress: Callable[[int], None] | None = None,
    final: str = "",
    bounds: Bounds | None = None,
) -> dict[str, Any]:
    """Unpack `blob` into `target` in this process: diff_id, size, inodes and implied, as in `storage.types.Applied`.

    With `final`, where the blob may have gone already, it still grows, as far as stdin says. Raises InvalidArgument,
    also for what is out of `bounds`, and SystemFault.
    """
    bounds = bounds or Bounds()
    consumed = _Progress(progress)
    fd = _open_growing(blob, final) if final else _open(blob, os.O_RDONLY)
    try:
        root = _open(target, os.O_PATH | os.O_DIRECTORY)
        try:
            previous = os.umask(0)
            try:
                read = _Growing(fd) if final else lambda: os.read(fd, CHUNK)
                pieces = bounds.pieces(chunks(read, consumed), lambda: consumed.total)
                ahead = final or os.fstat(fd).st_size > _INLINE
                answer = _apply(pieces, root, delete, bounds, ahead=bool(ahead), growing=bool(final))
                consumed.flush()
                return answer
            finally:
                os.umask(previous)
        finally:
            os.close(root)
    finally:
        os.close(fd)


def _apply(
    source: Iterator[bytes], root: int, delete: bool, bounds: Bounds, *, ahead: bool, growing: bool
) -> dict[str, Any]:
    digest = hashlib.sha256()
    pieces = _hashed(source, digest.update)
    thread = Ahead(pieces) if ahead else None
    unpacker = Unpacker(root, delete=delete, max_size=bounds.size)
    reader = BoundedReader(iter(thread) if thread else pieces, bounds.entries)
    try:
        unpacker.run(reader)
        reader.drain()
    except BaseException:
        # A thread that waits for more of a blob cannot be told to stop: this process ends with the failure.
        if thread and not growing:
            thread.close()
        raise
    if thread:
        thread.close()
    size, inodes = unpacker.size, unpacker.inodes
    return {
        "done": True,
        "diff_id": "sha256:" + digest.hexdigest(),
        "size": size,
        "inodes": inodes,
        "recount": unpacker.replaced,
        "implied": [os.fsdecode(path) for path in unpacker.implied],
    }


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFault(f"open {path}: {words(error.errno or 0)}", step="open", errno=error.errno or 0) from error


def _open_growing(blob: str, final: str) -> int:
    try:
        return os.open(blob, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _open(final, os.O_RDONLY)


class _Growing:
    """Reads a file that the daemon is writing, as far as it has said; then waits for its next word."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = self._have = 0
        self._whole = False

    def __call__(self) -> bytes:
        needed = 1 if self._at else _MAGIC
        while self._have - self._at < needed and not self._whole:
            line = sys.stdin.readline()
            if not line:
                os._exit(0)  # nobody wants it any more
            message = json.loads(line)
            self._have, self._whole = message["have"], message["whole"]
        data = os.read(self._fd, min(CHUNK, self._have - self._at))
        self._at += len(data)
        return data


def _hashed(source: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in source:
        update(piece)
        yield piece


class _Progress:
    """Reports the bytes read so far, at most once a megabyte."""

    def __init__(self, report: Callable[[int], None] | None) -> None:
        self._report = report
        self.total = self._told = 0

    def __call__(self, count: int) -> None:
        self.total += count
        if self.total - self._told >= _REPORT_EVERY:
            self.flush()

    def flush(self) -> None:
        if self._report is not None and self._told != self.total:
            self._told = self.total
            self._report(self.total)


class Ahead:
    """Runs an iterator in a thread of its own, some items ahead: decompressing and hashing let go of the GIL."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="decompress", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._source:
                if self._stopped:
                    return
                self._queue.put(item)
        except BaseException as error:  # handed to the thread that unpacks
            self._queue.put(error)
        else:
            self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)  # let a full queue's writer see that it is over
            except queue.Empty:
                continue
        self._thread.join()


def describe(error: BaseException) -> dict[str, Any]:
    """An error as data, for the daemon's end to raise again."""
    kind = "fault"
    if isinstance(error, InvalidArgument):
        kind = "invalid"
    elif not isinstance(error, CortenError):
        return {"error": kind, "message": f"layer worker: {type(error).__name__}: {error}", "step": "", "errno": 0}
    step, number = getattr(error, "step", ""), getattr(error, "errno", 0)
    return {"error": kind, "message": str(error), "step": step, "errno": number}


def serve(handle: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], dict[str, Any]]) -> None:
    """Answer requests on stdin until it ends; `handle` gives the answer and may send notes before it."""
    parent = os.getppid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked to hear of it
        return
    # What a library prints must not get between the answers.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        try:
            out.write(json.dumps(message) + "\n")
        except BrokenPipeError:
            os._exit(0)  # the daemon is gone, and we are about to be killed

    while line := sys.stdin.readline():
        request = json.loads(line)
        if "have" in request:
            continue  # of a blob that is unpacked already
        try:
            answer = handle(request, send)
        except BaseException as error:  # the worker goes on with the next layer
            send(describe(error))
            if "final" in request:
                os._exit(0)  # a thread of ours may still listen for more of what has failed
        else:
            send(answer)


def _handle(request: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    return apply_layer(
        request["blob"],
        request["target"],
        delete=request["delete"],
        final=request.get("final", ""),
        bounds=Bounds(*request["bounds"]),
        progress=lambda total: send({"read": total}),
    )


def main() -> None:
    """The worker's process."""
    serve(_handle)

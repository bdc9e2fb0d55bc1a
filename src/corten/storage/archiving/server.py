"""The process that forks one for each archive: all it needs is imported once, so that a fork is all a request costs.

```
daemon                          server                     worker
  FORK + its control socket ──►   fork ──────────────────►
                                           ◄──  {"pid"}
  {"view", "do", "path", …} ────────────────────────────►
                                           ◄──  {"stat", …}             or  {"error", "message", …}
  {"framing"} + client's socket, what was read of it ───►               (to read, write and export)
                                           ◄──  {"changes": […]}*       (of a comparison)
                                           ◄──  {"done"}                or  {"error", …}
```
Sockets are SOCK_SEQPACKET, messages JSON. The server ends with its socket, the workers with the server.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import socket
import sys

from corten.errors import CortenError, Forbidden, InvalidArgument, NotFound, SystemFault
from corten.linux.process import PR_SET_PDEATHSIG, prctl
from corten.linux.scm import recv_fds
from corten.storage import walking
from corten.storage.archiving import changes, root
from corten.storage.archiving.conduit import Inlet, Outlet
from corten.storage.archiving.extract import Extractor
from corten.storage.archiving.places import Place, clean, owner
from corten.storage.archiving.protocol import MAX_MESSAGE, METER
from corten.storage.archiving.tarwriter import TreeWriter
from corten.storage.decompress import chunks, load_all
from corten.storage.faults import words
from corten.storage.syscalls import open_in_root
from corten.storage.tarstream import TarReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]

_PART = 32 << 10  # bytes of paths in one message
_ALSO_NEEDED = (walking,)  # imported by the unpacker when it removes a directory, when nothing can be imported any more


class _Worker:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._actions: dict[str, Callable[[Message], None]] = {
            "stat": self._stat,
            "read": self._read,
            "write": self._write,
            "export": self._export,
            "changes": self._changes,
        }

    def run(self) -> None:
        self._say({"pid": os.getpid()})
        request = json.loads(self._control.recv(MAX_MESSAGE) or b"null")
        if request is None:
            return
        try:
            self._actions[request["do"]](request)
        except (BrokenPipeError, ConnectionResetError):
            self._say({"error": "lost", "message": "the client went away"})
        except root.Gone:
            self._say({"error": "gone", "message": "the container has ended"})
        except (CortenError, OSError) as error:
            self._say(_described(error))
        else:
            self._say({"done": True})

    def _say(self, message: Message) -> None:
        self._control.send(json.dumps(message).encode())

    def _conduit(self) -> tuple[int, str, bytes, int]:
        """The client's socket, how the body is framed on it, what was read of it before, and a meter."""
        data, fds = recv_fds(self._control, MAX_MESSAGE)
        if not fds:
            os._exit(0)  # nobody wants it any more
        fd, held = fds
        os.set_blocking(fd, True)
        prefix = os.pread(held, os.fstat(held).st_size, METER)
        return fd, json.loads(data)["framing"], prefix, held

    def _writer(self, *, cross: bool) -> TreeWriter:
        fd, framing, _, _ = self._conduit()
        return TreeWriter(Outlet(fd, chunked=framing == "chunked"), cross=cross)

    def _place(self, request: Message, *, writable: bool = False) -> Place:
        tree = root.enter(request["view"], writable=writable)
        try:
            return Place(tree, request["path"])
        except OSError as error:
            raise _unreached(request, error) from None

    def _stat(self, request: Message) -> None:
        self._say({"stat": self._place(request).describe()})

    def _read(self, request: Message) -> None:
        place = self._place(request)
        described = place.describe()
        name = os.fsencode(place.shown)
        directory = place.open_directory() if place.status.st_mode & 0o170000 == 0o040000 else -1
        self._say({"stat": described})
        writer = self._writer(cross=True)
        if directory >= 0:
            writer.tree(directory, name)
        else:
            writer.leaf(place.directory, os.fsencode(place.base), name, place.status, place.status.st_dev)
        writer.close()

    def _export(self, request: Message) -> None:
        tree = root.enter(request["view"], writable=False)
        self._say({"stat": None})
        writer = self._writer(cross=False)
        writer.tree(tree, b"", itself=False)
        writer.close()

    def _write(self, request: Message) -> None:
        tree = root.enter(request["view"], writable=True)
        try:
            place = open_in_root(tree, os.fsencode(clean(request["path"])), os.O_PATH)
        except OSError as error:
            raise _unreached(request, error) from None
        if os.fstat(place).st_mode & 0o170000 != 0o040000:
            raise InvalidArgument("extraction point is not a directory")
        _check_writable(tree, place)
        ids = None
        if request["owner"]:
            ids = owner(tree, request["owner"])
            if ids is None:
                raise InvalidArgument(f"unable to find user {request['owner']}: no matching entries in passwd file")
        self._say({"stat": None})
        fd, framing, prefix, meter = self._conduit()
        body = Inlet(fd, framing, prefix, meter=meter, ahead=True).chunks()
        reader = TarReader(chunks(lambda: next(body, b""), lambda _: None))
        Extractor(place, clean(request["path"]), keep_kinds=request["keep_kinds"], owner=ids).run(reader)
        reader.drain()

    def _changes(self, request: Message) -> None:
        root.own_namespace()
        layers, part, size = request["layers"], [], 0
        upper = os.open(request["upper"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        tree = root.mount_overlay(layers, request["place"], "", "", []) if len(layers) > 1 else -1
        lower = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=tree) if tree >= 0 else _only(layers)

        def found(kind: int, path: str) -> None:
            nonlocal size
            part.append([kind, path])
            size += len(path)
            if size > _PART:
                flush()

        def flush() -> None:
            nonlocal size
            self._say({"changes": part})
            part.clear()
            size = 0

        changes.Comparison(found, frozenset(request["stubs"]), whole=request["whole"]).run(upper, lower)
        flush()


def _only(layers: list[str]) -> int:
    return os.open(layers[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if layers else -1


def _check_writable(tree: int, place: int) -> None:
    if os.fstatvfs(place).f_flag & os.ST_RDONLY:
        of_root = os.fstat(place).st_dev == os.fstat(tree).st_dev and os.fstatvfs(tree).f_flag & os.ST_RDONLY
        what = "container rootfs is marked read-only" if of_root else "mounted volume is marked read-only"
        raise Forbidden(what)


def _unreached(request: Message, error: OSError) -> CortenError:
    """In Docker's words, which name the path that was asked for."""
    if error.errno == errno.ENOENT:
        return NotFound("file", request["path"], request["missing"])
    text = "lstat {}: {}"
    if error.errno == errno.ELOOP:
        text = "too many links in {}"
    return SystemFault(text.format(request["path"], words(error.errno or 0)), step="archive", errno=error.errno or 0)


def _described(error: CortenError | OSError) -> Message:
    if isinstance(error, OSError):
        number = error.errno or 0
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return {"error": "fault", "message": f"{name}{words(number)}", "errno": number}
    kinds = {NotFound: "missing", InvalidArgument: "invalid", Forbidden: "forbidden"}
    kind = next((word for cls, word in kinds.items() if isinstance(error, cls)), "fault")
    return {"error": kind, "message": str(error), "errno": getattr(error, "errno", 0)}


def main(fd: int) -> None:
    """The server's process; `fd` is its end of the daemon's socket."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sock = socket.socket(fileno=fd)
    load_all()
    gc.freeze()
    while True:
        message, fds = recv_fds(sock, 64)
        _reap()
        if not message:
            return
        (control,) = fds
        if os.fork() == 0:
            sock.close()
            _work(control)
        os.close(control)


def _work(control: int) -> None:
    """A worker's whole life."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _Worker(socket.socket(fileno=control)).run()
    except ConnectionError:
        pass  # the daemon has given it up
    except BaseException as error:
        sys.stderr.write(f"archive worker: {type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return

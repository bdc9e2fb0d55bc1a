"""cortend's side of the spawner: starting it, asking it for shims, starting it again when it has died."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import corten
from corten.errors import Unavailable
from corten.linux.memfd import sealed_copy
from corten.linux.scm import send_fds
from corten.runtime import protocol
from corten.runtime.plan import rehearsal
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)

BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from corten.runtime.spawner import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
)
RESTART_PAUSE = 0.2  # seconds between two starts of a spawner that dies at once
GOODBYE = 2.0  # seconds that a spawner has to end
PATIENCE = 10.0  # seconds that a launch waits for a spawner


class SpawnerProcess:
    """Keeps a spawner running. `fork` may be called at any time; it waits while there is none.

    Containers get the limit of descriptors that holds for us when this is made, whatever we take for ourselves later.
    """

    def __init__(self, log_file: Path) -> None:
        self._log_file = log_file
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._tasks = TaskOwner("spawner")
        self._sock: socket.socket | None = None
        self._ready = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0

    async def start(self) -> None:
        """Raises OSError when the interpreter cannot be executed."""
        await self._spawn()
        self._tasks.start("keep", self._keep())

    async def fork(self) -> socket.socket:
        """A control socket whose other end is, or will be, a new shim's.

        If the spawner dies before it has forked, the socket is at its end without a HELLO. Raises Unavailable.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            while True:
                sock = await self._wait()
                try:
                    send_fds(sock, protocol.FORK, [theirs.fileno()])
                except BlockingIOError:
                    await asyncio.sleep(0.001)  # hundreds of requests are queued; the spawner takes one in 0.3 ms
                except OSError:
                    self._ready.clear()  # it has just died; `_keep` sees that too
                else:
                    break
        ours.setblocking(False)
        return ours

    async def close(self) -> None:
        """End the spawner; the shims stay."""
        await self._tasks.close("the runtime is closed")
        if self._sock is not None and self._process is not None:
            self._sock.close()
            self._sock = None
            try:
                await asyncio.to_thread(self._process.wait, GOODBYE)  # it ends at once, with its socket
            except subprocess.TimeoutExpired:
                self._process.kill()  # nothing depends on it: the shims are its children, and stay
                await asyncio.to_thread(self._process.wait)

    async def _wait(self) -> socket.socket:
        try:
            async with asyncio.timeout(PATIENCE):
                while self._sock is None or not self._ready.is_set():
                    await self._ready.wait()
        except TimeoutError:
            raise Unavailable("the spawner does not come up; its messages are in " + str(self._log_file)) from None
        return self._sock

    async def _keep(self) -> None:
        """Start the spawner again whenever it ends."""
        while self._sock is not None and self._process is not None:
            started = time.monotonic()
            await _end_of(self._sock)
            code = await asyncio.to_thread(self._process.wait)
            self._ready.clear()
            log.error("the spawner has ended with %d; starting it again", code)
            self._sock.close()
            if time.monotonic() - started < RESTART_PAUSE:
                await asyncio.sleep(RESTART_PAUSE)
            await self._spawn()

    async def _spawn(self) -> None:
        process, self._sock = await asyncio.to_thread(start_process, self._log_file, self._limit)
        self._process, self.pid = process, process.pid
        self._ready.set()


def start_process(log_file: Path, limit: tuple[int, int]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a spawner, with this limit of descriptors; its process and our end of its socket.

    The program is a sealed copy of the interpreter, so that a container that gets hold of /proc/PID/exe of one of our
    processes cannot overwrite the host's (CVE-2019-5736). argv[0] is the true path: from it the interpreter finds its
    library. Where the interpreter is a stub around a shared libpython (pyenv can build it so) the stub alone is
    sealed: the library is mapped, and a mapping cannot be opened for writing through /proc/PID/exe; /proc/PID/map_files
    needs privileges in the first user namespace and is closed, as the spawner and the shims are not dumpable.
    """
    program = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    source = str(Path(corten.__file__).resolve().parent.parent)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    copy = sealed_copy(program, "corten-spawner")
    try:
        with theirs, open(log_file, "ab", opener=_private) as messages:
            process = subprocess.Popen(
                [program, "-I", "-S", "-c", BOOT, source, str(theirs.fileno()), str(copy), str(log_file.parent)],
                executable=f"/proc/self/fd/{copy}",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                pass_fds=(theirs.fileno(), copy),
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                start_new_session=True,  # neither Ctrl-C on the daemon nor a signal to its group reaches the shims
            )
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(copy)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limit)  # it has forked nothing yet, as it was not asked to
    ours.send(rehearsal().to_wire())
    ours.setblocking(False)
    return process, ours


async def _end_of(sock: socket.socket) -> None:
    """Until the other end has closed; nothing else is ever sent to us."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock.fileno(), _resolve, ended)
    try:
        await ended
    finally:
        loop.remove_reader(sock.fileno())


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

"""Network namespaces: made ahead in a small pool, held by bind mounts below the exec root."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from corten.linux import rtnl
from corten.linux.mount import MNT_DETACH, MS_BIND, MS_PRIVATE, mount, umount2
from corten.linux.netlink import NETLINK_ROUTE, NetlinkSocket
from corten.linux.process import CLONE_NEWNET, setns, unshare
from corten.network.types import InterfaceStats
from corten.tasks import TaskOwner

LOOPBACK_INDEX = 1
REFILL_DELAY = 0.02  # seconds


class Namespace:
    """An open network namespace, with a netlink socket inside. The file descriptors keep it alive until `close`."""

    def __init__(self, fd: int, socket: NetlinkSocket) -> None:
        self.fd = fd
        self._socket = socket
        self._lock = threading.Lock()

    def configure(self, interface: str, ip: str, prefix_len: int, gateway: str) -> None:
        """Address of an interface, set up, and with a gateway the default route."""
        with self._lock:
            index = rtnl.link_named(self._socket, interface).index
            messages = [rtnl.add_address(index, ip, prefix_len), rtnl.set_up(index)]
            if gateway:
                messages.append(rtnl.add_default_route(index, gateway))
            self._socket.batch(messages)

    def link(self, interface: str) -> rtnl.Link:
        with self._lock:
            return rtnl.link_named(self._socket, interface)

    def stats(self) -> list[InterfaceStats]:
        """Of every interface but loopback."""
        with self._lock:
            found = rtnl.links(self._socket)
        return [_stats(link) for link in found if not link.flags & rtnl.IFF_LOOPBACK and link.master == 0]

    def close(self) -> None:
        with self._lock:
            self._socket.close()
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1


def _stats(link: rtnl.Link) -> InterfaceStats:
    rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = link.stats
    return InterfaceStats(
        link.name, rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped
    )


class NamespacePool:
    """Namespaces with `lo` up, `size` of them ready. A crash leaves none behind: they are held by file descriptors.

    A namespace belongs to the thread that is in it: one thread of its own makes and enters them, and returns to the
    host's after each, so that nothing else ever runs in the wrong one.
    """

    def __init__(self, size: int, tasks: TaskOwner) -> None:
        self._size = size
        self._tasks = tasks
        self._ready: deque[Namespace] = deque()
        self._filling = False
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netns")
        self._host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    async def take(self) -> Namespace:
        namespace = self._ready.popleft() if self._ready else await self._run(self._make)
        self.refill()
        return namespace

    async def enter(self, path: Path) -> Namespace:
        """Open one that is mounted at `path`. Raises OSError when there is none."""
        return await self._run(lambda: self._enter(path))

    def refill(self) -> None:
        if not self._filling and not self._closed and len(self._ready) < self._size:
            self._filling = True
            self._tasks.start("fill the namespace pool", self._fill())

    async def close(self) -> None:
        self._closed = True
        while self._ready:
            self._ready.popleft().close()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
        if self._host >= 0:
            os.close(self._host)
            self._host = -1

    async def _fill(self) -> None:
        try:
            if self._ready:
                # Whoever has just taken one makes links now, under the same lock in the kernel.
                await asyncio.sleep(REFILL_DELAY)
            while not self._closed and len(self._ready) < self._size:
                self._ready.append(await self._run(self._make))
        finally:
            self._filling = False

    async def _run(self, work: Callable[[], Namespace]) -> Namespace:
        """A caller that stops waiting leaves nothing open."""
        job = self._thread.submit(work)
        try:
            return await asyncio.shield(asyncio.wrap_future(job))
        except asyncio.CancelledError:
            job.add_done_callback(_close_unwanted)
            raise

    def _make(self) -> Namespace:
        try:
            unshare(CLONE_NEWNET)
            # The interfaces to come take no IPv6 address: there is no IPv6 network to have one in. ::1 stays.
            with (
                contextlib.suppress(FileNotFoundError),
                open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file,
            ):
                file.write("1")
            namespace = self._opened(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            setns(self._host, CLONE_NEWNET)
        return namespace

    def _enter(self, path: Path) -> Namespace:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
        except BaseException:
            os.close(fd)
            raise
        try:
            return self._opened(fd)
        finally:
            setns(self._host, CLONE_NEWNET)

    def _opened(self, fd: int) -> Namespace:
        """The namespace that this thread is in, `fd`, with a socket in it and `lo` up."""
        try:
            socket = NetlinkSocket(NETLINK_ROUTE)
            try:
                socket.batch([rtnl.set_up(LOOPBACK_INDEX)])
            except BaseException:
                socket.close()
                raise
        except BaseException:
            os.close(fd)
            raise
        return Namespace(fd, socket)


def _close_unwanted(job: Future[Namespace]) -> None:
    if not job.cancelled() and job.exception() is None:
        job.result().close()


class SandboxMounts:
    """The directory of bind mounts, private so that no other mount namespace gets copies of what is mounted later."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def prepare(self) -> None:
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not _is_mount(self.directory):
            mount(str(self.directory), str(self.directory), "", MS_BIND)
            mount("", str(self.directory), "", MS_PRIVATE)

    def path(self, container_id: str) -> Path:
        return self.directory / container_id

    def names(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self.directory))

    def hold(self, container_id: str, fd: int) -> None:
        """Mount a namespace for a container, in place of what a crash may have left there."""
        path = str(self.path(container_id))
        if os.path.lexists(path):
            self.drop(container_id)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_RDONLY, 0o444))
        try:
            mount(f"/proc/self/fd/{fd}", path, "", MS_BIND)
        except BaseException:
            os.unlink(path)
            raise

    def drop(self, container_id: str) -> None:
        """Unmount and unlink; the unlinking also detaches copies in other mount namespaces. Nothing there is fine."""
        path = str(self.path(container_id))
        try:
            umount2(path, MNT_DETACH)
        except OSError as refusal:
            if refusal.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def remove_if_empty(self) -> None:
        """So that a directory below which nothing runs can be deleted as any other."""
        if not self.names():
            self.remove()

    def remove(self) -> None:
        for name in self.names():
            self.drop(name)
        with contextlib.suppress(OSError):
            umount2(str(self.directory), MNT_DETACH)
        with contextlib.suppress(OSError):
            self.directory.rmdir()


def _is_mount(path: Path) -> bool:
    """As /proc/self/mountinfo has it: a bind mount on the same file system is not seen by comparing devices."""
    wanted = str(path.resolve())
    with open("/proc/self/mountinfo") as file:
        return any(line.split()[4] == wanted for line in file)

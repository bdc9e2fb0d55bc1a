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
from corten.network.types import InterfaceStats, UserNamespace
from corten.tasks import TaskOwner

LOOPBACK_INDEX = 1
REFILL_DELAY = 0.02  # seconds
OWNED_READY = 2  # each takes 15 ms of a helper process


class Namespace:
    """An open network namespace, with a netlink socket inside. The file descriptors keep it alive until `close`.

    `user_fd` is the user namespace that owns it, -1 where that is the host's or does not matter any more.
    """

    def __init__(self, fd: int, socket: NetlinkSocket, user_fd: int = -1) -> None:
        self.fd, self.user_fd = fd, user_fd
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
            for fd in (self.fd, self.user_fd):
                if fd >= 0:
                    os.close(fd)
            self.fd = self.user_fd = -1


def _stats(link: rtnl.Link) -> InterfaceStats:
    rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = link.stats
    return InterfaceStats(
        link.name, rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped
    )


class NamespacePool:
    """Namespaces with `lo` up, `size` of them ready. A crash leaves none behind: they are held by file descriptors.

    Those of remapped containers are kept ready from the first that is wanted on: one daemon has one mapping.

    A namespace belongs to the thread that is in it: one thread of its own makes and enters them, and returns to the
    host's after each, so that nothing else ever runs in the wrong one.
    """

    def __init__(self, size: int, tasks: TaskOwner) -> None:
        self._size = size
        self._tasks = tasks
        self._ready: deque[Namespace] = deque()
        self._owned: deque[Namespace] = deque()
        self._filling = False
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netns")
        self._host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    async def take(self, user: UserNamespace | None = None) -> Namespace:
        if user is not None and user.path:
            return await self._run(lambda: self._make_owned(user))
        ready, make = self._kind(user)
        namespace = ready.popleft() if ready else await self._run(make)
        self.refill(user)
        return namespace

    def _kind(self, user: UserNamespace | None) -> tuple[deque[Namespace], Callable[[], Namespace]]:
        return (self._ready, self._make) if user is None else (self._owned, lambda: self._make_owned(user))

    async def enter(self, path: Path) -> Namespace:
        """Open one that is mounted at `path`. Raises OSError when there is none."""
        return await self._run(lambda: self._enter(path))

    def refill(self, user: UserNamespace | None = None) -> None:
        ready, make = self._kind(user)
        size = self._size if user is None else min(self._size, OWNED_READY)
        if not self._filling and not self._closed and len(ready) < size:
            self._filling = True
            self._tasks.start("fill the namespace pool", self._fill(ready, make, size))

    async def close(self) -> None:
        self._closed = True
        for ready in (self._ready, self._owned):
            while ready:
                ready.popleft().close()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
        if self._host >= 0:
            os.close(self._host)
            self._host = -1

    async def _fill(self, ready: deque[Namespace], make: Callable[[], Namespace], size: int) -> None:
        try:
            if ready:
                # Whoever has just taken one makes links now, under the same lock in the kernel.
                await asyncio.sleep(REFILL_DELAY)
            while not self._closed and len(ready) < size:
                ready.append(await self._run(make))
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
            _without_ipv6()
            namespace = self._opened(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            setns(self._host, CLONE_NEWNET)
        return namespace

    def _make_owned(self, user: UserNamespace) -> Namespace:
        from corten.linux import usernamespace  # needed only where users are remapped

        if user.path:
            user_fd, fd = usernamespace.make_network(user.path)
        else:
            user_fd, fd = usernamespace.make_pair(user.uids, user.gids)
        try:
            namespace = self._entered(fd, _without_ipv6)
        except BaseException:
            os.close(user_fd)
            raise
        namespace.user_fd = user_fd
        return namespace

    def _enter(self, path: Path) -> Namespace:
        return self._entered(os.open(path, os.O_RDONLY | os.O_CLOEXEC), lambda: None)

    def _entered(self, fd: int, prepare: Callable[[], None]) -> Namespace:
        """The namespace `fd`, with what `prepare` does in it. Closes `fd` when it fails."""
        try:
            setns(fd, CLONE_NEWNET)
        except BaseException:
            os.close(fd)
            raise
        try:
            try:
                prepare()
            except BaseException:
                os.close(fd)
                raise
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


def _without_ipv6() -> None:
    """The interfaces to come take no IPv6 address: there is no IPv6 network to have one in. ::1 stays."""
    with (
        contextlib.suppress(FileNotFoundError),
        open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file,
    ):
        file.write("1")


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

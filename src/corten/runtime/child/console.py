"""A pseudo-terminal out of the container's own devpts."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios

from corten.linux import mount as api
from corten.linux.inroot import ensure
from corten.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from corten.runtime.child.channel import CONSOLE
from corten.runtime.child.errors import ChildFailed, fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.child.context import Context, Handler

# asm-generic/ioctls.h
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441

_PTMX_DEVICE = os.makedev(5, 2)


def open_console(ctx: Context, height: int, width: int, bind: bool) -> None:
    """Make a terminal the standard streams and the controlling terminal, and give its master to the parent.

    The slave is opened from the master and not by its name, and mounted on /dev/console by descriptor: a path could
    have been redirected (CVE-2025-52565).
    """
    master = _open_master(ctx)
    try:
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        fail("open console", error, "opening the terminal")
    if height and width:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    if bind:
        _bind_console(ctx, slave)
    ctx.channel.send(CONSOLE, fds=(master,))
    os.close(master)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    if slave > 2:
        os.close(slave)


def _open_master(ctx: Context) -> int:
    try:
        master = openat2(ctx.root, "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    except OSError as error:
        fail("open console", error, "opening /dev/pts/ptmx of the container")
    status = os.fstat(master)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX_DEVICE:
        raise ChildFailed("open console", errno.ENODEV, "/dev/pts/ptmx of the container is not a terminal multiplexer")
    return master


def _bind_console(ctx: Context, slave: int) -> None:
    tree = api.open_tree(slave, "", api.OPEN_TREE_CLONE | api.AT_EMPTY_PATH)
    place, _ = ensure(ctx.root, "/dev/console", directory=False, mode=0o600)
    try:
        if os.fstat(place).st_dev == ctx.proc_device:  # an image's link: what the kernel says would be hidden
            raise ChildFailed("open console", errno.EPERM, "/dev/console of the container is inside /proc")
        api.move_mount(tree, place)
    except OSError as error:
        fail("open console", error, "mounting the terminal on /dev/console")
    finally:
        os.close(place)
        os.close(tree)


HANDLERS: dict[str, Handler] = {"OpenConsole": open_console}

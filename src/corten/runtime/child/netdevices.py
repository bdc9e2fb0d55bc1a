"""Links of the host's that become a container's (linux.netDevices). Runs in the launcher, for a child that waits."""

from __future__ import annotations

import errno
import os

from corten.linux import rtnl
from corten.linux.netlink import NETLINK_ROUTE, NetlinkSocket
from corten.linux.process import CLONE_NEWNET, setns
from corten.runtime.child.errors import fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_STEP = "move network device"


def move(devices: Sequence[tuple[str, str]], pid: int) -> None:
    """Move links, (name here, name there), to the network namespace of `pid`; they keep their lasting addresses and
    are up then. A name there may end in "%d" for the first number that is free. Raises ChildFailed.
    """
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    target = -1
    try:
        target = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        here = NetlinkSocket(NETLINK_ROUTE)
        try:
            there = _socket_in(target, own)
            try:
                _move_all(devices, here, there, target)
            finally:
                there.close()
        finally:
            here.close()
    finally:
        os.close(own)
        if target >= 0:
            os.close(target)


def _socket_in(target: int, own: int) -> NetlinkSocket:
    """A socket stays in the namespace that it was made in."""
    setns(target, CLONE_NEWNET)
    try:
        return NetlinkSocket(NETLINK_ROUTE)
    finally:
        setns(own, CLONE_NEWNET)


def _move_all(devices: Sequence[tuple[str, str]], here: NetlinkSocket, there: NetlinkSocket, target: int) -> None:
    """All is looked at first: a link that has moved is lost with the namespace when a later one cannot."""
    taken = {link.name for link in rtnl.links(there)}
    found = []
    for name, inside in devices:
        if inside in taken:
            error = OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            fail(_STEP, error, f"linux.netDevices: moving {name}: {inside} in the container's network namespace")
        try:
            found.append((rtnl.link_named(here, name), inside))
        except OSError as error:
            fail(_STEP, error, f"linux.netDevices: link {name}")
    for link, inside in found:
        try:
            _move(link, inside, here, there, target)
        except OSError as error:
            fail(_STEP, error, f"linux.netDevices: moving {link.name} ({error.strerror})")


def _move(link: rtnl.Link, inside: str, here: NetlinkSocket, there: NetlinkSocket, target: int) -> None:
    kept = rtnl.lasting_addresses(here, link.index)
    before = {other.index for other in rtnl.links(there)}
    here.batch([rtnl.move_link(link.index, inside, target)])
    # By what is new there, as both the number and, from a template, the name may be others now.
    [moved] = [other.index for other in rtnl.links(there) if other.index not in before]
    there.batch([*(address.message(moved) for address in kept), rtnl.set_up(moved)])

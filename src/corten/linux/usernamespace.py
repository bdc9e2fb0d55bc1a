"""User namespaces made for others to join: with a network namespace that belongs to them, held by descriptors.

A process with threads cannot enter a user namespace, so a small helper (`usernamespace_helper`) does, and ends once its
namespaces have been opened. Descriptors returned are close-on-exec and owned by the caller.
"""

from __future__ import annotations

import errno
import os
import sys

from corten.linux.process import CLONE_NEWNS, CLONE_NEWUSER, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    Mapping = tuple[int, int, int]
    """First id inside, first id outside, how many: a line of /proc/PID/uid_map."""

_HELPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "usernamespace_helper.py")


def make_pair(uids: Sequence[Mapping], gids: Sequence[Mapping]) -> tuple[int, int]:
    """A fresh user namespace with these mappings, and a network namespace that it owns. Blocks, 15 ms or so.

    Raises OSError: ENOSPC where the host allows no (more) user namespaces, EINVAL where its kernel has none.
    """
    return _run("new", uids, gids)


def make_network(user_path: str) -> tuple[int, int]:
    """The user namespace at `user_path`, and a fresh network namespace that it owns."""
    return _run(user_path, (), ())


def _run(target: str, uids: Sequence[Mapping], gids: Sequence[Mapping]) -> tuple[int, int]:
    import subprocess  # costly, and needed only where users are remapped

    with subprocess.Popen(
        [sys.executable, "-I", "-S", _HELPER, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath},
    ) as helper:
        return _open_both(helper, uids, gids)


def _open_both(helper: subprocess.Popen[bytes], uids: Sequence[Mapping], gids: Sequence[Mapping]) -> tuple[int, int]:
    """The helper stays until its input ends, which leaving the caller's `with` brings about."""
    assert helper.stdout is not None
    answer = helper.stdout.readline()
    if answer != b"0\n":
        code = int(answer or errno.ECHILD)
        raise OSError(code, os.strerror(code), "user namespace")
    place = f"/proc/{helper.pid}"
    _map(place, uids, gids)
    user = os.open(f"{place}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return user, os.open(f"{place}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except BaseException:
        os.close(user)
        raise


def _map(place: str, uids: Sequence[Mapping], gids: Sequence[Mapping]) -> None:
    for name, mappings in (("uid_map", uids), ("gid_map", gids)):
        if mappings:
            fd = os.open(f"{place}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, "".join(f"{inside} {outside} {size}\n" for inside, outside, size in mappings).encode())
            finally:
                os.close(fd)


def fork_user_namespace(uids: Sequence[Mapping], gids: Sequence[Mapping]) -> int:
    """A fresh user namespace with these mappings. Only for a process of one thread: its child enters it."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    stay, leave = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        code = errno.EIO
        try:
            os.close(leave)
            # Nobody in a chroot may make one: the mount namespace's own root is a way out of it.
            setns(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), CLONE_NEWNS)
            unshare(CLONE_NEWUSER)
            code = 0
        except OSError as error:
            code = error.errno or code
        finally:
            os.write(tell, b"%d" % code)
            os.read(stay, 1)
            os._exit(0)
    os.close(tell)
    os.close(stay)
    try:
        if code := int(os.read(told, 16) or errno.ECHILD):
            raise OSError(code, os.strerror(code), "user namespace")
        _map(f"/proc/{pid}", uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(told)
        os.close(leave)
        os.waitpid(pid, 0)

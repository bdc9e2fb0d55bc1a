"""The system calls that change what is on a disk: their numbers, where their paths are, and a filter that asks about
each of them.

seccomp's user notification is the failing layer below the store. It stops every thread and every worker process before
such a call, in one order for all of them, and answers with an error where it is told to; the product is not changed
for it. strace's tampering was tried first: it counts calls by thread (told to fail the second fsync, it failed that of
each of two threads), does not know which file a call is about, and cannot hold a process while the disk is copied. A
call costs 3 µs by itself, 66 under strace, 116 here, where each gets its name (busy machine).
"""

from __future__ import annotations

import errno
import os
import re
import struct
from dataclasses import dataclass

from corten.linux.libc import MACHINE
from corten.linux.seccomp import SECCOMP_RET_USER_NOTIF

_ALLOW = 0x7FFF0000  # linux/seccomp.h: SECCOMP_RET_ALLOW
_LOAD, _EQUAL, _SET, _RETURN = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h: LD W ABS, JMP JEQ K, JMP JSET K, RET K
_ARGUMENTS = 16  # struct seccomp_data: nr, arch, instruction_pointer, args

_AT_CWD = -1
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Call:
    """`paths` are pairs of argument numbers (directory, or -1 for the working directory; path); `fd` is the argument
    with a descriptor, where there are no paths; `flags` the one that must have O_CREAT. `grows` says that a full disk
    refuses it.
    """

    name: str
    numbers: dict[str, int]
    paths: tuple[tuple[int, int], ...] = ()
    fd: int = 0
    flags: int | None = None
    grows: bool = True


def _call(
    name: str,
    x86_64: int,
    aarch64: int = -1,
    *paths: tuple[int, int],
    fd: int = 0,
    flags: int | None = None,
    grows: bool = True,
) -> Call:
    numbers = {"x86_64": x86_64, "aarch64": aarch64}
    return Call(name, {key: value for key, value in numbers.items() if value >= 0}, paths, fd, flags, grows)


# From the kernel's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
CALLS = (
    _call("write", 1, 64),
    _call("pwrite64", 18, 68),
    _call("writev", 20, 66),
    _call("pwritev", 296, 70),
    _call("pwritev2", 328, 287),
    _call("sendfile", 40, 71),
    _call("copy_file_range", 326, 285, fd=2),
    _call("fallocate", 285, 47),
    _call("ftruncate", 77, 46, grows=False),
    _call("truncate", 76, 45, (_AT_CWD, 0), grows=False),
    _call("fsync", 74, 82),
    _call("fdatasync", 75, 83),
    _call("syncfs", 306, 267),
    _call("open", 2, -1, (_AT_CWD, 0), flags=1),
    _call("openat", 257, 56, (0, 1), flags=2),
    _call("mkdir", 83, -1, (_AT_CWD, 0)),
    _call("mkdirat", 258, 34, (0, 1)),
    _call("mknodat", 259, 33, (0, 1)),
    _call("mknod", 133, -1, (_AT_CWD, 0)),
    _call("symlink", 88, -1, (_AT_CWD, 1)),
    _call("symlinkat", 266, 36, (1, 2)),
    _call("link", 86, -1, (_AT_CWD, 0), (_AT_CWD, 1)),
    _call("linkat", 265, 37, (0, 1), (2, 3)),
    _call("rename", 82, -1, (_AT_CWD, 0), (_AT_CWD, 1)),
    _call("renameat", 264, 38, (0, 1), (2, 3)),
    _call("renameat2", 316, 276, (0, 1), (2, 3)),
    _call("unlink", 87, -1, (_AT_CWD, 0), grows=False),
    _call("rmdir", 84, -1, (_AT_CWD, 0), grows=False),
    _call("unlinkat", 263, 35, (0, 1), grows=False),
    _call("setxattr", 188, 5, (_AT_CWD, 0)),
    _call("lsetxattr", 189, 6, (_AT_CWD, 0)),
    _call("fsetxattr", 190, 7),
    _call("chmod", 90, -1, (_AT_CWD, 0), grows=False),
    _call("fchmod", 91, 52, grows=False),
    _call("fchmodat", 268, 53, (0, 1), grows=False),
    _call("chown", 92, -1, (_AT_CWD, 0), grows=False),
    _call("lchown", 94, -1, (_AT_CWD, 0), grows=False),
    _call("fchown", 93, 55, grows=False),
    _call("fchownat", 260, 54, (0, 1), grows=False),
    _call("utimensat", 280, 88, (0, 1), grows=False),
)
BY_NUMBER = {call.numbers[MACHINE]: call for call in CALLS if MACHINE in call.numbers}


def program() -> bytes:
    """A seccomp filter that asks the listener about each of `CALLS`, about opening a file only when it may be made."""
    plain = [number for number, call in BY_NUMBER.items() if call.flags is None]
    opening = [(number, call.flags) for number, call in BY_NUMBER.items() if call.flags is not None]
    found = [_instruction(_LOAD, 0)]
    for number, argument in opening:
        found += [
            _instruction(_EQUAL, number, 0, 4),
            _instruction(_LOAD, _ARGUMENTS + 8 * argument),
            _instruction(_SET, os.O_CREAT, 0, 1),
            _instruction(_RETURN, SECCOMP_RET_USER_NOTIF),
            _instruction(_RETURN, _ALLOW),
        ]
    for at, number in enumerate(plain):
        found.append(_instruction(_EQUAL, number, len(plain) - at, 0))
    return b"".join([*found, _instruction(_RETURN, _ALLOW), _instruction(_RETURN, SECCOMP_RET_USER_NOTIF)])


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def label(pid: int, call: Call, arguments: tuple[int, ...], root: str) -> str:
    """What a call of the stopped thread `pid` does to the store at `root`, with what differs from run to run left
    out ("rename content/ingest/# content/blobs/sha256/#"); "" for a call that is about something else.
    """
    if call.paths:
        found = [_path(pid, *(arguments[at] if at >= 0 else -100 for at in pair)) for pair in call.paths]
    else:
        found = [_link(f"/proc/{pid}/fd/{arguments[call.fd]}")]
    inside = [path[len(root) :].lstrip("/") or "." for path in found if path == root or path.startswith(root + "/")]
    return " ".join([call.name, *map(_general, inside)]) if inside else ""


def _path(pid: int, directory: int, address: int) -> str:
    if not address:  # as of utimensat: the descriptor itself
        return _link(f"/proc/{pid}/fd/{directory & 0xFFFFFFFF}")
    text = re.sub(r"^/proc/self(?=/)", f"/proc/{pid}", _text(pid, address))
    if not text.startswith("/"):
        low = directory & 0xFFFFFFFF
        base = _link(f"/proc/{pid}/cwd" if low == 0xFFFFFF9C else f"/proc/{pid}/fd/{low}")
        text = f"{base}/{text}"
    parent, _, name = text.rpartition("/")
    return os.path.normpath(os.path.join(os.path.realpath(parent), name))


def _text(pid: int, address: int) -> str:
    found = b""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        while b"\0" not in found:
            found += memory.read(_PAGE - (address + len(found)) % _PAGE)  # the next page may not be there
    return os.fsdecode(found.partition(b"\0")[0])


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return ""
        raise


def _general(path: str) -> str:
    path = re.sub(r"^(snapshots/(?:trash/)?[^/]+/fs)/.*", r"\1/*", path)
    path = re.sub(r"^(snapshots/trash)/.*", r"\1/*", path)
    return re.sub(r"(?<=/)[0-9a-f.]{5,}(?=/|$)|(?<=/)\d[\d.a-f]*(?=/|$)", "#", path)

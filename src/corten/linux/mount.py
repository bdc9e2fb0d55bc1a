"""mount(2), pivot_root(2) and the mount API of file descriptors (fsopen, fsmount, open_tree, move_mount, ...).

Descriptors returned are close-on-exec and owned by the caller. Needs Linux 5.12 (mount_setattr).
"""

from __future__ import annotations

import ctypes
import os
import sys

from corten.linux.libc import encode, function, syscall

# linux/mount.h: mount(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_I_VERSION = 1 << 23
MNT_DETACH = 2

# linux/mount.h: mount_setattr(2), fsmount(2)
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MOUNT_ATTR_IDMAP = 0x100000

# linux/mount.h: open_tree(2), move_mount(2), fsopen(2), fsconfig(2)
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSPICK_CLOEXEC = 0x1
FSPICK_EMPTY_PATH = 0x8
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7

# linux/magic.h
PROC_SUPER_MAGIC = 0x9FA0

# linux/fcntl.h
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

_U32 = ctypes.c_uint
_STR = ctypes.c_char_p


class _mount_attr(ctypes.Structure):
    """linux/mount.h: struct mount_attr."""

    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


_mount = function("mount", _STR, _STR, _STR, ctypes.c_ulong, _STR)
_umount2 = function("umount2", _STR, ctypes.c_int)
_pivot_root = syscall("pivot_root", _STR, _STR)
_open_tree = syscall("open_tree", ctypes.c_long, _STR, ctypes.c_ulong)
_move_mount = syscall("move_mount", ctypes.c_long, _STR, ctypes.c_long, _STR, ctypes.c_ulong)
_fsopen = syscall("fsopen", _STR, ctypes.c_ulong)
_fsconfig = syscall("fsconfig", ctypes.c_long, ctypes.c_ulong, _STR, _STR, ctypes.c_long)
_fsmount = syscall("fsmount", ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong)
_mount_setattr = syscall(
    "mount_setattr", ctypes.c_long, _STR, ctypes.c_ulong, ctypes.POINTER(_mount_attr), ctypes.c_size_t
)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _mount(encode(source), encode(target), encode(fstype) or None, flags, encode(data) or None)


def umount2(target: str, flags: int = 0) -> None:
    _umount2(encode(target), flags)


def pivot_root(new_root: str, put_old: str) -> None:
    _pivot_root(encode(new_root), encode(put_old))


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    """A descriptor of the mount at `path`, with OPEN_TREE_CLONE of a detached copy (a bind mount not attached yet)."""
    return _open_tree(dir_fd, encode(path), flags | os.O_CLOEXEC)


def move_mount(from_fd: int, to_fd: int, to_path: str = "") -> None:
    """Attach the mount of `from_fd` at `to_path` below `to_fd`, or on `to_fd` itself when the path is empty."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    _move_mount(from_fd, b"", to_fd, encode(to_path), flags)


def mount_setattr(
    dir_fd: int, path: str, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    """Change a mount's attributes; `propagation` is MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE."""
    if attr_set & MOUNT_ATTR__ATIME:
        attr_clr |= MOUNT_ATTR__ATIME  # EINVAL unless the whole field is cleared when one of its values is set
    attr = _mount_attr(attr_set, attr_clr, propagation, 0)
    flags = (0 if path else AT_EMPTY_PATH) | (AT_RECURSIVE if recursive else 0)
    _mount_setattr(dir_fd, encode(path), flags, ctypes.byref(attr), ctypes.sizeof(attr))


def idmap(tree_fd: int, user_fd: int, *, recursive: bool = False) -> None:
    """Shift the ids of a detached mount as the user namespace `user_fd` maps them.

    EINVAL where the file system cannot, EPERM where it is mounted idmapped already.
    """
    attr = _mount_attr(MOUNT_ATTR_IDMAP, 0, 0, user_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _mount_setattr(tree_fd, b"", flags, ctypes.byref(attr), ctypes.sizeof(attr))


def fsopen(fstype: str) -> int:
    return _fsopen(encode(fstype), FSOPEN_CLOEXEC)


def fspick(dir_fd: int) -> int:
    """The file system mounted at `dir_fd`, to be configured anew; its options are as they were until said otherwise."""
    return syscall("fspick", ctypes.c_long, _STR, ctypes.c_ulong)(dir_fd, b"", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH)


def fsconfig_set(fs_fd: int, key: str, value: str | None = None) -> None:
    """Set an option of a file system being configured. The kernel takes values of at most 255 bytes (else EINVAL)."""
    if value is None:
        _fsconfig(fs_fd, FSCONFIG_SET_FLAG, encode(key), None, 0)
    else:
        _fsconfig(fs_fd, FSCONFIG_SET_STRING, encode(key), encode(value), 0)


def fsconfig_create(fs_fd: int) -> None:
    _fsconfig(fs_fd, FSCONFIG_CMD_CREATE, None, None, 0)


def fsconfig_reconfigure(fs_fd: int) -> None:
    _fsconfig(fs_fd, FSCONFIG_CMD_RECONFIGURE, None, None, 0)


def file_system_type(fd: int) -> int:
    """The magic number of a file system (linux/magic.h), which Python's own statvfs leaves out."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs: 120 bytes on 64-bit machines
    function("fstatfs", ctypes.c_int, ctypes.c_void_p)(fd, buffer)
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder)


def overlay_takes_single_layers() -> bool:
    """Whether overlay knows "lowerdir+" (Linux 6.7). Asked by version: the kernel logs an error for each attempt."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor.partition("-")[0])) >= (6, 7)


def fsmount(fs_fd: int, attributes: int = 0) -> int:
    """A detached mount of the configured file system; usable as a directory descriptor at once."""
    return _fsmount(fs_fd, FSMOUNT_CLOEXEC, attributes)


def fs_messages(fs_fd: int) -> str:
    """What the kernel had to say about the configuration ("overlay: Unknown parameter 'x'"), "" if nothing."""
    lines: list[str] = []
    while len(lines) < 8:
        try:
            lines.append(os.read(fs_fd, 512).decode(errors="replace").strip()[2:])
        except OSError:  # ENODATA: no further message
            break
    return "; ".join(lines)

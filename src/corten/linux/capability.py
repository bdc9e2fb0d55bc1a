"""Capabilities of the calling process, as bit masks."""

from __future__ import annotations

import ctypes

from corten.linux.libc import syscall
from corten.linux.process import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    prctl,
)

# linux/capability.h, in the order of their numbers.
NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(NAMES)}

CAP_SYS_ADMIN = 1 << NUMBERS["CAP_SYS_ADMIN"]

_LINUX_CAPABILITY_VERSION_3 = 0x20080522


class _header(ctypes.Structure):
    """linux/capability.h: struct __user_cap_header_struct."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _data(ctypes.Structure):
    """linux/capability.h: struct __user_cap_data_struct."""

    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


_capget = syscall("capget", ctypes.POINTER(_header), ctypes.POINTER(_data * 2))
_capset = syscall("capset", ctypes.POINTER(_header), ctypes.POINTER(_data * 2))


def capget() -> tuple[int, int, int]:
    """(effective, permitted, inheritable)."""
    header, data = _header(_LINUX_CAPABILITY_VERSION_3, 0), (_data * 2)()
    _capget(ctypes.byref(header), ctypes.byref(data))
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    header = _header(_LINUX_CAPABILITY_VERSION_3, 0)
    low = _data(effective & 0xFFFFFFFF, permitted & 0xFFFFFFFF, inheritable & 0xFFFFFFFF)
    high = _data(effective >> 32, permitted >> 32, inheritable >> 32)
    data = (_data * 2)(low, high)
    _capset(ctypes.byref(header), ctypes.byref(data))


def limit_bounding(keep: int) -> None:
    """Drop from the bounding set all that is not in `keep`."""
    for capability in range(64):
        if keep >> capability & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == 22:  # EINVAL: past the last capability of this kernel
                return
            if prctl(PR_CAPBSET_READ, capability):  # without the right to drop it may still be absent
                raise


def set_ambient(ambient: int) -> None:
    """Make the ambient set exactly `ambient`; each must be permitted and inheritable."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        if ambient >> capability & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)

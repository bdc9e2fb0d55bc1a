"""keyctl(2): a session keyring of one's own."""

from __future__ import annotations

import ctypes

from corten.linux.libc import syscall

# linux/keyctl.h
KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
KEY_SPEC_SESSION_KEYRING = -3

# linux/key.h
KEY_POS_ALL = 0x3F000000
KEY_USR_VIEW = 0x00010000
KEY_USR_READ = 0x00020000
KEY_USR_SEARCH = 0x00080000

_keyctl_name = syscall("keyctl", ctypes.c_long, ctypes.c_char_p)
_keyctl = syscall("keyctl", ctypes.c_long, ctypes.c_long, ctypes.c_ulong)


def join_session_keyring(name: str) -> int:
    """Join or make the session keyring `name`, or make one without a name; its id."""
    return _keyctl_name(KEYCTL_JOIN_SESSION_KEYRING, name.encode() or None)


def set_permissions(key: int, permissions: int) -> None:
    _keyctl(KEYCTL_SETPERM, key, permissions)

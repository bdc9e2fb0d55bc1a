"""Capabilities: Docker's default set, and what `--cap-add` and `--cap-drop` make of it."""

from __future__ import annotations

from collections.abc import Sequence

from corten.errors import InvalidArgument, clip

ALL = "ALL"

# Names in the kernel's order (linux/capability.h): the index is the bit.
KNOWN = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)

DEFAULT = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT "
        "KILL AUDIT_WRITE"
    ).split()
)


def from_mask(mask: int) -> tuple[str, ...]:
    """The names of the bits set in a kernel capability mask, as /proc/PID/status shows it."""
    return tuple(name for bit, name in enumerate(KNOWN) if mask >> bit & 1)


def normalise(names: Sequence[str] | str | None, flag: str) -> list[str]:
    """Names as `CAP_X` (or ALL). `flag` is CapAdd or CapDrop, for the message of the InvalidArgument."""
    result = []
    for name in [names] if isinstance(names, str) else names or []:
        upper = name.upper()
        if upper == ALL:
            result.append(ALL)
            continue
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full not in KNOWN:
            raise InvalidArgument(f'invalid {flag}: unknown capability: "{clip(full, 60)}"')
        result.append(full)
    return result


def resolve(
    add: Sequence[str] | str | None, drop: Sequence[str] | str | None, *, privileged: bool, available: Sequence[str]
) -> list[str]:
    """What the container gets. `available` is what this host can give at all: the meaning of ALL.

    As Docker does: `--cap-drop ALL` leaves what was added, `--cap-add ALL` gives all but what was dropped.
    """
    if privileged:
        return list(available)
    added, dropped = normalise(add, "CapAdd"), normalise(drop, "CapDrop")
    if ALL in added:
        return [name for name in available if name not in dropped]
    if ALL in dropped:
        return list(dict.fromkeys(added))
    kept = [name for name in DEFAULT if name not in dropped]
    return list(dict.fromkeys([*kept, *added]))

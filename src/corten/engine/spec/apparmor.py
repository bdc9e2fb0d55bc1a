"""The AppArmor profile of containers that name none: what the other defences forbid, forbidden a second time.

The masked and read-only paths of a container are mounts, and a process with CAP_SYS_ADMIN could take them away; the
profile holds by path, whatever is mounted. It forbids no less than Docker's `docker-default`.
"""

from __future__ import annotations

from collections.abc import Iterator

NAME = "corten-default"
UNCONFINED = "unconfined"

# Neither read nor written: the kernel's memory, its emergency keys, the firmware's tables (which hold keys), what the
# processor consumes (CVE-2020-8694), and the policy of the security modules itself.
HIDDEN = (
    "/proc/kcore",
    "/proc/sysrq-trigger",
    "/sys/firmware/**",
    "/sys/devices/virtual/powercap/**",
    "/sys/kernel/security/**",
)

# attach_disconnected: descriptors that were opened outside the container's mount namespace have no path in it.
# mediate_deleted: an unlinked file is judged by the name that it had.
_TEXT = """\
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  capability,
  file,
  network,
  unix,
  umount,
  deny mount,

  signal (receive) peer=unconfined,
{daemon}  signal (send, receive) peer={name},
  ptrace (read, readby, trace, tracedby) peer={name},

{denied}
}}
"""


def choose(wanted: str, default: str, *, privileged: bool) -> str:
    """The profile that a container starts with: its own choice, else none for a privileged one, else the default.

    `default` is "" where the host has none; so is the result then.
    """
    if wanted or not default:
        return wanted
    return UNCONFINED if privileged else default


def profile(daemon: str) -> str:
    """The profile's source, complete in itself. `daemon` is the label under which the daemon runs, as in
    /proc/self/attr/current: containers take signals from it."""
    label = daemon.partition(" (")[0]
    known = label in ("", UNCONFINED)
    return _TEXT.format(
        name=NAME,
        daemon="" if known else f'  signal (receive) peer="{label}",\n',
        denied="\n".join(f"  deny {pattern} {access}," for pattern, access in _denied()),
    )


def _denied() -> Iterator[tuple[str, str]]:
    for path in HIDDEN:
        yield path, "rwklx"
    # Of /proc, a container's processes write to their own directories (named by number), and set the limits of System V
    # shared memory, which belong to the ipc namespace.
    first, *others = everything_but("/proc/", "sys/kernel/shm")
    yield first.replace("[^", "[^0-9"), "w"
    for pattern in others:
        yield pattern, "w"
    for pattern in everything_but("/sys/", "fs/cgroup/"):
        yield pattern, "wkl"


def everything_but(base: str, kept: str) -> Iterator[str]:
    """Patterns that together match all paths below `base` except those that begin with `base + kept`.

    A denial cannot be taken back by another rule, so the exception is spelt out letter by letter.
    """
    for place, letter in enumerate(kept):
        yield f"{base}{kept[:place]}[^{letter}]**"

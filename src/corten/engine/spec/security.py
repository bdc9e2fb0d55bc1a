"""`--security-opt`, parsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corten.errors import InvalidArgument, NotImplementedYet, clip

DEFAULT_SECCOMP = "builtin"
UNCONFINED = "unconfined"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_TRUE = {"1", "t", "true"}
_FALSE = {"0", "f", "false"}


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """`seccomp` is "builtin", "unconfined" or a profile's JSON; `apparmor` "" for the host's default."""

    no_new_privileges: bool = False
    seccomp: str = DEFAULT_SECCOMP
    apparmor: str = ""


def parse(options: Sequence[str] | None, *, apparmor_available: bool) -> SecurityOptions:
    """Raises InvalidArgument for an option that does not exist, NotImplementedYet for one that Corten lacks."""
    no_new_privileges, seccomp, apparmor = False, DEFAULT_SECCOMP, ""
    for option in options or []:
        key, separator, value = _split(option)
        if key == "no-new-privileges":
            no_new_privileges = _boolean(option, value) if separator else True
        elif not separator:
            raise InvalidArgument(f'invalid --security-opt 1: "{clip(option, 80)}"')
        elif key == "seccomp":
            seccomp = value
        elif key == "apparmor":
            if not apparmor_available and value != UNCONFINED:
                raise InvalidArgument("AppArmor is not enabled on this host: --security-opt apparmor cannot be used")
            apparmor = value
        elif key == "label":
            if value != "disable":
                raise NotImplementedYet("--security-opt label: SELinux labels are not supported yet")
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{clip(option, 80)}"')
    return SecurityOptions(no_new_privileges, seccomp, apparmor)


def _split(option: str) -> tuple[str, str, str]:
    """At the first "=", or at a ":" as old clients write it."""
    return option.partition("=") if "=" in option else option.partition(":")


def _boolean(option: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidArgument(f'invalid --security-opt 2: "{clip(option, 80)}"')

"""`--security-opt`, parsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corten.engine.hostfacts import HostFacts
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

_SWITCHES = {"no-new-privileges": "no_new_privileges", "writable-cgroups": "writable_cgroups"}
_TRUE = {"1", "t", "true"}
_FALSE = {"0", "f", "false"}


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """What was said. `seccomp` is "builtin", "unconfined" or a profile's JSON; None and "" stand for not a word."""

    no_new_privileges: bool | None = None
    seccomp: str = ""
    apparmor: str = ""
    writable_cgroups: bool | None = None


def parse(options: Sequence[str] | None, facts: HostFacts) -> SecurityOptions:
    """Raises InvalidArgument for an option that does not exist, or names what the host has not got.

    SELinux labels are passed over on a host without SELinux, as there is nothing that they could mean; one with it is
    told by NotImplementedYet.
    """
    said: dict[str, bool | str] = {}
    for option in options or []:
        key, separator, value = _split(option)
        if option == "no-new-privileges":
            said["no_new_privileges"] = True
        elif not separator:
            raise InvalidArgument(f'invalid --security-opt 1: "{clip(option, 80)}"')
        elif key in _SWITCHES:
            said[_SWITCHES[key]] = _boolean(option, value)
        elif key == "seccomp":
            said["seccomp"] = value
        elif key == "apparmor":
            if not facts.apparmor and value not in ("", UNCONFINED):
                raise InvalidArgument("AppArmor is not enabled on this host: --security-opt apparmor cannot be used")
            said["apparmor"] = value
        elif key == "label":
            if facts.selinux and value != "disable":
                raise NotImplementedYet("--security-opt label: SELinux labels are not supported yet")
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{clip(option, 80)}"')
    return SecurityOptions(**said)  # type: ignore[arg-type]  # each key has the type of its field


def _split(option: str) -> tuple[str, str, str]:
    """At the first "=", or at a ":" as old clients write it."""
    return option.partition("=") if "=" in option else option.partition(":")


def _boolean(option: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidArgument(f'invalid --security-opt 2: "{clip(option, 80)}"')

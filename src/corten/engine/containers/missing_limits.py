"""Limits that this host's kernel has not: discarded with a warning in Docker's words, which its tests match on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corten.engine.hostfacts import HostFacts, weighs_by_device
from corten.errors import InvalidArgument
from corten.specs.container import Resources

_ABSENT = "or the cgroup is not mounted"


@dataclass(frozen=True, slots=True)
class _Rule:
    """`names` are set to what says nothing where `missing` says that the host has not got them."""

    names: tuple[str, ...]
    missing: Callable[[HostFacts], bool]
    warning: str


def _without(controller: str, v2: str = "") -> Callable[[HostFacts], bool]:
    return lambda facts: (v2 or controller if facts.cgroup_version == 2 else controller) not in facts.controllers


def _v2(facts: HostFacts) -> bool:
    return facts.cgroup_version == 2 or "memory" not in facts.controllers


def _throttle(name: str, words: tuple[str, str, str]) -> _Rule:
    kind, block, way = words
    text = f"Your kernel does not support {kind} {block} {way} limit {_ABSENT}. "
    return _Rule((name,), _without("blkio", "io"), f"{text}Block I/O {kind} {way} limit discarded.")


_RULES = (
    _Rule(
        ("memory", "memory_swap"),
        _without("memory"),
        f"Your kernel does not support memory limit capabilities {_ABSENT}. Limitation discarded.",
    ),
    _Rule(
        ("memory_swappiness",),
        _v2,
        f"Your kernel does not support memory swappiness capabilities {_ABSENT}. Memory swappiness discarded.",
    ),
    _Rule(
        ("memory_reservation",),
        _without("memory"),
        f"Your kernel does not support memory soft limit capabilities {_ABSENT}. Limitation discarded.",
    ),
    _Rule(("oom_kill_disable",), _v2, "Your kernel does not support OomKillDisable. OomKillDisable discarded."),
    _Rule(
        ("pids_limit",),
        _without("pids"),
        f"Your kernel does not support PIDs limit capabilities {_ABSENT}. PIDs limit discarded.",
    ),
    _Rule(("cpu_shares",), _without("cpu"), f"Your kernel does not support CPU shares {_ABSENT}. Shares discarded."),
    _Rule(
        ("cpu_period", "cpu_quota"),
        _without("cpu"),
        "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
    ),
    _Rule(
        ("cpuset_cpus", "cpuset_mems"),
        _without("cpuset"),
        f"Your kernel does not support cpuset {_ABSENT}. Cpuset discarded.",
    ),
    _Rule(
        ("blkio_weight",),
        _without("blkio", "io"),
        f"Your kernel does not support Block I/O weight {_ABSENT}. Weight discarded.",
    ),
    _Rule(
        ("blkio_weight_device",),
        _without("blkio", "io"),
        f"Your kernel does not support Block I/O weight_device {_ABSENT}. Weight-device discarded.",
    ),
    _Rule(
        ("kernel_memory",),
        lambda facts: True,  # gone from the kernel with Linux 5.16, and without effect before on most hosts
        f"Your kernel does not support kernel memory limit capabilities {_ABSENT}. Limitation discarded.",
    ),
    _throttle("blkio_device_read_bps", ("BPS", "Block I/O", "read")),
    _throttle("blkio_device_write_bps", ("BPS", "Block I/O", "write")),
    _throttle("blkio_device_read_iops", ("IOPS", "Block", "read")),
    _throttle("blkio_device_write_iops", ("IOPS", "Block", "write")),
)
_NOTHING = Resources()


def _says_nothing(limits: Resources, name: str) -> bool:
    """The docker command sends a swappiness of -1 with every container."""
    return name == "memory_swappiness" and limits.memory_swappiness == -1


def discard(limits: Resources, facts: HostFacts) -> list[str]:
    """Take out what the host cannot do; the warnings. Facts that know of no controllers at all are taken to be blank.

    Raises InvalidArgument for `--cpus`, as Docker does: it is asked for to be relied on.
    """
    if not facts.controllers:
        return []
    if limits.nano_cpus and _without("cpu")(facts):
        raise InvalidArgument(f"NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler {_ABSENT}")
    warnings = []
    for rule in _RULES:
        asked = [name for name in rule.names if getattr(limits, name) and not _says_nothing(limits, name)]
        if asked and rule.missing(facts):
            for name in asked:
                setattr(limits, name, getattr(_NOTHING, name))
            warnings.append(rule.warning)
    devices = limits.blkio_weight_device or []
    if facts.cgroup_version == 1 and not all(weighs_by_device(device.path) for device in devices):
        limits.blkio_weight_device = None
        warnings.append(f"Your kernel does not support Block I/O weight_device {_ABSENT}. Weight-device discarded.")
    if limits.memory > 0 and limits.memory_swap != -1 and not facts.swap_limit:
        warnings.append(f"Your kernel does not support swap limit capabilities {_ABSENT}. Memory limited without swap.")
        limits.memory_swap = -1
    return warnings

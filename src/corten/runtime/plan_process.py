"""The part of a plan that a container's first process and a later one have in common."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

from corten.errors import InvalidArgument, clip
from corten.linux import capability, mempolicy
from corten.linux import process as kernel
from corten.runtime import host_features, plan_checks, seccomp, steps
from corten.specs.oci_runtime import Capabilities, IOPriority, Linux, MemoryPolicy, Personality, Process, Scheduler

_DEFAULT_UMASK = 0o022
_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}


def compile_steps(
    process: Process, linux: Linux, user: str, groups: Sequence[str], keyring: str
) -> Iterator[steps.Step]:
    """From a mounted root to execve; without `keyring` that of a later process. Raises InvalidArgument."""
    plan_checks.check_process(process)
    who = process.user
    yield steps.ResolveUser(user, tuple(groups), who.uid, who.gid, tuple(who.additional_gids))
    if process.oom_score_adj is not None:
        yield steps.SetOomScore(process.oom_score_adj)
    yield steps.NewKeyring(keyring)
    yield from _scheduling(process, linux, later=not keyring)
    yield steps.EnterDirectory(process.cwd, bool(keyring))
    bounding, effective, permitted, inheritable, ambient = capability_masks(process.capabilities)
    umask = _DEFAULT_UMASK if who.umask is None else who.umask
    yield steps.SwitchUser(umask, bounding, effective, permitted, inheritable)
    env = environment(process.env)
    label = _label(process)
    yield steps.LetGo(label[0])
    yield steps.FindCommand(tuple(process.args), env.get("PATH", ""))
    yield steps.SetRlimits(_rlimits(process))
    found = seccomp.compile_filter(linux.seccomp) if linux.seccomp is not None else seccomp.NO_FILTER
    yield steps.Execute(
        tuple(f"{name}={value}" for name, value in env.items()),
        (effective, permitted, inheritable, ambient),
        process.no_new_privileges,
        label,
        found.program,
        found.flags,
    )


def environment(entries: Sequence[str]) -> dict[str, str]:
    """Name to value; the last of a name counts, an entry that is no assignment is dropped."""
    pairs = (entry.partition("=") for entry in entries)
    return {name: value for name, separator, value in pairs if name and separator}


def capability_masks(sets: Capabilities | None) -> tuple[int, int, int, int, int]:
    """Bounding, effective, permitted, inheritable and ambient as bit masks; a set not given is empty.

    A name that Corten does not know is passed over (the specification wants a warning: see `warnings`).
    """
    if sets is None:
        return 0, 0, 0, 0, 0
    lists = (sets.bounding, sets.effective, sets.permitted, sets.inheritable, sets.ambient)
    bounding, effective, permitted, inheritable, ambient = (_mask(names) for names in lists)
    return bounding, effective, permitted, inheritable, ambient


def _mask(names: list[str] | None) -> int:
    mask = 0
    for name in names or ():
        if (number := capability.NUMBERS.get(name)) is not None:
            mask |= 1 << number
    return mask


def warnings(process: Process, linux: Linux) -> Iterator[str]:
    """Capabilities that cannot be granted do not keep the process from running, says the specification; nor do system
    calls that nobody knows."""
    if linux.seccomp is not None:
        yield from seccomp.compile_filter(linux.seccomp).warnings
    sets = process.capabilities
    if sets is None:
        return
    lists = (sets.bounding, sets.effective, sets.permitted, sets.inheritable, sets.ambient)
    for name in dict.fromkeys(name for names in lists for name in names or ()):
        if name not in capability.NUMBERS:
            yield f"capability {clip(name, 40)} is unknown and was left out"
    if sets.effective == sets.permitted and not sets.ambient:
        return
    _, effective, permitted, inheritable, ambient = capability_masks(sets)
    for kind, mask in (("effective", effective & ~permitted), ("ambient", ambient & ~(permitted & inheritable))):
        for name, number in capability.NUMBERS.items() if mask else ():
            if mask >> number & 1:
                needs = "permitted" if kind == "effective" else "permitted and inheritable"
                yield f"capability {name} was left out of the {kind} set: it is not {needs}"


def initial_cpus(process: Process) -> tuple[int, ...]:
    affinity = process.exec_cpu_affinity
    return cpu_list("process.execCPUAffinity.initial", affinity.initial) if affinity and affinity.initial else ()


def _scheduling(process: Process, linux: Linux, *, later: bool) -> Iterator[steps.Step]:
    """`later` for a process beside the first one: the CPU affinity is for those alone."""
    if process.scheduler is not None:
        yield _scheduler(process.scheduler)
    if process.io_priority is not None:
        yield _io_priority(process.io_priority)
    if linux.personality is not None:
        yield _personality(linux.personality)
    if linux.memory_policy is not None:
        yield _memory_policy(linux.memory_policy)
    affinity = process.exec_cpu_affinity
    if later and affinity is not None and affinity.final:
        yield steps.SetAffinity(cpu_list("process.execCPUAffinity.final", affinity.final))


def _scheduler(wanted: Scheduler) -> steps.SetScheduler:
    name = "process.scheduler"
    if wanted.policy not in _POLICIES:
        raise InvalidArgument(f"{name}.policy: scheduling policy {clip(wanted.policy, 40)} is unknown")
    flags = 0
    for flag in wanted.flags:
        if flag not in _SCHED_FLAGS:
            raise InvalidArgument(f"{name}.flags: scheduling flag {clip(flag, 40)} is unknown")
        flags |= _SCHED_FLAGS[flag]
    if not -20 <= wanted.nice <= 19:
        raise InvalidArgument(f"{name}.nice {wanted.nice} is not from -20 to 19")
    if wanted.priority and wanted.policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise InvalidArgument(f"{name}.priority is for SCHED_FIFO and SCHED_RR alone")
    if not 0 <= wanted.priority <= 99:
        raise InvalidArgument(f"{name}.priority {wanted.priority} is not from 0 to 99")
    times = (wanted.runtime, wanted.deadline, wanted.period)
    if any(times) and wanted.policy != "SCHED_DEADLINE":
        raise InvalidArgument(f"{name}.runtime, deadline and period are for SCHED_DEADLINE alone")
    if not all(0 <= time < 1 << 63 for time in times):
        raise InvalidArgument(f"{name}: a time of {max(times)} ns is out of range")
    return steps.SetScheduler(_POLICIES[wanted.policy], flags, wanted.nice, wanted.priority, *times)


def _io_priority(wanted: IOPriority) -> steps.SetIoPriority:
    if wanted.class_ not in _IO_CLASSES:
        raise InvalidArgument(f"process.ioPriority.class: I/O priority class {clip(wanted.class_, 40)} is unknown")
    if not 0 <= wanted.priority <= 7:
        raise InvalidArgument(f"process.ioPriority.priority {wanted.priority} is not from 0 to 7")
    return steps.SetIoPriority(_IO_CLASSES[wanted.class_], wanted.priority)


def _personality(wanted: Personality) -> steps.SetPersonality:
    domains = {"LINUX": kernel.PER_LINUX, "LINUX32": kernel.PER_LINUX32}
    if wanted.domain not in domains:
        raise InvalidArgument(f"linux.personality.domain {clip(wanted.domain, 40)} is unknown")
    if wanted.flags:
        raise InvalidArgument(f"linux.personality.flags: {clip(wanted.flags[0], 40)} is unknown, as all flags are")
    return steps.SetPersonality(domains[wanted.domain])


def _memory_policy(wanted: MemoryPolicy) -> steps.SetMemoryPolicy:
    name = "linux.memoryPolicy"
    if wanted.mode not in mempolicy.MODES:
        raise InvalidArgument(f"{name}.mode {clip(wanted.mode, 40)} is unknown")
    mode = mempolicy.MODES[wanted.mode]
    for flag in wanted.flags:
        if flag not in mempolicy.FLAGS:
            raise InvalidArgument(f"{name}.flags: {clip(flag, 40)} is unknown")
        mode |= mempolicy.FLAGS[flag]
    nodes = cpu_list(f"{name}.nodes", wanted.nodes, mempolicy.MAX_NODES, "nodes") if wanted.nodes.strip() else ()
    return steps.SetMemoryPolicy(mode, nodes)


def cpu_list(name: str, text: str, limit: int = 1 << 16, what: str = "CPUs") -> tuple[int, ...]:
    """ "0-2,7" as (0, 1, 2, 7); `name` is the member's. Raises InvalidArgument."""
    found: set[int] = set()
    try:
        for part in text.replace(" ", "").split(","):
            first, separator, last = part.partition("-")
            low, high = int(first), int(last if separator else first)
            if not 0 <= low <= high < limit:
                raise ValueError
            found.update(range(low, high + 1))
    except ValueError:
        raise InvalidArgument(f"{name}: {clip(text, 60)} is not a list of {what}") from None
    return tuple(sorted(found))


def _rlimits(process: Process) -> tuple[tuple[int, int, int], ...]:
    limits: dict[int, tuple[int, int, int]] = {}
    for index, limit in enumerate(process.rlimits):
        name = f"process.rlimits[{index}]"
        number = getattr(resource, limit.type, None) if limit.type.startswith("RLIMIT_") else None
        if limit.type == "RLIMIT_LOCKS":
            number = 10  # asm-generic/resource.h; without effect since Linux 2.4
        if number is None:
            raise InvalidArgument(f"{name}.type: rlimit {clip(limit.type, 40)} is unknown")
        if number in limits:
            raise InvalidArgument(f"{name}: rlimit {limit.type} is given twice")
        if not 0 <= limit.soft <= limit.hard < 1 << 64:
            raise InvalidArgument(
                f"{name}: {limit.type} {limit.soft}:{limit.hard} is not a soft limit below a hard one"
            )
        limits[int(number)] = (int(number), limit.soft, limit.hard)
    return tuple(limits.values())


def _label(process: Process) -> tuple[str, str]:
    """The file of /proc/self/attr and the value. Raises InvalidArgument when the host cannot enforce the label."""
    if process.apparmor_profile and process.apparmor_profile != "unconfined":
        if not host_features.apparmor():
            raise InvalidArgument("process.apparmorProfile: apparmor is not enabled on this host")
        nested = Path("/proc/self/attr/apparmor/exec").exists()  # since Linux 5.8; the plain one is the first LSM's
        return "apparmor/exec" if nested else "exec", f"exec {process.apparmor_profile}"
    if process.selinux_label:
        if not host_features.selinux():
            raise InvalidArgument("process.selinuxLabel: selinux is not enabled on this host")
        return "exec", process.selinux_label
    return "", ""

"""The part of a plan that a container's first process and a later one have in common."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

from corten.errors import InvalidArgument, clip
from corten.linux import capability
from corten.linux import process as kernel
from corten.runtime import seccomp, steps
from corten.specs.oci_runtime import Capabilities, Linux, Personality, Process, Scheduler

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
    """From a mounted root to execve. Raises InvalidArgument."""
    if not process.args or not process.args[0]:
        raise InvalidArgument("no command specified")
    if not process.cwd.startswith("/"):
        raise InvalidArgument(f"the working directory {clip(process.cwd)} is not an absolute path")
    who = process.user
    yield steps.ResolveUser(user, tuple(groups), who.uid, who.gid, tuple(who.additional_gids))
    if process.oom_score_adj is not None:
        yield steps.SetOomScore(process.oom_score_adj)
    yield steps.NewKeyring(keyring)
    yield from _scheduling(process, linux)
    yield steps.EnterDirectory(process.cwd)
    bounding, effective, permitted, inheritable, ambient = capability_masks(process.capabilities)
    umask = _DEFAULT_UMASK if who.umask is None else who.umask
    yield steps.SwitchUser(umask, bounding, effective, permitted, inheritable)
    env = environment(process.env)
    label = _label(process)
    yield steps.LetGo(label[0])
    yield steps.FindCommand(tuple(process.args), env.get("PATH", ""))
    yield steps.SetRlimits(_rlimits(process))
    program, flags = seccomp.compile_filter(linux.seccomp) if linux.seccomp is not None else (b"", 0)
    yield steps.Execute(
        tuple(f"{name}={value}" for name, value in env.items()),
        (effective, permitted, inheritable, ambient),
        process.no_new_privileges,
        label,
        program,
        flags,
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


def warnings(process: Process) -> Iterator[str]:
    sets = process.capabilities
    for name in (sets.bounding if sets is not None else None) or ():
        if name not in capability.NUMBERS:
            yield f"capability {clip(name, 40)} is unknown and was left out"


def _scheduling(process: Process, linux: Linux) -> Iterator[steps.Step]:
    if process.scheduler is not None:
        yield _scheduler(process.scheduler)
    if (priority := process.io_priority) is not None:
        if priority.class_ not in _IO_CLASSES:
            raise InvalidArgument(f"I/O priority class {clip(priority.class_, 40)} is unknown")
        yield steps.SetIoPriority(_IO_CLASSES[priority.class_], priority.priority)
    if linux.personality is not None:
        yield _personality(linux.personality)
    if process.exec_cpu_affinity is not None and process.exec_cpu_affinity.final:
        yield steps.SetAffinity(cpu_list(process.exec_cpu_affinity.final))


def _scheduler(wanted: Scheduler) -> steps.SetScheduler:
    if wanted.policy not in _POLICIES:
        raise InvalidArgument(f"scheduling policy {clip(wanted.policy, 40)} is unknown")
    flags = 0
    for name in wanted.flags:
        if name not in _SCHED_FLAGS:
            raise InvalidArgument(f"scheduling flag {clip(name, 40)} is unknown")
        flags |= _SCHED_FLAGS[name]
    policy = _POLICIES[wanted.policy]
    return steps.SetScheduler(
        policy, flags, wanted.nice, wanted.priority, wanted.runtime, wanted.deadline, wanted.period
    )


def _personality(wanted: Personality) -> steps.SetPersonality:
    domains = {"": kernel.PER_LINUX, "LINUX": kernel.PER_LINUX, "LINUX32": kernel.PER_LINUX32}
    if wanted.domain not in domains or wanted.flags:
        raise InvalidArgument("this personality is not supported")
    return steps.SetPersonality(domains[wanted.domain])


def cpu_list(text: str) -> tuple[int, ...]:
    """ "0-2,7" as (0, 1, 2, 7). Raises InvalidArgument."""
    found: set[int] = set()
    try:
        for part in text.replace(" ", "").split(","):
            first, separator, last = part.partition("-")
            low, high = int(first), int(last if separator else first)
            if not 0 <= low <= high < 1 << 16:
                raise ValueError
            found.update(range(low, high + 1))
    except ValueError:
        raise InvalidArgument(f"{clip(text, 60)} is not a list of CPUs") from None
    return tuple(sorted(found))


def _rlimits(process: Process) -> tuple[tuple[int, int, int], ...]:
    limits = []
    for limit in process.rlimits:
        number = getattr(resource, limit.type, None) if limit.type.startswith("RLIMIT_") else None
        if limit.type == "RLIMIT_LOCKS":
            number = 10  # asm-generic/resource.h; without effect since Linux 2.4
        if number is None:
            raise InvalidArgument(f"rlimit {clip(limit.type, 40)} is unknown")
        limits.append((int(number), limit.soft, limit.hard))
    return tuple(limits)


def _label(process: Process) -> tuple[str, str]:
    """The file of /proc/self/attr and the value. Raises InvalidArgument when the host cannot enforce the label."""
    if process.apparmor_profile and process.apparmor_profile != "unconfined":
        if not _enabled("/sys/module/apparmor/parameters/enabled"):
            raise InvalidArgument("apparmor is not enabled on this host")
        nested = Path("/proc/self/attr/apparmor/exec").exists()  # since Linux 5.8; the plain one is the first LSM's
        return "apparmor/exec" if nested else "exec", f"exec {process.apparmor_profile}"
    if process.selinux_label:
        if not Path("/sys/fs/selinux/enforce").exists():
            raise InvalidArgument("selinux is not enabled on this host")
        return "exec", process.selinux_label
    return "", ""


def _enabled(path: str) -> bool:
    try:
        return Path(path).read_text().strip() == "Y"
    except OSError:
        return False

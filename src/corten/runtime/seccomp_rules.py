"""What a profile may say: its words checked, each with the name of its member, and made into libseccomp's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corten.errors import InvalidArgument, clip
from corten.linux import seccomp as kernel
from corten.specs.oci_runtime import Seccomp, Syscall, SyscallArg

# seccomp.h of libseccomp
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
ACTIONS = tuple(_ACTIONS)
# What a number with the action can be: an errno at most (MAX_ERRNO of linux/err.h), 16 bits for a tracer.
_WITH_VALUE = {"SCMP_ACT_ERRNO": 4095, "SCMP_ACT_TRACE": 0xFFFF}
NOTIFY = "SCMP_ACT_NOTIFY"
_COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
OPERATORS = tuple(_COMPARISONS)
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": kernel.SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": kernel.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": kernel.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}
FLAGS = tuple(_FLAGS)
ARCHITECTURES = tuple(
    "SCMP_ARCH_" + name
    for name in (
        "X86", "X86_64", "X32", "ARM", "AARCH64", "LOONGARCH64", "M68K", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL",
        "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390", "S390X", "SH", "SHEB", "PARISC", "PARISC64",
        "RISCV64",
    )
)  # fmt: skip
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
# A machine's calls are of these architectures. Those of others never come, and a filter for all of them would be
# longer than the kernel takes.
OF_MACHINE = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_ENOSYS, _EPERM = 38, 1

Comparison = tuple[int, int, int, int]
"""Argument, operator and its one or two values, in the order of struct scmp_arg_cmp."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`where` is the rule's place in the document. Each group of comparisons is an alternative; none is always."""

    where: str
    names: tuple[str, ...]
    action: int
    groups: tuple[tuple[Comparison, ...], ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """A profile that makes sense. `newer_enosys` asks for ENOSYS as the answer to calls newer than the profile."""

    default: int
    newer_enosys: bool
    architectures: tuple[str, ...]
    rules: tuple[Rule, ...]


def check(profile: Seccomp) -> Rules:
    """Raises InvalidArgument."""
    where = "linux.seccomp"
    if profile.default_action == NOTIFY:
        raise InvalidArgument(f"{where}.defaultAction: SCMP_ACT_NOTIFY cannot be the default")
    default = _action(where, "defaultAction", "defaultErrnoRet", profile.default_action, profile.default_errno_ret)
    for index, name in enumerate(profile.architectures):
        if name not in ARCHITECTURES:
            raise InvalidArgument(f"{where}.architectures[{index}]: {clip(name, 60)!r} is unknown")
    rules = tuple(_rule(f"{where}.syscalls[{index}]", rule) for index, rule in enumerate(profile.syscalls))
    _check_listener(where, profile)
    # As runc: a default that lets calls pass, or has a tracer judge them, is left as it is.
    passing = profile.default_action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
    return Rules(default, not passing and default & 0xFFFF != _ENOSYS, tuple(profile.architectures), rules)


def _check_listener(where: str, profile: Seccomp) -> None:
    if profile.listener_metadata and not profile.listener_path:
        raise InvalidArgument(f"{where}.listenerMetadata: means nothing without a listenerPath")
    for index, rule in enumerate(profile.syscalls):
        if rule.action != NOTIFY:
            continue
        if not profile.listener_path:
            raise InvalidArgument(f"{where}.listenerPath: SCMP_ACT_NOTIFY of syscalls[{index}] needs somebody to ask")
        if "write" in rule.names:
            # Other runtimes write to their parent under the filter and refuse it: what runs here runs there.
            raise InvalidArgument(f"{where}.syscalls[{index}]: SCMP_ACT_NOTIFY cannot be used for write")
    if profile.listener_path and (not profile.listener_path.startswith("/") or "\0" in profile.listener_path):
        raise InvalidArgument(f"{where}.listenerPath: {clip(profile.listener_path)!r} is not an absolute path")


def notifies(profile: Seccomp) -> bool:
    """Whether loading the filter makes a listener."""
    return any(rule.action == NOTIFY for rule in profile.syscalls)


def flags_of(profile: Seccomp) -> tuple[int, list[str]]:
    """What to load the filter with, and what is to be said about it. Raises InvalidArgument."""
    flags, warnings = 0, []
    for index, name in enumerate(profile.flags):
        place = f"linux.seccomp.flags[{index}]"
        if name not in _FLAGS:
            raise InvalidArgument(f"{place}: {clip(name, 60)!r} is unknown")
        if not kernel.flag_available(_FLAGS[name]):
            raise InvalidArgument(f"{place}: this kernel has no {name}")
        flags |= _FLAGS[name]
    if notifies(profile):
        if not kernel.action_available(kernel.SECCOMP_RET_USER_NOTIF):
            raise InvalidArgument("linux.seccomp.syscalls: this kernel has no SCMP_ACT_NOTIFY")
        flags |= kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER
        if flags & kernel.SECCOMP_FILTER_FLAG_TSYNC:  # both have something to return; the kernel wants it cleared up
            flags |= kernel.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
    elif flags & kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        flags &= ~kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        warnings.append("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV has no effect in a profile without SCMP_ACT_NOTIFY")
    return flags, warnings


def supported_flags() -> list[str]:
    """The flags that this kernel knows."""
    return [name for name, flag in _FLAGS.items() if kernel.flag_available(flag)]


def takes_errno(action: str) -> bool:
    return action in _WITH_VALUE


def _rule(where: str, rule: Syscall) -> Rule:
    action = _action(where, "action", "errnoRet", rule.action, rule.errno_ret)
    if not rule.names or "" in rule.names:
        raise InvalidArgument(f"{where}.names: a rule needs the names of system calls")
    comparisons = [_comparison(f"{where}.args[{index}]", arg) for index, arg in enumerate(rule.args)]
    return Rule(where, tuple(rule.names), action, _groups(comparisons))


def _groups(comparisons: Sequence[Comparison]) -> tuple[tuple[Comparison, ...], ...]:
    """One rule may compare an argument once; several comparisons of one argument make all of the rule's comparisons
    alternatives, as in runc."""
    indices = [comparison[0] for comparison in comparisons]
    if len(set(indices)) == len(indices):
        return (tuple(comparisons),)
    return tuple((one,) for one in comparisons)


def _comparison(where: str, arg: SyscallArg) -> Comparison:
    if arg.op not in _COMPARISONS:
        raise InvalidArgument(f"{where}.op: {clip(arg.op, 60)!r} is unknown")
    if not 0 <= arg.index <= 5:
        raise InvalidArgument(f"{where}.index: {arg.index} is not one of 0 to 5")
    for name, value in (("value", arg.value), ("valueTwo", arg.value_two)):
        if not 0 <= value < 1 << 64:
            raise InvalidArgument(f"{where}.{name}: {value} does not fit 64 bits")
    return arg.index, _COMPARISONS[arg.op], arg.value, arg.value_two


def _action(where: str, member: str, number: str, name: str, value: int | None) -> int:
    if name not in _ACTIONS:
        raise InvalidArgument(f"{where}.{member}: {clip(name, 60)!r} is unknown")
    limit = _WITH_VALUE.get(name)
    if limit is None:
        if value is not None:  # the specification wants it refused
            raise InvalidArgument(f"{where}.{number}: {name} takes none")
        return _ACTIONS[name]
    if value is not None and not 0 <= value <= limit:
        raise InvalidArgument(f"{where}.{number}: {value} is not one of 0 to {limit}")
    return _ACTIONS[name] | (_EPERM if value is None else value)

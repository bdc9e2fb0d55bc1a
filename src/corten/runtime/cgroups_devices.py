"""Device rules of a control group: what they come to, and as a BPF program for version 2."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from corten.errors import InvalidArgument, clip
from corten.runtime.cgroups_values import within
from corten.specs.oci_runtime import DeviceCgroup

# linux/bpf.h: bpf_cgroup_dev_ctx.access_type
BPF_DEVCG_DEV = {"b": 1, "c": 2}
BPF_DEVCG_ACC = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS = frozenset("rwm")

# linux/bpf_common.h, linux/bpf.h: the few instructions used.
_LDX_W = 0x61  # dst = *(u32 *)(src + off)
_AND_K = 0x54  # BPF_ALU, 32 bits
_RSH_K = 0x74
_MOV_X = 0xBC
_MOV_K = 0xB4
_JNE_K = 0x56  # BPF_JMP32
_JEQ_K = 0x16
_EXIT = 0x95

# What every container may use: null, zero, full, random, urandom, tty, console, ptmx and pseudo terminals; it may make
# any node, as without a rule here it cannot open it.
_ALWAYS_ALLOWED = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)


def always_allowed() -> list[DeviceCgroup]:
    """Rules for the devices without which hardly a program runs; they go behind what denies everything."""
    return [
        DeviceCgroup(allow=True, type=kind, major=major, minor=minor, access=access)
        for kind, major, minor, access in _ALWAYS_ALLOWED
    ]


@dataclass(frozen=True, slots=True)
class Exemption:
    """Devices that are judged other than by default; None for major or minor is any of them."""

    kind: str
    major: int | None
    minor: int | None
    access: frozenset[str]

    def line(self) -> str:
        """As devices.allow and devices.deny of version 1 take it."""
        major = "*" if self.major is None else str(self.major)
        minor = "*" if self.minor is None else str(self.minor)
        return f"{self.kind} {major}:{minor} {''.join(letter for letter in 'rwm' if letter in self.access)}"


Key = tuple[str, int | None, int | None]
"""Type, major and minor of a rule; None is any."""


def check(rules: Iterable[DeviceCgroup]) -> None:
    """Raises InvalidArgument, with the rule's place, for an unknown type or access."""
    for index, rule in enumerate(rules):
        member = f"linux.resources.devices[{index}]"
        if not frozenset(rule.access) <= _ALL_ACCESS:
            raise InvalidArgument(f"{member}.access: invalid device access {clip(rule.access, 20)}")
        if rule.type in ("", "a"):
            if _key(rule)[1:] != (None, None):
                raise InvalidArgument(f"{member}: a device rule for all types cannot name a number")
        elif rule.type not in BPF_DEVCG_DEV:
            raise InvalidArgument(f"{member}.type: invalid device type {clip(rule.type, 20)}")
        for name, number in (("major", rule.major), ("minor", rule.minor)):
            within(f"devices[{index}].{name}", number, -1, (1 << 31) - 1)


def _key(rule: DeviceCgroup) -> Key:
    major = None if rule.major is None or rule.major < 0 else rule.major
    minor = None if rule.minor is None or rule.minor < 0 else rule.minor
    return rule.type, major, minor


def _access(rule: DeviceCgroup) -> frozenset[str]:
    return frozenset(rule.access) or _ALL_ACCESS


class DeviceRules:
    """The rules applied one after the other, to what version 1 can hold: a default, and devices that are excepted.

    Where nothing is said of a device, it is refused: a list of what is allowed is meant to be complete.
    """

    def __init__(self) -> None:
        self.allow_by_default = False
        self._found: dict[Key, frozenset[str]] = {}

    @classmethod
    def of(cls, rules: Iterable[DeviceCgroup]) -> DeviceRules:
        """Rules that have passed `check`. Raises InvalidArgument for one that takes a device out of a wildcard, which
        version 1 cannot hold."""
        result = cls()
        for index, rule in enumerate(rules):
            result._apply(rule, index)
        return result

    def exceptions(self) -> Iterator[Exemption]:
        for (kind, major, minor), access in self._found.items():
            yield Exemption(kind, major, minor, access)

    def is_open(self) -> bool:
        """Whether every device may be used."""
        return self.allow_by_default and not self._found

    def _apply(self, rule: DeviceCgroup, index: int) -> None:
        key, access = _key(rule), _access(rule)
        if rule.type in ("", "a"):
            # The kernel forgets all exceptions here, whatever the access says.
            self.allow_by_default = rule.allow
            self._found.clear()
        elif rule.allow != self.allow_by_default:
            self._found[key] = self._found.get(key, frozenset()) | access
        else:
            self._take_back(key, access, index)

    def _take_back(self, key: Key, access: frozenset[str], index: int) -> None:
        """What the rule covers is excepted no more. The kernel would only find an exception with the very same key."""
        for other, before in list(self._found.items()):
            if not access & before or not _overlap(other, key):
                continue
            if not _covers(key, other):
                raise InvalidArgument(
                    f"linux.resources.devices[{index}] cannot be set: cgroup v1 cannot take a device out of the"
                    f" wildcard rule {Exemption(*other, before).line()}"
                )
            if before <= access:
                del self._found[other]
            else:
                self._found[other] = before - access


def _overlap(one: Key, other: Key) -> bool:
    return one[0] == other[0] and all(a is None or b is None or a == b for a, b in zip(one[1:], other[1:], strict=True))


def _covers(wide: Key, narrow: Key) -> bool:
    return wide[0] == narrow[0] and all(a is None or a == b for a, b in zip(wide[1:], narrow[1:], strict=True))


def bpf_program(rules: Sequence[DeviceCgroup]) -> bytes:
    """A BPF_PROG_TYPE_CGROUP_DEVICE program: returns 1 to allow, 0 to refuse. Empty when it would allow everything.

    For each letter of the access wanted the last rule that matches decides; what no rule decides is refused. r2 holds
    the type, r3 the access that is not decided yet, r4 and r5 major and minor.
    """
    default, last = False, list(rules)
    for index, rule in enumerate(rules):
        if rule.type in ("", "a"):
            default, last = rule.allow, list(rules[index + 1 :])
    if default and all(rule.allow for rule in last):
        return b""
    code = [
        _instruction(_LDX_W, 2, 1, 0),
        _instruction(_MOV_X, 3, 2),
        _instruction(_AND_K, 2, constant=0xFFFF),
        _instruction(_RSH_K, 3, constant=16),
        _instruction(_LDX_W, 4, 1, 4),
        _instruction(_LDX_W, 5, 1, 8),
    ]
    for rule in reversed(last):
        code += _judge(rule)
    code += [_instruction(_MOV_K, 0, constant=int(default)), _instruction(_EXIT)]
    return b"".join(code)


def _judge(rule: DeviceCgroup) -> list[bytes]:
    (kind, major, minor), access = _key(rule), _access(rule)
    tests: list[tuple[int, int]] = [(2, BPF_DEVCG_DEV[kind])]
    if major is not None:
        tests.append((4, major))
    if minor is not None:
        tests.append((5, minor))
    verdict = [_instruction(_MOV_K, 0, constant=int(rule.allow)), _instruction(_EXIT)]
    bits = sum(BPF_DEVCG_ACC[letter] for letter in access)
    if access != _ALL_ACCESS and rule.allow:
        # Allowed letters are struck out; when none is left, all have been.
        verdict = [
            _instruction(_AND_K, 3, constant=~bits & 7),
            _instruction(_JNE_K, 3, offset=len(verdict)),
            *verdict,
        ]
    elif access != _ALL_ACCESS:
        # r1 holds the context no longer: it is free for the letters that are refused here.
        verdict = [
            _instruction(_MOV_X, 1, 3),
            _instruction(_AND_K, 1, constant=bits),
            _instruction(_JEQ_K, 1, offset=len(verdict)),
            *verdict,
        ]
    code = []
    for index, (register, value) in enumerate(tests):
        skip = len(tests) - index - 1 + len(verdict)
        code.append(_instruction(_JNE_K, register, offset=skip, constant=value))
    return code + verdict


def _instruction(opcode: int, target: int = 0, source: int = 0, offset: int = 0, *, constant: int = 0) -> bytes:
    """struct bpf_insn."""
    return struct.pack("<BBhi", opcode, target | source << 4, offset, constant)

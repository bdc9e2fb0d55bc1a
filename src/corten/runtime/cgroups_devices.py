"""Device rules of a control group: what they come to, and as a BPF program for version 2."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from corten.errors import InvalidArgument, clip
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


@dataclass(slots=True)
class DeviceRules:
    """The rules applied one after the other, as the kernel's version 1 controller does it."""

    allow_by_default: bool = True
    _found: dict[tuple[str, int | None, int | None], frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: Iterable[DeviceCgroup]) -> DeviceRules:
        """Raises InvalidArgument for an unknown type or access."""
        result = cls()
        for rule in rules:
            result._apply(rule)
        return result

    def exceptions(self) -> Iterator[Exemption]:
        for (kind, major, minor), access in self._found.items():
            yield Exemption(kind, major, minor, access)

    def is_open(self) -> bool:
        """Whether every device may be used."""
        return self.allow_by_default and not self._found

    def _apply(self, rule: DeviceCgroup) -> None:
        access = frozenset(rule.access) or _ALL_ACCESS
        if not access <= _ALL_ACCESS:
            raise InvalidArgument(f"invalid device access {clip(rule.access, 20)}")
        major = None if rule.major is None or rule.major < 0 else rule.major
        minor = None if rule.minor is None or rule.minor < 0 else rule.minor
        if rule.type in ("", "a"):
            if (major, minor) != (None, None):
                raise InvalidArgument("a device rule for all types cannot name a number")
            # The kernel forgets all exceptions here, whatever the access says.
            self.allow_by_default = rule.allow
            self._found.clear()
            return
        if rule.type not in BPF_DEVCG_DEV:
            raise InvalidArgument(f"invalid device type {clip(rule.type, 20)}")
        key = (rule.type, major, minor)
        before = self._found.get(key, frozenset())
        after = before - access if rule.allow == self.allow_by_default else before | access
        if after:
            self._found[key] = after
        else:
            self._found.pop(key, None)


def bpf_program(rules: DeviceRules) -> bytes:
    """A BPF_PROG_TYPE_CGROUP_DEVICE program: returns 1 to allow, 0 to refuse.

    r2 holds the type, r3 the access wanted, r4 and r5 major and minor. Where all is refused by default an exception
    allows when it covers all of the access wanted; where all is allowed it refuses when it covers a part.
    """
    code = [
        _instruction(_LDX_W, 2, 1, 0),
        _instruction(_MOV_X, 3, 2),
        _instruction(_AND_K, 2, constant=0xFFFF),
        _instruction(_RSH_K, 3, constant=16),
        _instruction(_LDX_W, 4, 1, 4),
        _instruction(_LDX_W, 5, 1, 8),
    ]
    for exception in rules.exceptions():
        code += _judge(exception, rules.allow_by_default)
    code += [_instruction(_MOV_K, 0, constant=int(rules.allow_by_default)), _instruction(_EXIT)]
    return b"".join(code)


def _judge(exception: Exemption, allow_by_default: bool) -> list[bytes]:
    bits = sum(BPF_DEVCG_ACC[letter] for letter in exception.access)
    tests: list[tuple[int, int, int]] = [(_JNE_K, 2, BPF_DEVCG_DEV[exception.kind])]
    if exception.major is not None:
        tests.append((_JNE_K, 4, exception.major))
    if exception.minor is not None:
        tests.append((_JNE_K, 5, exception.minor))
    verdict = [_instruction(_MOV_K, 0, constant=int(not allow_by_default)), _instruction(_EXIT)]
    every = exception.access == _ALL_ACCESS
    if not every:
        # r1 holds the context no longer: it is free for the bits that decide.
        mask = bits if allow_by_default else ~bits & 7
        decide = [
            _instruction(_MOV_X, 1, 3),
            _instruction(_AND_K, 1, constant=mask),
            _instruction(_JEQ_K if allow_by_default else _JNE_K, 1, offset=len(verdict)),
        ]
        verdict = decide + verdict
    code = []
    for index, (opcode, register, value) in enumerate(tests):
        skip = len(tests) - index - 1 + len(verdict)
        code.append(_instruction(opcode, register, offset=skip, constant=value))
    return code + verdict


def _instruction(opcode: int, target: int = 0, source: int = 0, offset: int = 0, *, constant: int = 0) -> bytes:
    """struct bpf_insn."""
    return struct.pack("<BBhi", opcode, target | source << 4, offset, constant)

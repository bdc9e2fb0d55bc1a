"""Device rules, as version 1's files and as version 2's program."""

from __future__ import annotations

import itertools
import struct

import pytest

from corten.errors import InvalidArgument
from corten.runtime.cgroups import BPF_FILE, Hierarchy, Layout
from corten.runtime.cgroups_devices import BPF_DEVCG_ACC, BPF_DEVCG_DEV, DeviceRules, always_allowed, bpf_program, check
from corten.runtime.cgroups_limits import compile_limits
from corten.specs.oci_runtime import DeviceCgroup, Resources

V1 = Layout("", (Hierarchy(("devices",), "/cg/devices"),))
V2 = Layout("/cg", ())

DEFAULT = [
    DeviceCgroup(allow=False, access="rwm"),
    DeviceCgroup(allow=True, type="c", access="m"),
    DeviceCgroup(allow=True, type="b", access="m"),
    DeviceCgroup(allow=True, type="c", major=1, minor=3, access="rwm"),
    DeviceCgroup(allow=True, type="c", major=136, access="rwm"),
    DeviceCgroup(allow=True, type="c", major=5, minor=1, access="rw"),
]
OPEN_BUT = [
    DeviceCgroup(allow=True, type="a", access="rwm"),
    DeviceCgroup(allow=False, type="b", major=8, minor=0, access="w"),
    DeviceCgroup(allow=False, type="c", major=10, access="rwm"),
]


def test_device_rules_of_version_1() -> None:
    member = "linux.resources.devices"
    written = compile_limits(Resources(devices=DEFAULT), V1)
    assert written == (
        ("devices", "devices.deny", "a", member),
        ("devices", "devices.allow", "c *:* m\nb *:* m\nc 1:3 rwm\nc 136:* rwm\nc 5:1 rw", member),
    )
    assert compile_limits(Resources(devices=OPEN_BUT), V1)[0] == ("devices", "devices.allow", "a", member)


def test_all_allowed_needs_no_rule() -> None:
    everything = [DeviceCgroup(allow=False), DeviceCgroup(allow=True, type="a", access="rwm")]
    assert compile_limits(Resources(devices=everything), V1) == ()
    assert compile_limits(Resources(devices=everything), V2) == ()


def test_a_list_of_what_is_allowed_is_complete() -> None:
    only = [DeviceCgroup(allow=True, type="c", major=1, minor=3)]
    assert [value for _, _, value, _ in compile_limits(Resources(devices=only), V1)] == ["a", "c 1:3 rwm"]
    assert (judge(only, "c", "r", 1, 3), judge(only, "c", "r", 1, 5)) == (1, 0)


def test_a_rule_can_be_taken_back() -> None:
    rules = DeviceRules.of([*DEFAULT, DeviceCgroup(allow=False, type="c", major=5, minor=1, access="w")])
    assert "c 5:1 r" in [rule.line() for rule in rules.exceptions()]


def test_a_wildcard_takes_back_all_that_it_covers() -> None:
    rules = DeviceRules.of([*DEFAULT, DeviceCgroup(allow=False, type="c", access="rwm")])
    assert [rule.line() for rule in rules.exceptions()] == ["b *:* m"]


def test_version_1_cannot_take_a_device_out_of_a_wildcard() -> None:
    """The kernel would take the line and let the device be used all the same."""
    hole = DeviceCgroup(allow=False, type="c", major=136, minor=4, access="w")
    with pytest.raises(InvalidArgument, match=r"devices\[6\] cannot be set: .* wildcard rule c 136:\* rwm"):
        compile_limits(Resources(devices=[*DEFAULT, hole]), V1)
    assert judge([*DEFAULT, hole], "c", "w", 136, 4) == 0
    assert judge([*DEFAULT, hole], "c", "r", 136, 4) == 1
    assert judge([*DEFAULT, hole], "c", "w", 136, 5) == 1


@pytest.mark.parametrize(
    "rule",
    [
        DeviceCgroup(allow=True, type="x"),
        DeviceCgroup(allow=True, type="c", access="q"),
        DeviceCgroup(allow=True, type="a", major=1),
    ],
)
def test_bad_device_rules(rule: DeviceCgroup) -> None:
    with pytest.raises(InvalidArgument):
        check([rule])


def interpret(program: bytes, kind: str, access: str, major: int, minor: int) -> int:
    """Run the program as the kernel would: only the instructions that it may contain."""
    wanted = sum(BPF_DEVCG_ACC[letter] for letter in access)
    context = {0: wanted << 16 | BPF_DEVCG_DEV[kind], 4: major, 8: minor}
    registers = [0] * 11
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    at = 0
    while True:
        opcode, both, offset, constant = code[at]
        target, source = both & 15, both >> 4
        at += 1
        match opcode:
            case 0x61:
                registers[target] = context[offset]
            case 0x54:
                registers[target] &= constant
            case 0x74:
                registers[target] >>= constant
            case 0xBC:
                registers[target] = registers[source]
            case 0xB4:
                registers[target] = constant
            case 0x56:
                at += offset if registers[target] != constant else 0
            case 0x16:
                at += offset if registers[target] == constant else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"opcode {opcode:#x}")


def judge(rules: list[DeviceCgroup], kind: str, access: str, major: int, minor: int) -> int:
    return interpret(bpf_program(rules), kind, access, major, minor)


def expected(rules: list[DeviceCgroup], kind: str, access: str, major: int, minor: int) -> int:
    """For each letter the last rule that speaks of it decides; what none speaks of is refused."""
    verdict = dict.fromkeys(access, False)
    for rule in rules:
        if rule.type in ("", "a"):
            verdict = dict.fromkeys(access, rule.allow)
        elif rule.type == kind and rule.major in (None, -1, major) and rule.minor in (None, -1, minor):
            verdict |= dict.fromkeys(set(rule.access or "rwm") & set(access), rule.allow)
    return int(all(verdict.values()))


HOLES = [
    *DEFAULT,
    DeviceCgroup(allow=True, type="b", major=8, access="rw"),
    DeviceCgroup(allow=False, type="b", major=8, minor=1, access="w"),
    DeviceCgroup(allow=False, type="c", major=5, minor=-1, access="m"),
    DeviceCgroup(allow=True, type="c", major=5, minor=1, access="m"),
]


@pytest.mark.parametrize(
    "given",
    [DEFAULT, OPEN_BUT, HOLES, [DeviceCgroup(allow=False)], [*DEFAULT, *OPEN_BUT], DEFAULT[3:],
     [DeviceCgroup(allow=False), *always_allowed()]],
)  # fmt: skip
def test_the_program_judges_rule_by_rule(given: list[DeviceCgroup]) -> None:
    program = bpf_program(given)
    accesses = ["".join(letters) for size in (1, 2, 3) for letters in itertools.combinations("rwm", size)]
    numbers = [(1, 3), (1, 5), (5, 1), (5, 2), (8, 0), (8, 1), (10, 200), (136, 7), (300000, 70000)]
    for kind, access, (major, minor) in itertools.product("bc", accesses, numbers):
        case = (kind, access, major, minor)
        assert interpret(program, *case) == expected(given, *case), case


def test_both_versions_agree() -> None:
    for given in (DEFAULT, OPEN_BUT):
        rules = DeviceRules.of(given)
        for number in ((1, 3), (5, 1), (8, 0), (10, 200), (136, 7)):
            for kind, letter in itertools.product("bc", "rwm"):
                found = [e for e in rules.exceptions() if e.kind == kind and letter in e.access
                         and e.major in (None, number[0]) and e.minor in (None, number[1])]  # fmt: skip
                allowed = bool(found) != rules.allow_by_default
                assert judge(given, kind, letter, *number) == int(allowed), (kind, letter, number)


def test_version_2_attaches_a_program() -> None:
    [(controller, name, value, _)] = compile_limits(Resources(devices=DEFAULT), V2)
    assert (controller, name) == ("devices", BPF_FILE)
    assert isinstance(value, bytes)

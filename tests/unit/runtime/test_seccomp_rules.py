"""What a seccomp profile may say, and that a compiled filter decides as the profile says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corten.errors import InvalidArgument
from corten.linux import seccomp as kernel
from corten.runtime import seccomp, seccomp_rules
from corten.runtime.seccomp_profile import default_profile
from corten.runtime.seccomp_rules import check, flags_of
from corten.specs.oci_runtime import Seccomp, Syscall, SyscallArg
from tests.unit.runtime.test_seccomp import ALLOW, DOCKER, ERRNO, I386, X86_64, judge, library_or_skip

LOG, TRAP, TRACE, NOTIFY = 0x7FFC0000, 0x00030000, 0x7FF00000, 0x7FC00000


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    yield
    seccomp.use_cache(None)
    seccomp._memory.clear()


def arg(index: int = 0, op: str = "SCMP_CMP_EQ", value: int = 0, two: int = 0) -> SyscallArg:
    return SyscallArg(index=index, op=op, value=value, value_two=two)


def rule(action: str = "SCMP_ACT_ALLOW", *args: SyscallArg, errno: int | None = None, name: str = "getpriority") -> Any:
    return Syscall(names=[name], action=action, args=list(args), errno_ret=errno)


def profile(*rules: Syscall, default: str = "SCMP_ACT_ERRNO", **more: Any) -> Seccomp:
    return Seccomp(default_action=default, syscalls=list(rules), **more)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (profile(default="SCMP_ACT_ODD"), "linux.seccomp.defaultAction: 'SCMP_ACT_ODD' is unknown"),
        (profile(default=""), "linux.seccomp.defaultAction: '' is unknown"),
        (profile(default="SCMP_ACT_NOTIFY"), "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default"),
        (
            profile(default="SCMP_ACT_KILL", default_errno_ret=1),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_KILL takes none",
        ),
        (profile(default_errno_ret=4096), "linux.seccomp.defaultErrnoRet: 4096 is not one of 0 to 4095"),
        (
            profile(architectures=["SCMP_ARCH_ARM", "SCMP_ARCH_VAX"]),
            "linux.seccomp.architectures[1]: 'SCMP_ARCH_VAX' is unknown",
        ),
        (profile(rule(), rule("x")), "linux.seccomp.syscalls[1].action: 'x' is unknown"),
        (profile(rule(errno=1)), "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW takes none"),
        (profile(rule("SCMP_ACT_TRACE", errno=-1)), "linux.seccomp.syscalls[0].errnoRet: -1 is not one of 0 to 65535"),
        (profile(rule(name="")), "linux.seccomp.syscalls[0].names: a rule needs the names of system calls"),
        (
            profile(Syscall(names=[], action="SCMP_ACT_ALLOW")),
            "linux.seccomp.syscalls[0].names: a rule needs the names of system calls",
        ),
        (
            profile(rule("SCMP_ACT_LOG", arg(), arg(op="SCMP_CMP_ODD"))),
            "linux.seccomp.syscalls[0].args[1].op: 'SCMP_CMP_ODD' is unknown",
        ),
        (
            profile(rule("SCMP_ACT_LOG", arg(index=6))),
            "linux.seccomp.syscalls[0].args[0].index: 6 is not one of 0 to 5",
        ),
        (
            profile(rule("SCMP_ACT_LOG", arg(value=1 << 64))),
            "linux.seccomp.syscalls[0].args[0].value: 18446744073709551616 does not fit 64 bits",
        ),
        (
            profile(rule("SCMP_ACT_LOG", arg(two=-1))),
            "linux.seccomp.syscalls[0].args[0].valueTwo: -1 does not fit 64 bits",
        ),
        (
            profile(rule("SCMP_ACT_NOTIFY")),
            "linux.seccomp.listenerPath: SCMP_ACT_NOTIFY of syscalls[0] needs somebody to ask",
        ),
        (
            profile(rule("SCMP_ACT_NOTIFY"), listener_path="x"),
            "linux.seccomp.listenerPath: 'x' is not an absolute path",
        ),
        (
            profile(rule("SCMP_ACT_NOTIFY", name="write"), listener_path="/x"),
            "linux.seccomp.syscalls[0]: SCMP_ACT_NOTIFY cannot be used for write",
        ),
        (profile(listener_metadata="x"), "linux.seccomp.listenerMetadata: means nothing without a listenerPath"),
    ],
)
def test_what_no_profile_may_say(wrong: Seccomp, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(wrong)
    assert str(caught.value) == message
    library_or_skip()
    with pytest.raises(InvalidArgument):
        seccomp.compile_filter(wrong)


def test_flags() -> None:
    def flags(*names: str, asks: bool = False) -> int:
        rules = [rule("SCMP_ACT_NOTIFY")] if asks else []
        made = profile(*rules, flags=[f"SECCOMP_FILTER_FLAG_{name}" for name in names], listener_path="/x")
        return flags_of(made)[0]

    assert flags() == 0
    assert flags("LOG") == kernel.SECCOMP_FILTER_FLAG_LOG
    assert flags("TSYNC", "SPEC_ALLOW") == 1 | 4
    assert flags(asks=True) == kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER
    assert flags("TSYNC", "WAIT_KILLABLE_RECV", asks=True) == 1 | 8 | 16 | 32
    with pytest.raises(InvalidArgument, match=r"linux\.seccomp\.flags\[1\]: 'SECCOMP_FILTER_FLAG_ODD' is unknown"):
        flags("LOG", "ODD")


def test_a_flag_that_waits_for_nobody_is_left_out_with_a_word() -> None:
    flags, warnings = flags_of(profile(flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]))
    assert flags == 0
    assert warnings == ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV has no effect in a profile without SCMP_ACT_NOTIFY"]


def test_what_the_kernel_lacks_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "flag_available", lambda flag: flag != kernel.SECCOMP_FILTER_FLAG_LOG)
    monkeypatch.setattr(kernel, "action_available", lambda action: False)
    with pytest.raises(InvalidArgument, match=r"flags\[0\]: this kernel has no SECCOMP_FILTER_FLAG_LOG"):
        flags_of(profile(flags=["SECCOMP_FILTER_FLAG_LOG"]))
    with pytest.raises(InvalidArgument, match="this kernel has no SCMP_ACT_NOTIFY"):
        flags_of(profile(rule("SCMP_ACT_NOTIFY"), listener_path="/x"))


def test_the_kernel_is_asked_what_it_has() -> None:
    assert kernel.flag_available(kernel.SECCOMP_FILTER_FLAG_LOG)
    assert not kernel.flag_available(1 << 20)
    assert kernel.action_available(0x7FFF0000)
    assert not kernel.action_available(0x12340000)


@pytest.mark.parametrize(
    ("action", "errno", "verdict"),
    [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x80000000),
        ("SCMP_ACT_TRAP", None, TRAP),
        ("SCMP_ACT_ERRNO", None, ERRNO | 1),
        ("SCMP_ACT_ERRNO", 0, ERRNO),
        ("SCMP_ACT_ERRNO", 95, ERRNO | 95),
        ("SCMP_ACT_TRACE", None, TRACE | 1),
        ("SCMP_ACT_TRACE", 0x1234, TRACE | 0x1234),
        ("SCMP_ACT_LOG", None, LOG),
        ("SCMP_ACT_NOTIFY", None, NOTIFY),
    ],
)
def test_each_action(action: str, errno: int | None, verdict: int) -> None:
    library_or_skip()
    made = profile(rule(action, errno=errno), default="SCMP_ACT_ALLOW", listener_path="/x")
    program = seccomp.compile_filter(made).program
    assert judge(program, 140) == verdict
    assert judge(program, 0) == ALLOW
    if action != "SCMP_ACT_NOTIFY":
        turned = profile(rule("SCMP_ACT_ALLOW"), default=action, default_errno_ret=errno)
        program = seccomp.compile_filter(turned).program
        assert (judge(program, 140), judge(program, 0)) == (ALLOW, verdict)


_TESTS = {
    "SCMP_CMP_NE": lambda value, one, two: value != one,
    "SCMP_CMP_LT": lambda value, one, two: value < one,
    "SCMP_CMP_LE": lambda value, one, two: value <= one,
    "SCMP_CMP_EQ": lambda value, one, two: value == one,
    "SCMP_CMP_GE": lambda value, one, two: value >= one,
    "SCMP_CMP_GT": lambda value, one, two: value > one,
    "SCMP_CMP_MASKED_EQ": lambda value, one, two: value & one == two,
}
HALVES = [0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF]
VALUES = [high << 32 | low for high in HALVES for low in HALVES]


@pytest.mark.parametrize("op", seccomp_rules.OPERATORS)
def test_each_operator_over_64_bits(op: str) -> None:
    library_or_skip()
    for one in VALUES:
        two = one & 0x1_0000_0001 if op == "SCMP_CMP_MASKED_EQ" else 0
        program = seccomp.compile_filter(profile(rule("SCMP_ACT_ALLOW", arg(0, op, one, two)))).program
        for value in VALUES:
            expected = ALLOW if _TESTS[op](value, one, two) else ERRNO | 1
            assert judge(program, 140, args=(value,)) == expected, (op, hex(one), hex(value))


def verdict_of(made: Seccomp, name: str, args: tuple[int, ...]) -> int:
    """What the document says, read by hand: any rule of the call whose comparisons all hold; of one that compares an
    argument twice, whose comparisons hold at all."""
    for rule in made.syscalls:
        if name not in rule.names:
            continue
        held = [_TESTS[a.op](args[a.index], a.value, a.value_two) for a in rule.args]
        twice = len({a.index for a in rule.args}) < len(rule.args)
        if any(held) if twice else all(held):
            return ALLOW if rule.action == "SCMP_ACT_ALLOW" else ERRNO | (rule.errno_ret or 1)
    return ERRNO | 1


NUMBERS = {"read": 0, "socket": 41, "clone": 56, "personality": 135, "getpriority": 140, "mount": 165, "clone3": 435}


@pytest.mark.parametrize("capabilities", [[], DOCKER, ["CAP_SYS_ADMIN"]])
def test_dockers_profile_decides_as_it_reads(capabilities: list[str]) -> None:
    """Every call that the library knows, with the arguments around which the profile decides."""
    library_or_skip()
    made = default_profile(capabilities, "x86_64")
    program = seccomp.compile_filter(made).program
    library = seccomp._Library.get()
    names = {name for rule in made.syscalls for name in rule.names} | {"mount", "umount2", "kexec_load", "swapon"}
    interesting = {0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0x10000000, 37, 38, 39, 40, 41, 0x3D0F00, 1 << 32, 1 << 32 | 8}
    checked = 0
    for name in sorted(names):
        number = library.resolve(name.encode())
        if number < 0:
            continue
        for value in interesting:
            args = (value, 0, 0, 0, 0, 0)
            assert judge(program, number, args=args) == verdict_of(made, name, args), (name, hex(value))
            checked += 1
    assert checked > 4000


Call = tuple[str, tuple[int, ...]]


@st.composite
def profiles(draw: st.DrawFn) -> tuple[Seccomp, list[Call]]:
    """Profiles, and calls near what they compare with.

    Each call has one rule of any kind, or several that compare for equality: libseccomp 2.5 gets some ranges of one
    argument in several rules wrong, which is not ours to test.
    """
    words = st.sampled_from(VALUES)
    rules = []
    for name in draw(st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, max_size=4, unique=True)):
        action, errno = draw(st.sampled_from([("SCMP_ACT_ALLOW", None), ("SCMP_ACT_ERRNO", 22)]))
        count = draw(st.integers(1, 3))
        operators = seccomp_rules.OPERATORS if count == 1 else ("SCMP_CMP_EQ",)
        for _ in range(count):
            args = []
            for index in draw(st.lists(st.integers(0, 2), max_size=3, unique=count == 1)):
                op, one = draw(st.sampled_from(operators)), draw(words)
                args.append(arg(index, op, one, draw(words) & one if op == "SCMP_CMP_MASKED_EQ" else 0))
            rules.append(rule(action, *args, errno=errno, name=name))
    asked: list[Call] = []
    for name in NUMBERS:
        asked += [(name, (draw(words), draw(words), draw(words), 0, 0, 0)) for _ in range(3)]
    return profile(*rules), asked


@settings(max_examples=60)
@given(profiles())
def test_any_profile_decides_as_it_reads(case: tuple[Seccomp, list[Call]]) -> None:
    library_or_skip()
    made, asked = case
    program = seccomp.compile_filter(made).program
    highest = max(NUMBERS[name] for rule in made.syscalls for name in rule.names)
    for name, args in asked:
        number = NUMBERS[name]
        expected = ERRNO | 38 if number > highest else verdict_of(made, name, args)
        assert judge(program, number, args=args) == expected, (made, name, args)


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        ([rule("SCMP_ACT_ALLOW"), rule("SCMP_ACT_LOG")], ALLOW),
        ([rule("SCMP_ACT_LOG"), rule("SCMP_ACT_ALLOW")], LOG),
        ([rule("SCMP_ACT_ALLOW", arg(value=1)), rule("SCMP_ACT_LOG")], LOG),
        ([rule("SCMP_ACT_LOG"), rule("SCMP_ACT_ALLOW", arg(value=1))], LOG),
        ([rule("SCMP_ACT_ALLOW", arg(value=1)), rule("SCMP_ACT_LOG", arg(value=1))], ALLOW),
        ([rule("SCMP_ACT_ALLOW", arg(0, "SCMP_CMP_GE", 1)), rule("SCMP_ACT_LOG", arg(value=1))], LOG),
    ],
)
def test_rules_that_disagree_are_settled_as_libseccomp_does(rules: list[Syscall], verdict: int) -> None:
    """The first of equals; without comparisons before with; equality before ranges."""
    library_or_skip()
    assert judge(seccomp.compile_filter(profile(*rules)).program, 140, args=(1,)) == verdict


@pytest.mark.parametrize(
    ("default", "errno", "newest"),
    [
        ("SCMP_ACT_ERRNO", None, ERRNO | 38),
        ("SCMP_ACT_ERRNO", 38, ERRNO | 38),
        ("SCMP_ACT_ERRNO", 13, ERRNO | 38),
        ("SCMP_ACT_KILL_PROCESS", None, ERRNO | 38),
        ("SCMP_ACT_TRAP", None, ERRNO | 38),
        ("SCMP_ACT_LOG", None, LOG),
        ("SCMP_ACT_TRACE", 7, TRACE | 7),
        ("SCMP_ACT_ALLOW", None, ALLOW),
    ],
)
def test_calls_newer_than_the_profile(default: str, errno: int | None, newest: int) -> None:
    library_or_skip()
    made = profile(
        rule("SCMP_ACT_KILL_THREAD"), default=default, default_errno_ret=errno, architectures=["SCMP_ARCH_X86"]
    )
    program = seccomp.compile_filter(made).program
    assert judge(program, 9999) == newest
    assert judge(program, 9999, I386) == newest
    assert judge(program, 140) == 0


def test_all_architectures_of_the_schema_go_with_this_machine() -> None:
    """Those of other machines never call; a filter for all of them would be too long for the kernel."""
    library_or_skip()
    made = default_profile(DOCKER, "x86_64")
    made.architectures = list(seccomp_rules.ARCHITECTURES)
    assert len(seccomp_rules.ARCHITECTURES) == 23
    program = seccomp.compile_filter(made).program
    assert program == seccomp.compile_filter(default_profile(DOCKER, "x86_64")).program
    assert judge(program, 3, I386) == ALLOW
    assert judge(program, 0x40000000, X86_64) == ALLOW


def test_a_filter_that_the_kernel_would_not_take_is_refused() -> None:
    library_or_skip()
    rules = [rule("SCMP_ACT_ALLOW", arg(0, "SCMP_CMP_EQ", value << 32 | value)) for value in range(1200)]
    with pytest.raises(InvalidArgument, match=r"linux\.seccomp: its filter has \d+ instructions.* takes 4096"):
        seccomp.compile_filter(profile(*rules))


def test_names_that_nobody_knows_are_told_and_left_out() -> None:
    library_or_skip()
    made = seccomp.compile_filter(profile(rule(name="getpriorty"), rule(name="uretprobe"), rule()))
    assert made.warnings == ("linux.seccomp.syscalls: nothing is known of getpriorty; rules for them have no effect",)
    assert judge(made.program, 140) == ALLOW


def test_a_cached_filter_has_its_warnings_too(tmp_path: Any) -> None:
    library_or_skip()
    seccomp.use_cache(tmp_path / "cache")
    first = seccomp.compile_filter(profile(rule(name="getpriorty")))
    seccomp._memory.clear()
    assert seccomp.compile_filter(profile(rule(name="getpriorty"))) == first
    assert first.warnings

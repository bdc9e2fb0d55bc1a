"""Profiles say what Docker's say, and compile to filters that judge so."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corten.errors import InvalidArgument, SystemFault
from corten.linux import libc
from corten.runtime import seccomp
from corten.runtime.seccomp_profile import Profiles, default_profile, expand, parse_profile
from corten.specs.oci_runtime import Seccomp, Syscall, SyscallArg

REFERENCE = Path(__file__).resolve().parents[4] / "shared/refs/seccomp-default.json"
DOCKER = ["CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_KILL"]
ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}


def rules(profile: Seccomp) -> set[tuple[Any, ...]]:
    """A profile as a set of (call, action, errno, comparisons): what it means, whatever the grouping."""
    found = set()
    for rule in profile.syscalls:
        args = tuple((arg.index, arg.op, arg.value, arg.value_two) for arg in rule.args)
        found |= {(name, rule.action, rule.errno_ret, args) for name in rule.names}
    return found


def reference(capabilities: list[str], arch: str) -> set[tuple[Any, ...]]:
    """The reference evaluated by hand, not by our own parser."""
    found = set()
    for rule in json.loads(REFERENCE.read_text())["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        if includes.get("arches") and ARCHES[arch] not in includes["arches"]:
            continue
        if not set(includes.get("caps", [])) <= set(capabilities):
            continue
        if set(excludes.get("caps", [])) & set(capabilities) or ARCHES[arch] in excludes.get("arches", []):
            continue
        args = tuple((a["index"], a["op"], a["value"], a.get("valueTwo", 0)) for a in rule.get("args", []))
        found |= {(name, rule["action"], rule.get("errnoRet"), args) for name in rule["names"]}
    return found


ALL = ["CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_SYS_NICE"]
ALL += ["CAP_DAC_READ_SEARCH", "CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_PACCT", "CAP_SYS_RAWIO"]
ALL += ["CAP_SYS_TTY_CONFIG", "CAP_SYS_CHROOT"]


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference profile is not here")
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("capabilities", [[], DOCKER, ["CAP_SYS_ADMIN"], ALL, *[[name] for name in ALL]])
def test_the_default_is_dockers(capabilities: list[str], arch: str) -> None:
    ours, theirs = rules(default_profile(capabilities, arch)), reference(capabilities, arch)
    assert ours == theirs, {"missing": theirs - ours, "extra": ours - theirs}


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference profile is not here")
@pytest.mark.parametrize("capabilities", [[], DOCKER, ALL])
def test_parsing_dockers_file_gives_the_default(capabilities: list[str]) -> None:
    parsed = parse_profile(REFERENCE.read_text(), capabilities, "x86_64")
    built = default_profile(capabilities, "x86_64")
    assert rules(parsed) == rules(built)
    assert (parsed.default_action, parsed.default_errno_ret, parsed.architectures) == (
        built.default_action,
        built.default_errno_ret,
        built.architectures,
    )


def test_expansion() -> None:
    assert expand("stat/64 futex/_time64 read") == ["stat", "stat64", "futex", "futex_time64", "read"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Decoding seccomp profile failed"),
        ('{"syscalls": []}', "Decoding seccomp profile failed"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "name": "b", "action": "x"}]}', "'name'"),
        (
            '{"defaultAction": "x", "architectures": ["a"], "archMap": [{"architecture": "b"}]}',
            "'architectures' and 'archMap'",
        ),
        ('{"defaultAction": "x", "syscalls": [{"action": "y", "includes": {"minKernel": "new"}}]}', "kernel version"),
    ],
)
def test_bad_profiles(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_profile(text, [])


def test_conditions_of_a_profile() -> None:
    def rule(name: str, **more: Any) -> dict[str, Any]:
        return {"names": [name], "action": "SCMP_ACT_ALLOW", **more}

    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                rule("a", includes={"minKernel": "99.0"}),
                rule("b", includes={"minKernel": "3.0", "caps": ["CAP_KILL"]}),
                rule("c", excludes={"caps": ["CAP_KILL"]}),
                rule("d", includes={"arches": ["arm64"]}),
                {"name": "e", "action": "SCMP_ACT_ALLOW", "args": None},
            ],
        }
    )
    assert [s.names for s in parse_profile(text, ["CAP_KILL"], "x86_64").syscalls] == [["b"], ["e"]]


def test_an_errno_that_means_nothing_is_passed_over_as_docker_does() -> None:
    rule = {"names": ["a"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}
    made = parse_profile(json.dumps({"defaultAction": "SCMP_ACT_LOG", "defaultErrnoRet": 1, "syscalls": [rule]}), [])
    assert (made.default_errno_ret, made.syscalls[0].errno_ret) == (None, None)


def test_a_listener_goes_through() -> None:
    made = parse_profile('{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "listenerMetadata": "y"}', [])
    assert (made.listener_path, made.listener_metadata) == ("/x", "y")


def test_profiles_are_kept() -> None:
    profiles = Profiles()
    assert profiles.load("builtin", ["CAP_KILL", "CAP_CHOWN"]) is profiles.load("builtin", ["CAP_CHOWN", "CAP_KILL"])
    assert profiles.load('{"defaultAction": "SCMP_ACT_ALLOW"}', []) == Seccomp(default_action="SCMP_ACT_ALLOW")


# -- compiled --------------------------------------------------------------------------------------------------------

X86_64, I386, ARM64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    yield
    seccomp.use_cache(None)
    seccomp._memory.clear()


def judge(program: bytes, number: int, arch: int = X86_64, args: tuple[int, ...] = ()) -> int:
    """Run classic BPF over one struct seccomp_data."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(args + (0,) * (6 - len(args))))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator = at = 0
    while True:
        opcode, true, false, constant = code[at]
        at += 1
        if opcode == 0x20:
            accumulator = struct.unpack_from("<I", data, constant)[0]
        elif opcode == 0x54:
            accumulator &= constant
        elif opcode == 0x05:
            at += constant
        elif opcode == 0x06:
            return int(constant)
        else:
            tests = {0x15: accumulator == constant, 0x25: accumulator > constant, 0x35: accumulator >= constant}
            at += true if tests[opcode] else false


def library_or_skip() -> None:
    try:
        seccomp._Library.get()
    except SystemFault as error:
        pytest.skip(str(error))
    if libc.MACHINE != "x86_64":
        pytest.skip("numbers of x86_64")


def test_the_compiled_default() -> None:
    library_or_skip()
    made = seccomp.compile_filter(default_profile(DOCKER, "x86_64"))
    assert (made.flags, made.warnings) == (0, ())
    program = made.program
    verdicts = {
        "read": judge(program, 0),
        "mount": judge(program, 165),
        "clone thread": judge(program, 56, args=(0x3D0F00,)),
        "clone user namespace": judge(program, 56, args=(0x10000000,)),
        "clone3": judge(program, 435),
        "socket inet": judge(program, 41, args=(2,)),
        "socket vsock": judge(program, 41, args=(40,)),
        "newest": judge(program, 9999),
        "i386 read": judge(program, 3, I386),
        "i386 mount": judge(program, 21, I386),
        "i386 newest": judge(program, 9999, I386),
        "x32 read": judge(program, 0x40000000),
        "x32 newest": judge(program, 0x40009999),
    }
    assert verdicts == {
        "read": ALLOW,
        "mount": ERRNO | 1,
        "clone thread": ALLOW,
        "clone user namespace": ERRNO | 1,
        "clone3": ERRNO | 38,
        "socket inet": ALLOW,
        "socket vsock": ERRNO | 1,
        "newest": ERRNO | 38,
        "i386 read": ALLOW,
        "i386 mount": ERRNO | 1,
        "i386 newest": ERRNO | 38,
        "x32 read": ALLOW,
        "x32 newest": ERRNO | 38,
    }
    assert judge(program, 0, ARM64) in (0, 0x80000000)  # not one of its architectures: killed


def test_comparisons_of_one_argument_are_alternatives() -> None:
    library_or_skip()
    args = [SyscallArg(index=0, value=value, op="SCMP_CMP_EQ") for value in (1, 2)]
    profile = Seccomp(
        default_action="SCMP_ACT_ERRNO", syscalls=[Syscall(names=["personality"], action="SCMP_ACT_ALLOW", args=args)]
    )
    program = seccomp.compile_filter(profile).program
    assert [judge(program, 135, args=(value,)) for value in (1, 2, 3)] == [ALLOW, ALLOW, ERRNO | 1]


def test_filters_are_cached_on_disk(tmp_path: Path) -> None:
    library_or_skip()
    seccomp.use_cache(tmp_path / "cache")
    program = seccomp.compile_filter(default_profile([], "x86_64")).program
    [kept] = (tmp_path / "cache").iterdir()
    assert kept.read_bytes() == program
    seccomp._memory.clear()
    kept.write_bytes(b"8 bytes.")
    assert seccomp.compile_filter(default_profile([], "x86_64")).program == b"8 bytes."


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp._Library, "_loaded", None)
    monkeypatch.setattr(seccomp, "LIBRARY", "libseccomp-that-is-not-there.so")
    with pytest.raises(SystemFault, match="libseccomp2"):
        seccomp.compile_filter(Seccomp(default_action="SCMP_ACT_ALLOW"))

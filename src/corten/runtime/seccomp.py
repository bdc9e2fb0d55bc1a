"""Compiling a seccomp specification to BPF with libseccomp, in cortend, once per profile; the child only loads it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from corten.errors import InvalidArgument, SystemFault, clip
from corten.linux import seccomp as kernel
from corten.linux.libc import MACHINE
from corten.linux.memfd import MFD_CLOEXEC
from corten.specs.oci_runtime import Seccomp, Syscall, encode

LIBRARY = "libseccomp.so.2"

# seccomp.h of libseccomp
SCMP_FLTATR_CTL_OPTIMIZE = 8
_ERROR = -1  # __NR_SCMP_ERROR
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_VALUE = frozenset(("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"))
_COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # the process has one thread
    "SECCOMP_FILTER_FLAG_LOG": kernel.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": kernel.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
}
_EPERM, _ENOSYS = 1, 38

NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_X32_BIT = 0x40000000
_X86_64, _X32 = 0xC000003E, 0x4000003E

# linux/bpf_common.h, linux/seccomp.h: struct seccomp_data has nr at 0 and arch at 4.
_LD_ABS, _JEQ, _JGT, _JGE, _JA, _RET = 0x20, 0x15, 0x25, 0x35, 0x05, 0x06
_AT_NR, _AT_ARCH = 0, 4

_memory: dict[str, bytes] = {}
_latest: tuple[Seccomp, bytes, int] | None = None  # nearly always the same object is asked for again
_directory: Path | None = None


class _scmp_arg_cmp(ctypes.Structure):  # noqa: N801  # the library's spelling
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


class _scmp_version(ctypes.Structure):  # noqa: N801  # the library's spelling
    _fields_ = [("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint)]


def use_cache(directory: Path | None) -> None:
    """Keep compiled filters in `directory` (made when needed) too, so that a new process need not compile them."""
    global _directory
    _directory = directory


def compile_filter(profile: Seccomp) -> tuple[bytes, int]:
    """The filter as struct sock_filter after struct sock_filter, and the flags to load it with.

    Compiling takes milliseconds, so results are kept by the digest of all that they depend on. Raises InvalidArgument
    for what a profile may not say, SystemFault when libseccomp is missing.
    """
    global _latest
    if _latest is not None and _latest[0] is profile:
        return _latest[1:]
    flags = _filter_flags(profile)
    library = _Library.get()
    material = b"\0".join((encode(profile), MACHINE.encode(), library.version.encode(), b"1"))
    digest = hashlib.blake2b(material, digest_size=20).hexdigest()
    program = _memory.get(digest) or _load(digest)
    if program is None:
        program = _compile(library, profile)
        _store(digest, program)
    _memory[digest] = program
    _latest = (profile, program, flags)
    return program, flags


def _filter_flags(profile: Seccomp) -> int:
    if profile.listener_path:
        raise InvalidArgument("seccomp listeners are not supported")
    flags = 0
    for name in profile.flags:
        if name not in _FLAGS:
            raise InvalidArgument(f"seccomp flag {clip(name, 60)} is not supported")
        flags |= _FLAGS[name]
    return flags


def _load(digest: str) -> bytes | None:
    if _directory is None:
        return None
    try:
        program = (_directory / digest).read_bytes()
    except OSError:
        return None
    return program if program and len(program) % 8 == 0 else None


def _store(digest: str, program: bytes) -> None:
    """Whole or not at all; a cache that cannot be written is no reason to fail."""
    if _directory is None:
        return
    try:
        _directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=_directory, delete=False) as file:
            file.write(program)
        os.replace(file.name, _directory / digest)
    except OSError:
        return


class _Library:
    """libseccomp, loaded at its first use."""

    _loaded: _Library | None = None

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, u32 = ctypes.c_void_p, ctypes.c_uint32
        self.init = _declare(library, "seccomp_init", pointer, u32)
        self.release = _declare(library, "seccomp_release", None, pointer)
        self.arch_add = _declare(library, "seccomp_arch_add", ctypes.c_int, pointer, u32)
        self.arch_exist = _declare(library, "seccomp_arch_exist", ctypes.c_int, pointer, u32)
        self.arch_remove = _declare(library, "seccomp_arch_remove", ctypes.c_int, pointer, u32)
        self.arch_resolve = _declare(library, "seccomp_arch_resolve_name", u32, ctypes.c_char_p)
        self.resolve = _declare(library, "seccomp_syscall_resolve_name", ctypes.c_int, ctypes.c_char_p)
        self.resolve_arch = _declare(library, "seccomp_syscall_resolve_name_arch", ctypes.c_int, u32, ctypes.c_char_p)
        self.attr_set = _declare(library, "seccomp_attr_set", ctypes.c_int, pointer, ctypes.c_int, u32)
        self.export = _declare(library, "seccomp_export_bpf", ctypes.c_int, pointer, ctypes.c_int)
        self.rule_add = _declare(
            library,
            "seccomp_rule_add_array",
            ctypes.c_int,
            pointer,
            u32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.POINTER(_scmp_arg_cmp),
        )
        found = _declare(library, "seccomp_version", ctypes.POINTER(_scmp_version))().contents
        self.version = f"{found.major}.{found.minor}.{found.micro}"

    @classmethod
    def get(cls) -> _Library:
        if cls._loaded is None:
            try:
                cls._loaded = cls(ctypes.CDLL(LIBRARY))
            except OSError:
                raise SystemFault(
                    f"{LIBRARY} is needed for seccomp and is not installed (Debian's package is libseccomp2); "
                    "without it only --security-opt seccomp=unconfined works",
                    step="load libseccomp",
                ) from None
        return cls._loaded


def _declare(library: ctypes.CDLL, name: str, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    call = library[name]
    call.restype, call.argtypes = restype, argtypes
    return call


def _compile(library: _Library, profile: Seccomp) -> bytes:
    default = _action(profile.default_action, profile.default_errno_ret)
    ctx = library.init(default)
    if not ctx:
        raise SystemFault("libseccomp cannot make a filter", step="compile seccomp filter")
    try:
        arches = _add_arches(library, ctx, profile.architectures)
        library.attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2)  # a binary tree; an older library refuses and goes linear
        for rule in profile.syscalls:
            _add_rule(library, ctx, rule, default)
        program = _export(library, ctx)
    finally:
        library.release(ctx)
    if profile.default_action == "SCMP_ACT_ERRNO" and default & 0xFFFF != _ENOSYS:
        names = {name for rule in profile.syscalls for name in rule.names}
        program = unknown_call_stub(_highest(library, arches, names)) + program
    return program


def _add_arches(library: _Library, ctx: int, names: Iterable[str]) -> list[int]:
    native = library.arch_resolve(_arch_word(NATIVE.get(MACHINE, "")))
    tokens = [native]
    for name in names:
        token = library.arch_resolve(_arch_word(name))
        if not token:
            raise InvalidArgument(f"seccomp architecture {clip(name, 40)} is unknown")
        if token in tokens:
            continue
        if library.arch_add(ctx, token) not in (0, -17):  # EEXIST
            raise InvalidArgument(f"seccomp architecture {clip(name, 40)} does not go with this machine's")
        tokens.append(token)
    return tokens


def _arch_word(name: str) -> bytes:
    return name.removeprefix("SCMP_ARCH_").lower().encode()


def _add_rule(library: _Library, ctx: int, rule: Syscall, default: int) -> None:
    action = _action(rule.action, rule.errno_ret)
    if action == default:
        return  # libseccomp refuses rules that say nothing new
    comparisons = []
    for arg in rule.args:
        if arg.op not in _COMPARISONS or not 0 <= arg.index <= 5:
            raise InvalidArgument(f"seccomp comparison {clip(arg.op, 40)} of argument {arg.index} is unknown")
        comparisons.append(_scmp_arg_cmp(arg.index, _COMPARISONS[arg.op], arg.value, arg.value_two))
    # One rule may compare an argument once; several comparisons of one argument are alternatives, as in runc.
    indices = [comparison.arg for comparison in comparisons]
    groups = [comparisons] if len(set(indices)) == len(indices) else [[one] for one in comparisons]
    for name in rule.names:
        number = library.resolve(name.encode())
        if number == _ERROR:
            continue  # newer than the library, or of another architecture: the default action covers it
        for group in groups:
            array = (_scmp_arg_cmp * len(group))(*group)
            code = library.rule_add(ctx, action, number, len(group), array)
            if code < 0 and code not in (-33, -17):  # EDOM: not of this architecture; EEXIST
                raise SystemFault(
                    f"seccomp rule for {clip(name, 60)}: {os.strerror(-code)}", step="compile seccomp filter"
                )


def _action(name: str, value: int | None) -> int:
    if name not in _ACTIONS:
        raise InvalidArgument(f"seccomp action {clip(name, 40)} is not supported")
    if name not in _WITH_VALUE:
        return _ACTIONS[name]
    return _ACTIONS[name] | (_EPERM if value is None else value & 0xFFFF)


def _export(library: _Library, ctx: int) -> bytes:
    fd = os.memfd_create("seccomp", MFD_CLOEXEC)
    try:
        if (code := library.export(ctx, fd)) < 0:
            raise SystemFault(f"exporting the seccomp filter: {os.strerror(-code)}", step="compile seccomp filter")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _highest(library: _Library, arches: Iterable[int], names: Iterable[str]) -> dict[int, int]:
    """The highest system call number that the profile names, per architecture."""
    found = {}
    for token in arches:
        numbers = [library.resolve_arch(token, name.encode()) for name in names]
        if known := [number for number in numbers if number >= 0]:
            found[token] = max(known)
    return found


def unknown_call_stub(highest: dict[int, int]) -> bytes:
    """A prefix that answers ENOSYS to calls newer than the profile: numbers above the highest it names.

    EPERM, the usual default, tells a C library that the call exists and is forbidden, and it gives up; with ENOSYS it
    falls back to the call that it used before. The prefix ends where the filter begins.
    """
    blocks = []
    for token, number in highest.items():
        if token == _X32:
            continue  # shares the audit architecture of x86_64, below
        tests = [(_JGT, number)]
        if token == _X86_64:
            # Numbers with the x32 bit are calls of the other ABI: judged by that one's highest, or by the filter.
            x32 = highest.get(_X32)
            tests = (
                [(_JGE, _X32_BIT), (_JGT, number)] if x32 is None else [(_JGE, _X32_BIT), (_JGT, x32), (_JGT, number)]
            )
        blocks.append((token, tests))
    code: list[bytes] = []
    for token, tests in reversed(blocks):
        code = _block(token, tests, len(code)) + code
    return (code and b"".join([_bpf(_LD_ABS, constant=_AT_ARCH), *code])) or b""


def _block(token: int, tests: list[tuple[int, int]], rest: int) -> list[bytes]:
    """The checks of one architecture; another one jumps over them, a known call jumps over `rest` too."""
    refuse = _bpf(_RET, constant=_ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS)
    leave = _bpf(_JA, constant=rest + 1)  # over the refusal too, which follows it
    load = _bpf(_LD_ABS, constant=_AT_NR)
    if len(tests) == 1:
        body = [load, _bpf(_JGT, 1, 0, tests[0][1]), leave, refuse]
        # jgt true → skip `leave`; the refusal ends the program
    elif len(tests) == 2:
        body = [load, _bpf(_JGE, 1, 0, tests[0][1]), _bpf(_JGT, 1, 0, tests[1][1]), leave, refuse]
    else:
        body = [
            load,
            _bpf(_JGE, 0, 1, tests[0][1]),
            _bpf(_JGT, 2, 1, tests[1][1]),
            _bpf(_JGT, 1, 0, tests[2][1]),
            leave,
            refuse,
        ]
    return [_bpf(_JEQ, 0, len(body), token), *body]


def _bpf(code: int, true: int = 0, false: int = 0, constant: int = 0) -> bytes:
    """struct sock_filter."""
    return struct.pack("=HBBI", code, true, false, constant)

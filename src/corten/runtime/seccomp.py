"""Compiling a seccomp specification to BPF with libseccomp, in cortend, once per profile; the child only loads it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.errors import InvalidArgument, SystemFault, clip
from corten.linux.libc import MACHINE
from corten.linux.memfd import MFD_CLOEXEC
from corten.runtime import seccomp_rules
from corten.runtime.seccomp_profile import known_names
from corten.runtime.seccomp_rules import Rule
from corten.runtime.seccomp_stub import unknown_call_stub
from corten.specs.oci_runtime import Seccomp, encode

LIBRARY = "libseccomp.so.2"

# seccomp.h of libseccomp
SCMP_FLTATR_CTL_OPTIMIZE = 8
_ERROR = -1  # __NR_SCMP_ERROR

_INSTRUCTION = 8  # linux/filter.h: sizeof(struct sock_filter)
_MAX_INSTRUCTIONS = 4096  # linux/bpf_common.h: BPF_MAXINSNS


@dataclass(frozen=True, slots=True)
class Filter:
    """`program` is struct sock_filter after struct sock_filter, `flags` are what to load it with."""

    program: bytes
    flags: int
    warnings: tuple[str, ...] = ()


NO_FILTER = Filter(b"", 0)

_memory: dict[str, bytes] = {}
_latest: tuple[Seccomp, Filter] | None = None  # nearly always the same object is asked for again
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


def compile_filter(profile: Seccomp) -> Filter:
    """The filter of a profile.

    Compiling takes milliseconds, so results are kept by the digest of all that they depend on. Raises InvalidArgument
    for what a profile may not say, SystemFault when libseccomp is missing.
    """
    global _latest
    if _latest is not None and _latest[0] is profile:
        return _latest[1]
    flags, warnings = seccomp_rules.flags_of(profile)
    library = _Library.get()
    material = b"\0".join((encode(profile), MACHINE.encode(), library.version.encode(), b"2"))
    digest = hashlib.blake2b(material, digest_size=20).hexdigest()
    program = _memory.get(digest) or _load(digest)
    if program is None:
        program = _compile(library, profile)
        _store(digest, program)
    _memory[digest] = program
    made = Filter(program, flags, (*warnings, *_unknown(library, profile)))
    _latest = (profile, made)
    return made


def _unknown(library: _Library, profile: Seccomp) -> Iterator[str]:
    """A line for names that are in no table: slips of the pen, most likely. What only this libseccomp is too old for
    is no such thing."""
    names = {name for rule in profile.syscalls for name in rule.names} - known_names()
    found = sorted(name for name in names if library.resolve(name.encode()) == _ERROR)
    if found:
        words = ", ".join(clip(name, 60) for name in found[:10]) + (" and others" if len(found) > 10 else "")
        yield f"linux.seccomp.syscalls: nothing is known of {words}; rules for them have no effect"


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
    rules = seccomp_rules.check(profile)
    ctx = library.init(rules.default)
    if not ctx:
        raise SystemFault("libseccomp cannot make a filter", step="compile seccomp filter")
    try:
        arches = _add_arches(library, ctx, rules.architectures)
        library.attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2)  # a binary tree; an older library refuses and goes linear
        for rule in rules.rules:
            if rule.action != rules.default:  # libseccomp refuses rules that say nothing new
                _add_rule(library, ctx, rule)
        program = _export(library, ctx)
    finally:
        library.release(ctx)
    if rules.newer_enosys:
        names = {name for rule in rules.rules for name in rule.names}
        program = unknown_call_stub(_highest(library, arches, names)) + program
    if (length := len(program) // _INSTRUCTION) > _MAX_INSTRUCTIONS:
        raise InvalidArgument(
            f"linux.seccomp: its filter has {length} instructions, and the kernel takes {_MAX_INSTRUCTIONS}"
        )
    return program


def _add_arches(library: _Library, ctx: int, names: Iterable[str]) -> list[int]:
    """The machine's own, and those of the others that a program on it can have."""
    tokens = [library.arch_resolve(_arch_word(seccomp_rules.NATIVE.get(MACHINE, "")))]
    for index, name in enumerate(names):
        if name not in seccomp_rules.OF_MACHINE[MACHINE]:
            continue
        token = library.arch_resolve(_arch_word(name))
        if token in tokens:
            continue
        if (code := library.arch_add(ctx, token)) not in (0, -17):  # EEXIST
            raise SystemFault(
                f"linux.seccomp.architectures[{index}]: {name}: {os.strerror(-code)}", step="compile seccomp filter"
            )
        tokens.append(token)
    return tokens


def _arch_word(name: str) -> bytes:
    return name.removeprefix("SCMP_ARCH_").lower().encode()


def _add_rule(library: _Library, ctx: int, rule: Rule) -> None:
    for name in rule.names:
        number = library.resolve(name.encode())
        if number == _ERROR:
            continue  # newer than the library, or of another architecture: the default action covers it
        for group in rule.groups:
            array = (_scmp_arg_cmp * len(group))(*(_scmp_arg_cmp(*one) for one in group))
            code = library.rule_add(ctx, rule.action, number, len(group), array)
            if code < 0 and code not in (-33, -17):  # EDOM: not of this architecture; EEXIST
                raise SystemFault(
                    f"{rule.where}: {clip(name, 60)}: {os.strerror(-code)}", step="compile seccomp filter"
                )


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

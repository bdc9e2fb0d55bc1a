"""The part of a filter that libseccomp does not make: an answer to calls that the profile is too old to know."""

from __future__ import annotations

import struct

# linux/seccomp.h, linux/audit.h
_ENOSYS = 0x00050000 | 38  # SECCOMP_RET_ERRNO
X32_BIT = 0x40000000
X86_64, X32 = 0xC000003E, 0x4000003E

# linux/bpf_common.h, linux/seccomp.h: struct seccomp_data has nr at 0 and arch at 4.
_LD_ABS, _JEQ, _JGT, _JGE, _JA, _RET = 0x20, 0x15, 0x25, 0x35, 0x05, 0x06
_AT_NR, _AT_ARCH = 0, 4


def unknown_call_stub(highest: dict[int, int]) -> bytes:
    """A prefix that answers ENOSYS to calls newer than the profile: numbers above the highest it names.

    EPERM, the usual default, tells a C library that the call exists and is forbidden, and it gives up; with ENOSYS it
    falls back to the call that it used before. The prefix ends where the filter begins.
    """
    blocks = []
    for token, number in highest.items():
        if token == X32:
            continue  # shares the audit architecture of x86_64, below
        tests = [(_JGT, number)]
        if token == X86_64:
            # Numbers with the x32 bit are calls of the other ABI: judged by that one's highest, or by the filter.
            x32 = highest.get(X32)
            tests = [(_JGE, X32_BIT), (_JGT, number)] if x32 is None else [(_JGE, X32_BIT), (_JGT, x32), (_JGT, number)]
        blocks.append((token, tests))
    code: list[bytes] = []
    for token, tests in reversed(blocks):
        code = _block(token, tests, len(code)) + code
    return (code and b"".join([_bpf(_LD_ABS, constant=_AT_ARCH), *code])) or b""


def _block(token: int, tests: list[tuple[int, int]], rest: int) -> list[bytes]:
    """The checks of one architecture; another one jumps over them, a known call jumps over `rest` too."""
    refuse = _bpf(_RET, constant=_ENOSYS)
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

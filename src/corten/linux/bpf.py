"""bpf(2): loading a device program and attaching it to a cgroup."""

from __future__ import annotations

import ctypes
import os

from corten.linux.libc import syscall

# linux/bpf.h
BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

_INSTRUCTION_SIZE = 8  # struct bpf_insn


class _load_attr(ctypes.Structure):
    """linux/bpf.h: union bpf_attr, the part of BPF_PROG_LOAD up to kern_version."""

    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
    ]


class _attach_attr(ctypes.Structure):
    """linux/bpf.h: union bpf_attr, the part of BPF_PROG_ATTACH."""

    _fields_ = [
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    ]


_bpf = syscall("bpf", ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong)


def load_device_program(program: bytes) -> int:
    """A descriptor of a BPF_PROG_TYPE_CGROUP_DEVICE program; the caller owns it."""
    instructions = ctypes.create_string_buffer(program, len(program))
    license_name = ctypes.create_string_buffer(b"Apache-2.0")
    attr = _load_attr(
        prog_type=BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(program) // _INSTRUCTION_SIZE,
        insns=ctypes.addressof(instructions),
        license=ctypes.addressof(license_name),
    )
    return _bpf(BPF_PROG_LOAD, ctypes.addressof(attr), ctypes.sizeof(attr))


def attach_device_program(cgroup_fd: int, program: bytes) -> None:
    """Load `program` and let it judge every device access of the cgroup; it goes when the cgroup does."""
    fd = load_device_program(program)
    try:
        attr = _attach_attr(cgroup_fd, fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
        _bpf(BPF_PROG_ATTACH, ctypes.addressof(attr), ctypes.sizeof(attr))
    finally:
        os.close(fd)

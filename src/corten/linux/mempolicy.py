"""set_mempolicy(2): the NUMA nodes that a process's memory comes from. Kept across fork and execve."""

from __future__ import annotations

import ctypes

from corten.linux.libc import syscall

# linux/mempolicy.h
MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}
MAX_NODES = 4096  # a mask of more than a page is refused by the kernel; real machines have at most 1024


def set_mempolicy(mode: int, nodes: int) -> None:
    """`mode` with its flags; `nodes` as a mask of 1 << node, 0 for none."""
    words = (nodes.bit_length() + 63) // 64
    mask = (ctypes.c_ulong * max(words, 1))(*(nodes >> 64 * index & (1 << 64) - 1 for index in range(words)))
    # The kernel takes `maxnode` to be one more than the number of bits.
    call = syscall("set_mempolicy", ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong)
    call(mode, ctypes.addressof(mask) if words else None, words * 64 + 1 if words else 0)

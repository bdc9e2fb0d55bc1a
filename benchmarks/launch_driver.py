"""Run by `launch_trace` as `python -I -S`, the way the spawner runs: starts a plan again and again, and takes stamps.

Stamps lie in memory that the child shares with us, so that both sides write into one list: 16 bits of what, 48 of when
(CLOCK_MONOTONIC, nanoseconds after the round's begin).
"""

from __future__ import annotations

import marshal
import mmap
import os
import struct
import sys
import time

sys.path.insert(0, sys.argv[1])

from corten.linux import process  # the path comes first
from corten.linux.process import PR_SET_CHILD_SUBREAPER, prctl
from corten.runtime.cgroups import Cgroup
from corten.runtime.child import launch as module
from corten.runtime.child import parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NAMES: list[str] = []
SHARED = mmap.mmap(-1, 1 << 16)
BEGIN = [0]


def stamp(name: str) -> None:
    """What comes now."""
    now = time.monotonic_ns() - BEGIN[0]
    if name not in NAMES:
        NAMES.append(name)
    (count,) = struct.unpack_from("<Q", SHARED)
    struct.pack_into("<Q", SHARED, 8 + 8 * count, NAMES.index(name) << 48 | now)
    struct.pack_into("<Q", SHARED, 0, count + 1)


def stamped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    NAMES.append(name)

    def wrapper(*arguments: Any, **options: Any) -> Any:
        stamp(name)
        return call(*arguments, **options)

    return wrapper


def main() -> None:
    wire = sys.stdin.buffer.read()
    NAMES.extend(("between", "wait for it", "remove control groups", "done"))
    module.HANDLERS.update({name: stamped(name, call) for name, call in module.HANDLERS.items()})
    process.clone3 = stamped("clone3", process.clone3)
    module._child = stamped("enter groups and namespaces", module._child)
    parent.settle = stamped("standard streams", parent.settle)
    Cgroup.create = stamped("make control groups", Cgroup.create)  # type: ignore[method-assign]
    process.prepare_execve = stamped("load seccomp, execve", process.prepare_execve)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    rounds = [one_round(wire) for _ in range(int(sys.argv[2]))]
    sys.stdout.buffer.write(marshal.dumps((NAMES, rounds)))


def one_round(wire: bytes) -> list[tuple[int, int]]:
    struct.pack_into("<Q", SHARED, 0, 0)
    BEGIN[0] = time.monotonic_ns()
    stamp("between")
    null = os.open("/dev/null", os.O_RDWR)
    spawned = module.launch(wire, null, null, null)
    stamp("wait for it")
    os.waitpid(spawned.pid, 0)
    stamp("remove control groups")
    Cgroup(marshal.loads(wire)["cgroup"]).remove()
    stamp("done")
    os.close(spawned.pidfd)
    os.close(null)
    (count,) = struct.unpack_from("<Q", SHARED)
    words = struct.unpack_from(f"<{count}Q", SHARED, 8)
    return [(word >> 48, word & (1 << 48) - 1) for word in words]


main()

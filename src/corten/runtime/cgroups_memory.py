"""Memory limits for version 1 and 2, and what swap comes to on each. Pure.

The specification's `swap` is memory and swap together, as version 1 counts; version 2 limits swap alone.
"""

from __future__ import annotations

from corten.errors import InvalidArgument
from corten.runtime.cgroups_values import at, within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from corten.runtime.cgroups import Write
    from corten.specs.oci_runtime import Memory

_NOT_SET = (1 << 64) - 1  # a swappiness of -1 as callers write it into an unsigned member


def memory_v1(memory: Memory) -> Iterator[Write]:
    _check(memory)
    if memory.limit:
        yield "memory", "memory.limit_in_bytes", str(memory.limit), at("memory.limit")
    swap = -1 if memory.limit == -1 and not memory.swap else memory.swap
    if swap:
        # Absent when the kernel does not account swap; what asks for no limit is then fulfilled.
        name = "memory.memsw.limit_in_bytes" + ("?" if swap < 0 or swap == memory.limit else "")
        yield "memory", name, str(swap), at("memory.swap")
    if memory.reservation:
        yield "memory", "memory.soft_limit_in_bytes", str(memory.reservation), at("memory.reservation")
    if memory.kernel_tcp:
        yield "memory", "memory.kmem.tcp.limit_in_bytes", str(memory.kernel_tcp), at("memory.kernelTCP")
    if memory.swappiness is not None and memory.swappiness != _NOT_SET:
        within("memory.swappiness", memory.swappiness, 0, 100)
        yield "memory", "memory.swappiness", str(memory.swappiness), at("memory.swappiness")
    if memory.disable_oom_killer:
        yield "memory", "memory.oom_control", "1", at("memory.disableOOMKiller")


def memory_v2(memory: Memory) -> Iterator[Write]:
    _check(memory)
    swap = swap_only(memory)
    if memory.check_before_update:
        # Version 1 refuses by itself to go below what is in use; version 2 would kill until it fits.
        for name, bound in (("memory.swap", memory.swap), ("memory.limit", memory.limit)):
            if bound is not None and bound > 0:
                yield "memory", "memory.current<", str(bound), at(name)
    if swap is not None:
        # Absent when the kernel does not account swap: then only a limit between none and all cannot be had.
        yield "memory", "memory.swap.max" + ("?" if swap <= 0 else ""), _maximum(swap), at("memory.swap")
    if memory.limit:
        yield "memory", "memory.max", _maximum(memory.limit), at("memory.limit")
    if memory.reservation:
        yield "memory", "memory.low", _maximum(memory.reservation), at("memory.reservation")


def swap_only(memory: Memory) -> int | None:
    """The limit on swap alone, -1 for unlimited; None when nothing is said. Raises InvalidArgument."""
    limit, swap = memory.limit or 0, memory.swap or 0
    if limit == -1 and swap == 0:
        return -1  # as version 1 has it: without a limit on memory there can be none on both together
    if swap == 0:
        return None
    if swap < 0 or limit == -1:
        return swap
    if limit == 0:
        raise InvalidArgument(f"{at('memory.swap')} cannot be set without {at('memory.limit')}")
    return swap - limit


def _check(memory: Memory) -> None:
    for name in ("limit", "reservation", "swap", "kernel"):
        within(f"memory.{name}", getattr(memory, name), -1)
    within("memory.kernelTCP", memory.kernel_tcp, -1)
    if memory.limit is not None and memory.swap is not None and 0 < memory.swap < memory.limit:
        text = f"{at('memory.swap')} must not be below {at('memory.limit')}"
        raise InvalidArgument(f"{text}: {memory.swap} < {memory.limit}")


def _maximum(value: int) -> str:
    return "max" if value < 0 else str(value)

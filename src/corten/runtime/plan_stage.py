"""Plans in two stages: what the host's root has to do before the container's own root does the rest.

The first process of an ordinary container has all of the host's rights until it gives them up. One that begins in a
user namespace has none outside of it: a helper makes what needs them, and leaves it open to be attached. It also goes
before a time namespace, a mount namespace that exists already, and idmapped mounts (`runtime.child.stage`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from corten.runtime import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from corten.specs.oci_runtime import Mount

# File systems that root of a user namespace may mount, if the namespace named with them (which they show) is its own.
_MOUNTABLE = {"proc": "pid", "sysfs": "network", "mqueue": "ipc", "devpts": "", "tmpfs": "", "ramfs": ""}

Steps = tuple[steps.Step, ...]


def split(built: Sequence[steps.Step], spaces: dict[str, str]) -> tuple[Steps, Steps]:
    """The helper's steps and the child's."""
    remapped = "user" in spaces
    first: list[steps.Step] = []
    rest: list[steps.Step] = []
    held = Counter(step.target for step in built if isinstance(step, steps.HoldTree))
    for step in built:
        if isinstance(step, (steps.SetPropagation, steps.IsolateRootParent, steps.HoldTree)):
            first.append(step)
            continue
        if isinstance(step, steps.BindMount) and held[step.target]:
            held[step.target] -= 1  # was taken before the propagation was set
        else:
            first += _prepared(step, spaces, remapped)
        if not (remapped and isinstance(step, steps.SetOomScore)):
            rest.append(step)
    if remapped and (nodes := tuple(_values(step) for step in built if isinstance(step, steps.MakeDevice))):
        first.append(steps.HoldDevices(nodes))
    return tuple(first), tuple(rest)


def split_exec(built: Sequence[steps.Step]) -> tuple[Steps, Steps]:
    """The same for a further process in a user namespace."""
    first: list[steps.Step] = []
    for step in built:
        first += _prepared(step, {}, remapped=True)
    return tuple(first), tuple(step for step in built if not isinstance(step, steps.SetOomScore))


def _prepared(step: steps.Step, spaces: dict[str, str], remapped: bool) -> Iterator[steps.Step]:
    """What the helper does for a step of the child's."""
    if isinstance(step, steps.BindMount):
        yield steps.HoldTree(step.target, step.source, step.recursive, step.idmap)
    elif isinstance(step, steps.OverlayMount) and (remapped or step.idmap):
        yield steps.HoldOverlay(*_values(step))
    elif not remapped:
        return
    elif isinstance(step, steps.FileSystemMount) and not _mountable(step.kind, spaces):
        yield steps.HoldFileSystem(*_values(step))
    elif isinstance(step, steps.SetRlimits):
        yield steps.RaiseRlimits(step.limits)
    elif isinstance(step, steps.SetOomScore):
        yield step


def _values(step: steps.Step) -> tuple[Any, ...]:
    return step.to_wire()[1:]


def _mountable(kind: str, spaces: dict[str, str]) -> bool:
    """Whether the container's root can mount it. A pid namespace is shown to those in it alone, so that a joined one's
    /proc is the child's to mount; that goes well where the user namespace is joined with it."""
    if kind not in _MOUNTABLE:
        return False
    space = _MOUNTABLE[kind]
    return not space or spaces.get(space) == "" or (space == "pid" and space in spaces)


def delegated(mounts: Iterable[Mount], spaces: dict[str, str]) -> bool:
    """Whether the container's cgroup becomes its own: it has namespaces for it and may write to what it sees."""
    return (
        "user" in spaces
        and spaces.get("cgroup") == ""
        and any(mount.type in ("cgroup", "cgroup2") and "ro" not in mount.options for mount in mounts)
    )

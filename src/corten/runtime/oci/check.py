"""What a caller of the command line is told of a specification, beside what the plan's compiler finds.

Each complaint begins with the member's path.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from corten.errors import InvalidArgument, StartFailed, clip
from corten.linux.capability import NUMBERS
from corten.runtime.plan_process import cpu_list
from corten.specs.oci_runtime import Linux, Process, Spec

# Steps of the child to the member of config.json that they carry out. Docker has words of its own for these failures,
# which its clients match on: the daemon says no more than them.
_MEMBERS = {"find command": "process.args[0]", "exec": "process.args[0]", "enter working directory": "process.cwd"}
_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def check(spec: Spec, bundle: Path) -> None:
    """Raises InvalidArgument for the first thing that is wrong."""
    for complaint in _complaints(spec, bundle):
        raise InvalidArgument(complaint)


def check_process(process: Process) -> None:
    """The same for the process of `exec`."""
    for complaint in _capabilities(process):
        raise InvalidArgument(complaint)


def _complaints(spec: Spec, bundle: Path) -> Iterator[str]:
    yield from _root(spec, bundle)
    if spec.process is None:
        yield "process: is missing"
    else:
        yield from _capabilities(spec.process)
        _check_affinity(spec.process)
    for index, space in enumerate((spec.linux or Linux()).namespaces):
        if space.path and not os.path.exists(space.path):
            yield f"linux.namespaces[{index}].path: {clip(space.path)}: no such file or directory"


def named(failure: StartFailed, spec: Spec, bundle: Path) -> StartFailed:
    """The same, with the member's path in front where it is not in the message."""
    member = _MEMBERS.get(failure.step, "")
    for index, mount in enumerate(spec.mounts) if "mount" in failure.step else ():
        target = "/" + posixpath.normpath("/" + mount.destination).strip("/")
        source = str(bundle / mount.source)
        if f'to rootfs at "{target}"' in failure.message or f'mounting "{source}" to the rootfs' in failure.message:
            member = f"mounts[{index}]"
    if not member:
        return failure
    message = f"{member}: {failure.message}"
    return StartFailed(message, step=failure.step, errno=failure.errno, exit_code=failure.exit_code)


def _check_affinity(process: Process) -> None:
    """It is for exec sessions: they are too late to find that it makes no sense."""
    for name, text in (structs.asdict(process.exec_cpu_affinity) if process.exec_cpu_affinity else {}).items():
        if text:
            cpu_list(f"process.execCPUAffinity.{name}", text)


def _root(spec: Spec, bundle: Path) -> Iterator[str]:
    if spec.root is None or not spec.root.path:
        yield "root.path: is missing"
        return
    path = bundle / spec.root.path
    try:
        if path.stat() and not path.is_dir():
            yield f"root.path: {clip(str(path))} is not a directory"
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        yield f"root.path: {clip(str(path))}: {reason}"


def _capabilities(process: Process) -> Iterator[str]:
    """The specification would have unknown ones passed over with a warning; a misspelt one is then found when the
    program fails, if ever. What this kernel lacks and others have is no error."""
    for kind in _SETS if process.capabilities is not None else ():
        for index, name in enumerate(getattr(process.capabilities, kind) or ()):
            if name not in NUMBERS:
                yield f'process.capabilities.{kind}[{index}]: "{clip(name, 60)}" is unknown'

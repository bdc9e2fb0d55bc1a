"""What a caller of the command line is told before anything is made, beside what the plan's compiler finds.

Each complaint begins with the member's path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from corten.errors import InvalidArgument, clip
from corten.linux.capability import NUMBERS
from corten.specs.oci_runtime import Linux, Process, Spec

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
    for index, space in enumerate((spec.linux or Linux()).namespaces):
        if space.path and not os.path.exists(space.path):
            yield f"linux.namespaces[{index}].path: {clip(space.path)}: no such file or directory"


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

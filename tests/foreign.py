"""The OCI runtimes that the daemon is tried with beside its own, as programs that work on this host."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from corten.runtime.cgroups import host_layout

NAMES = ("runc", "crun", "corten-runtime")

# "cgroups in hybrid mode not supported, drop all controllers from cgroupv2", says crun whatever it is asked for. So its
# calls are made where version 2 is not mounted; the mounts that the shim has made it sees all the same.
_OLD_VIEW = """#!/bin/sh
exec unshare --mount --propagation private sh -c 'umount {unified} && exec {program} "$@"' sh "$@"
"""
_OURS = """#!/bin/sh
exec {python} -m corten.runtime.main "$@"
"""


def program(name: str, place: Path) -> str:
    """The path of a runtime's program; one that has to be made is made in `place`. scripts/test installs the others."""
    layout = host_layout()
    if name == "corten-runtime":
        return _script(place / name, _OURS.format(python=sys.executable))
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: scripts/test installs it"
    if name == "crun" and layout.unified and not layout.pure_v2:
        return _script(place / name, _OLD_VIEW.format(unified=layout.unified, program=path))
    return path


def _script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)

"""Running `corten-runtime` from a copy of the interpreter that nobody can change.

A program in the container that is started as `/proc/self/exe`, or by a script whose first line says so, is the
runtime's own: the container could open it there and write to it as soon as we have ended (CVE-2019-5736). The daemon's
spawner is started from such a copy once; here each command that brings a process into a container has to do it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from corten.linux.memfd import is_sealed, sealed_copy

STARTING = frozenset(("create", "run", "exec", "restore"))


def main() -> NoReturn:
    """The command itself: what it needs is imported in the copy alone."""
    run_sealed(sys.argv[1:])
    from corten.runtime.main import main as command

    command()


def run_sealed(argv: Sequence[str]) -> None:
    """Unless it is one already, execute this process again from a copy: the same arguments, pid and descriptors.

    Only for a command that starts something. Returns when there is nothing to do. Raises OSError.
    """
    if STARTING.isdisjoint(argv) or is_sealed("/proc/self/exe"):
        return
    program = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    copy = sealed_copy(program, "corten-runtime")
    # argv[0] is the true path: from it the interpreter finds its library and its virtual environment.
    os.execv(f"/proc/self/fd/{copy}", [sys.executable, *sys.orig_argv[1:]])

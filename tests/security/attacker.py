"""What an attacker brings: a Python inside the container, to make the system calls that busybox has no command for."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.specs.oci_runtime import Capabilities, Mount, Process, Spec
from tests.kernel.launching import CAPABILITIES, Lab, leftovers, remove_parents

PYTHON = os.path.realpath(sys.executable)
_PARTS = ("/usr", "/lib", "/lib64", sys.base_prefix)

PRELUDE = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    "0 or more, or the name of the errno"
    result = libc.syscall(number, *[a if isinstance(a, (bytes, type(None))) else ctypes.c_long(a) for a in arguments])
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(work):
    "what the operating system says to it"
    try:
        return work()
    except OSError as error:
        return errno.errorcode[error.errno]
"""


def python_mounts() -> list[Mount]:
    """The host's interpreter, read-only."""
    paths = [path for path in _PARTS if os.path.isdir(path) and path != "/usr/local"]
    library = str(sysconfig.get_config_var("LIBDIR"))
    if library and os.path.isdir(library) and not any(library.startswith(path + "/") for path in paths):
        paths.append(library)
    kept = [path for path in paths if not any(path != other and path.startswith(other + "/") for other in paths)]
    return [Mount(destination=path, type="bind", source=path, options=["rbind", "ro"]) for path in kept]


def with_python(spec: Spec) -> None:
    spec.mounts += python_mounts()


def script(code: str, interpreter: str = PYTHON) -> tuple[str, ...]:
    """The command that runs `code` with the prelude."""
    return interpreter, "-I", "-S", "-c", PRELUDE + code


def process(*args: str, capabilities: list[str] | None = None) -> Process:
    """A further process, with the lab's capabilities unless told otherwise."""
    names = CAPABILITIES if capabilities is None else capabilities
    sets = Capabilities(bounding=names, effective=names, permitted=names)
    return Process(cwd="/", args=list(args), env=["PATH=/bin"], capabilities=sets)


def give(spec: Spec, *names: str) -> None:
    """Further capabilities for the first process."""
    assert spec.process is not None
    wanted = [*CAPABILITIES, *names]
    spec.process.capabilities = Capabilities(bounding=wanted, effective=wanted, permitted=wanted)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    assert not leftovers(made.cgroup)
    remove_parents(os.path.dirname(made.cgroup))
    with open("/proc/self/mountinfo") as file:
        assert str(tmp_path) not in file.read()

"""testcontainers, as the tests of thousands of projects use it, with a reaper that is built here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.compat.harness import Daemon, Outcome
from tests.waiting import until

PROGRAM = Path(__file__).with_name("testcontainers_session.py")
REAPER = "testcontainers/ryuk:0.8.1"
UNUSED = re.compile(
    r"(^|/)(site-packages|dist-packages|test|tests|idlelib|lib2to3|ensurepip|tkinter|__pycache__|config-[^/]*)$|\.a$"
)
SEEN = {"page": "a page\n", "exec": [3, "hello\n"], "logs": ["serving\n", ""], "hostname": True}


def python_image(daemon: Daemon) -> None:
    """This interpreter, the libraries that it is linked with and its standard library, with the reaper to run."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = Path(sys.base_prefix) / "lib" / version
    binary = Path(sys.base_prefix) / "bin" / version
    files = {"usr/bin/python": binary, "reaper.py": Path(__file__).with_name("reaper.py")}
    modules = [*(library / "lib-dynload").glob("_socket.*"), *(library / "lib-dynload").glob("select.*")]
    for object_ in (binary, *modules, *(library / "lib-dynload").glob("*.so")):
        linked = subprocess.run(["ldd", str(object_)], capture_output=True, text=True, check=False).stdout
        files |= {path.lstrip("/"): Path(path) for path in re.findall(r"(?:=> |\t)(/\S+)", linked)}
    path = daemon.host.place / "reaper.tar"
    with tarfile.open(path, "w", dereference=True) as archive:
        for name, file in files.items():
            archive.add(file, name)
        archive.add(library, f"usr/lib/{version}", filter=lambda member: None if UNUSED.search(member.name) else member)
    change = 'CMD ["/usr/bin/python", "/reaper.py"]'
    daemon.ok("import", "-c", change, "-c", "ENV PYTHONHOME=/usr", str(path), REAPER)
    path.unlink()


@pytest.fixture
def reaping(daemon: Daemon) -> Daemon:
    if not daemon.ok("images", "-q", REAPER):
        python_image(daemon)
    return daemon


def session(daemon: Daemon, *args: str) -> Outcome:
    environment = {
        **os.environ,
        "DOCKER_HOST": daemon.url,
        "RYUK_RECONNECTION_TIMEOUT": "1s",
        "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
        "TC_POOLING_INTERVAL": "0.1",
    }
    return daemon.host.run(sys.executable, str(PROGRAM), *args, env=environment, timeout=120)


def test_a_session(reaping: Daemon) -> None:
    done = session(reaping)
    assert done.code == 0, done.err
    assert json.loads(done.out) == SEEN
    until(lambda: reaping.ok("ps", "-aq") == "", what="the end of the session's containers")


def test_a_session_that_dies_is_reaped(reaping: Daemon) -> None:
    done = session(reaping, "crash")
    assert (done.code, json.loads(done.out)) == (-9, SEEN), done.err
    names = reaping.ok("ps", "-a", "--format", "{{.Names}}").splitlines()
    assert "tc-web" in names
    until(lambda: reaping.ok("ps", "-aq") == "", what="the reaper")

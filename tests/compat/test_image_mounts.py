"""`--mount type=image` with the real docker command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.harness import Daemon, Outcome, daemon_on_host
from tests.waiting import until

SLEEP = ("busybox", "sleep", "1000")
MAKE = "mkdir -p /d/e && echo deep > /d/e/f && ln -s /d/e /in && ln -s ../../../../../etc/secret /out && chown 7 /d/e/f"


def make_image(daemon: Daemon, name: str = "tools") -> str:
    """An image of two layers; its id."""
    daemon.ok("run", "--name", "maker", "busybox", "sh", "-ec", MAKE)
    daemon.ok("commit", "maker", name)
    daemon.ok("rm", "maker")
    return daemon.ok("image", "inspect", "-f", "{{.Id}}", name)


def run(daemon: Daemon, words: str, *command: str, program: str = "docker", flags: tuple[str, ...] = ()) -> Outcome:
    call = daemon.docker if program == "docker" else daemon.corten
    return call("run", "--rm", *flags, "--mount", f"type=image,{words}", "busybox", *command)


def nothing_mounted(daemon: Daemon) -> bool:
    return str(daemon.host.place / "run/mounts") not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def tools(daemon: Daemon) -> Iterator[str]:
    yield make_image(daemon)
    if left := daemon.ok("ps", "-aq").split():
        daemon.ok("rm", "-f", *left)
    daemon.ok("rmi", "-f", "tools")


@pytest.mark.parametrize("program", ["docker", "corten"])
def test_what_is_shown(daemon: Daemon, tools: str, program: str) -> None:
    """All layers, read-only; a directory or file of it; links are followed inside the image alone."""
    look = "cat /x/d/e/f; test -x /x/bin/busybox && echo below; touch /x/new || echo refused"
    assert run(daemon, "source=tools,target=/x", "sh", "-c", look, program=program).lines == [
        "deep",
        "below",
        "refused",
    ]
    asked = f"src={tools},dst=/x,readonly=false,image-subpath=d/e"
    assert run(daemon, asked, "sh", "-c", "ls /x; touch /x/f || echo no", program=program).lines == ["f", "no"]
    assert run(daemon, "src=tools,dst=/x/file,image-subpath=d/e/f", "cat", "/x/file", program=program).out == "deep\n"
    assert run(daemon, "src=tools,dst=/x,image-subpath=in", "cat", "/x/f", program=program).out == "deep\n"
    assert run(daemon, "src=busybox,dst=/x", "cat", "/x/etc/notexec", program=program).out == "not a program\n"
    assert nothing_mounted(daemon)


def test_inspect(daemon: Daemon, tools: str) -> None:
    daemon.ok("create", "--name", "user", "--mount", "type=image,src=tools,dst=/x", "busybox")
    (mount,) = daemon.inspect("user")["Mounts"]
    source = mount.pop("Source")
    assert source.startswith(str(daemon.host.place / "data/snapshots"))
    assert mount == {
        "Type": "image",
        "Name": "tools",
        "Destination": "/x",
        "Mode": "",
        "RW": False,
        "Propagation": "rprivate",
    }
    daemon.ok("create", "--name", "heir", "--volumes-from", "user", "busybox", "cat", "/x/d/e/f")
    daemon.ok("rm", "user")
    assert daemon.ok("start", "-a", "heir") == "deep"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("src=nosuch,dst=/x", 125, "No such image: nosuch:latest"),
        ("dst=/x", 125, 'invalid mount config for type "image": field Source must not be empty'),
        ("src=tools,dst=/x,image-subpath=/d", 125, "subpath must be a relative path within the volume"),
        ("src=tools,dst=/x,image-subpath=d/../..", 125, "subpath must be a relative path within the volume"),
        ("src=tools,dst=/x,image-subpath=gone", 127, "/gone: no such file or directory"),
        ("src=tools,dst=/x,image-subpath=out", 127, "/out: no such file or directory"),
        ("src=tools,dst=x", 125, "invalid mount path: 'x' mount path must be absolute"),
    ],
)
def test_refused(daemon: Daemon, tools: str, words: str, code: int, message: str) -> None:
    done = run(daemon, words, "true")
    assert (done.code, message in done.err) == (code, True), done.err
    assert nothing_mounted(daemon)


@pytest.mark.parametrize("kind", ["npipe", "cluster"])
def test_kinds_of_other_hosts(daemon: Daemon, kind: str) -> None:
    done = daemon.docker("create", "--mount", f"type={kind},src=a,dst=/x", "busybox")
    assert done.err.strip() == f'Error response from daemon: invalid mount config for type "{kind}": mount type unknown'


def test_an_image_in_use_stays(daemon: Daemon, tools: str) -> None:
    """Neither rmi nor prune takes it while it is mounted; by force it goes from under a stopped container, which keeps
    the layers.
    """
    daemon.ok("run", "-d", "--name", "user", "--mount", "type=image,src=tools,dst=/x", *SLEEP)
    done = daemon.docker("rmi", "-f", tools)
    assert "(cannot be forced) - image is being used by running container" in done.err
    daemon.ok("kill", "user")
    done = daemon.docker("rmi", "tools")
    assert "is using its referenced image" in done.err
    daemon.ok("image", "prune", "-af")
    assert daemon.ok("image", "inspect", "-f", "{{.Id}}", "tools") == tools
    daemon.ok("rmi", "-f", tools)
    assert daemon.docker("image", "inspect", "tools").code == 1
    daemon.ok("start", "user")
    assert daemon.ok("exec", "user", "cat", "/x/d/e/f") == "deep"
    assert daemon.ok("cp", "user:/x/d/e/f", "-").find("deep") > 0
    daemon.ok("rm", "-f", "user")


def test_cp_from_a_stopped_container(daemon: Daemon, tools: str) -> None:
    daemon.ok("create", "--name", "whole", "--mount", "type=image,src=tools,dst=/x", "busybox")
    daemon.ok("create", "--name", "part", "--mount", "type=image,src=tools,dst=/x,image-subpath=in", "busybox")
    assert daemon.ok("cp", "whole:/x/d/e/f", "-").find("deep") > 0
    assert daemon.ok("cp", "part:/x/f", "-").find("deep") > 0
    done = daemon.docker("cp", __file__, "whole:/x/new")
    assert done.code == 1
    assert nothing_mounted(daemon)


def test_over_restarts(own_daemon: Daemon) -> None:
    """Of the container and of the daemon, killed too; what is left half made goes, and with the container all of it."""
    daemon = own_daemon
    make_image(daemon)
    daemon.ok("run", "-d", "--name", "user", "--mount", "type=image,src=tools,dst=/x", *SLEEP)
    daemon.kill()
    daemon.start()
    assert daemon.ok("exec", "user", "cat", "/x/d/e/f") == "deep"
    assert "is using its referenced image" in daemon.docker("rmi", "tools").err
    daemon.ok("restart", "-t", "0", "user")
    assert daemon.ok("exec", "user", "cat", "/x/d/e/f") == "deep"
    daemon.ok("rm", "-f", "user")
    daemon.ok("rmi", "tools")
    snapshots = daemon.host.place / "data/snapshots"
    # The layer of busybox is all that is left.
    until(lambda: len([p for p in snapshots.iterdir() if p.name.isdigit()]) == 1, what="the views' removal")


def test_copied_layers() -> None:
    with daemon_on_host("--storage-driver", "copy") as daemon:
        make_image(daemon)
        done = run(daemon, "src=tools,dst=/x", "sh", "-c", "cat /x/d/e/f; touch /x/new || echo refused")
        assert done.lines == ["deep", "refused"]
        assert run(daemon, "src=tools,dst=/x,image-subpath=in", "cat", "/x/f").out == "deep\n"
        daemon.ok("create", "--name", "stopped", "--mount", "type=image,src=tools,dst=/x", "busybox")
        assert daemon.ok("cp", "stopped:/x/d/e/f", "-").find("deep") > 0
        daemon.ok("rm", "stopped")

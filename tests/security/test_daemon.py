"""The daemon as a whole under hostile images, containers and neighbours, through the docker command line."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.compat.harness import Daemon
from tests.kernel.launching import needs_root
from tests.waiting import until

pytestmark = [pytest.mark.root, needs_root]


def image(daemon: Daemon, name: str, **config: Any) -> str:
    """An image over busybox with any configuration, as a hostile registry may serve it: `docker load` of an archive."""
    base = json.loads(daemon.ok("image", "inspect", "busybox:latest"))[0]
    saved = daemon.host.place / "saved.tar"
    if not saved.exists():
        daemon.ok("save", "-o", str(saved), "busybox:latest")
    made = daemon.host.place / "hostile.tar"
    with tarfile.open(saved) as source, tarfile.open(made, "w") as target:
        manifest = json.load(source.extractfile("manifest.json"))  # type: ignore[arg-type]
        document = json.load(source.extractfile(manifest[0]["Config"]))  # type: ignore[arg-type]
        document["config"] |= config
        body = json.dumps(document).encode()
        layers = manifest[0]["Layers"]
        entries = [("config.json", body)]
        entries += [(layer, source.extractfile(layer).read()) for layer in layers]  # type: ignore[union-attr]
        entries.append(
            ("manifest.json", json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": layers}]).encode())
        )
        for path, data in entries:
            info = tarfile.TarInfo(path)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    daemon.ok("load", "-i", str(made))
    assert base
    return name


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"User": "../../root"}, "unable to find user"),
        ({"User": "4294967295"}, "range"),
        ({"User": "-1"}, "unable to find user"),
        ({"User": "root\n"}, "unable to find user"),
        ({"User": ":" * 5000}, ""),
        ({"WorkingDir": "/proc/self/fd/8"}, "chdir to cwd"),
        ({"WorkingDir": "/proc/self/fd/8/../../../.."}, "chdir to cwd"),
        ({"WorkingDir": "relative"}, ""),
        ({"Env": ["A=1\0B=2"]}, ""),
        ({"Env": ["PATH=/proc/self/fd/9/..", "X"]}, "not found"),
        ({"Cmd": ["\0"]}, ""),
        ({"Entrypoint": ["/bin/" + "x" * 100000]}, ""),
        ({"Cmd": ["true"] + ["x" * 130000] * 2}, ""),
        ({"Volumes": {"/": {}}}, ""),
        ({"Volumes": {"/../..": {}}}, ""),
        ({"Volumes": {"/proc": {}}}, ""),
        ({"Volumes": {"/proc/self": {}}}, ""),
        ({"Volumes": {"/dev/fd/7": {}}}, ""),
        ({"Volumes": {"../../../../etc": {}}}, ""),
        ({"ExposedPorts": {"99999/tcp": {}, "x": {}}}, ""),
        ({"Healthcheck": {"Test": ["CMD", "/proc/self/fd/9/../bin/sh"], "Interval": 1}}, ""),
        ({"StopSignal": "SIGNOTHING"}, ""),
        ({"Labels": {"a\nb": "\x1b[2J"}}, ""),
    ],
)  # fmt: skip
def test_hostile_image_configurations(daemon: Daemon, config: dict[str, Any], words: str) -> None:
    """Each is an error that says why, or a container that is one; the daemon lives, and nothing is left mounted.

    `words` are of the error that must come: where an attack would succeed if there was none.
    """
    before = set(os.listdir("/"))
    name = image(daemon, "hostile:latest", **({"Cmd": ["true"], "Entrypoint": None} | config))
    done = daemon.docker("run", "--rm", name)
    if words:
        assert done.code != 0
        assert words in done.err, done.err[:500]
    assert len(done.err) < 10000
    assert "Traceback" not in daemon.log()
    assert set(os.listdir("/")) == before
    assert daemon.docker("run", "--rm", "busybox", "echo", "alive").out == "alive\n"
    daemon.docker("rmi", "-f", name)


def test_directories_and_sockets_are_closed_to_others(daemon: Daemon) -> None:
    """Other users of the host reach the API by the socket's group alone, and none of the container's files.

    The defence: the modes in `main` of daemon/main.py, `_unix` of daemon/listen.py, `Control.listen` of the shim.
    """
    daemon.ok("run", "-d", "--name", "box", "-v", "vol:/v", "busybox", "sh", "-c", "echo secret; sleep 1000")
    place = daemon.host.place
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE((place / "data").stat().st_mode) & 0o007 in (0, 1)
    assert stat.S_IMODE((place / "run").stat().st_mode) == 0o711  # passed through on the way to the socket, not listed
    readable = _open_to_others(place / "data") + _open_to_others(place / "run")
    assert not readable, "\n".join(readable)
    for path in (place / "run").rglob("*"):
        if path.is_socket():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def _open_to_others(root: Path) -> list[str]:
    """What a user without any group can list or read below, walking as he would: only where the directory lets him."""
    found: list[str] = []
    mode = root.lstat().st_mode
    if not stat.S_ISDIR(mode) or not mode & 0o001:
        return found
    for path in root.iterdir() if root.name != "netns" else ():  # the names can be guessed
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            if mode & 0o004 and path.name not in ("fs", "_data", "rootfs"):
                found.append(str(path))
            found += _open_to_others(path)
        elif stat.S_ISREG(mode) and mode & 0o006 and path.name not in ("hosts", "hostname", "resolv.conf"):
            found.append(str(path))
    return found


def test_no_socket_of_ours_is_abstract(daemon: Daemon) -> None:
    """CVE-2020-15257: an abstract socket belongs to a network namespace, and so to every container with --net=host.

    The defence: all our sockets are files, or pairs without a name (`Control.listen`, `_unix`).
    """
    daemon.ok("run", "-d", "--name", "box", "--network", "host", "busybox", "sleep", "1000")
    listing = daemon.ok("exec", "box", "cat", "/proc/net/unix")
    assert str(daemon.socket) in listing
    names = [line.split()[7] for line in listing.splitlines()[1:] if len(line.split()) > 7]
    assert [name for name in names if name.startswith("@")] == []


def test_our_processes_seen_with_the_hosts_pids(daemon: Daemon) -> None:
    """A container with `--pid host` sees them all. Nothing of theirs opens for it, though both are root: neither
    memory, nor root, nor program, of the daemon, the spawner or a shim. With CAP_SYS_PTRACE the kernel lets it, and
    what it finds as the program of spawner and shim is a sealed copy.

    The defences: they have capabilities that the container has not; PR_SET_DUMPABLE 0 in `main` of runtime/spawner.py,
    which the shims inherit.
    """
    daemon.ok("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    shim = int(Path(f"/proc/{daemon.inspect('box')['State']['Pid']}/stat").read_text().rpartition(")")[2].split()[1])
    assert daemon.process is not None
    spawner = int(Path(f"/proc/{shim}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (daemon.process.pid, spawner, shim):
        script = f"cd /proc/{pid}; readlink exe; ls root cwd; cat environ; head -c 1 mem; readlink fd/0"
        done = daemon.docker("run", "--rm", "--pid", "host", "busybox", "sh", "-c", script)
        assert done.out == "", done.out
    for pid in (spawner, shim):
        command = ("run", "--rm", "--pid", "host", "--cap-add", "SYS_PTRACE", "busybox", "readlink", f"/proc/{pid}/exe")
        assert daemon.ok(*command).startswith("/memfd:")


@pytest.mark.parametrize("options", [(), ("--init",), ("-t",)])
def test_no_descriptor_reaches_a_container(daemon: Daemon, options: tuple[str, ...]) -> None:
    """Of the daemon, the shim and the spawner, for run and exec. Published ports' sockets are the shim's, too.

    The defence: close-on-exec from birth, and `Context.let_go` of runtime/child/context.py.
    """
    listing = ("sh", "-c", "ls /proc/$$/fd; true")
    out = daemon.ok("run", "--name", "box", "-p", "0:80", *options, "busybox", *listing)
    assert out.split() == ["0", "1", "2"]
    daemon.ok("run", "-d", "--name", "box2", "-p", "0:80", *options, "busybox", "sleep", "1000")
    assert daemon.ok("exec", "box2", *listing).split() == ["0", "1", "2"]


def test_pids_limit_holds_a_fork_bomb(daemon: Daemon) -> None:
    """The rest of the host goes on, and so does the daemon. The defence: pids.max of the container's control group.

    It is a bomb that ends, so that a missing limit fails the test and not the machine.
    """
    # The first process itself does not fork any more, and what it has forked stays.
    bomb = "(n=0; while [ $n -lt 100 ]; do sleep 1000 & n=$((n+1)); done) & exec cat"
    daemon.ok("run", "-di", "--name", "box", "--pids-limit", "30", "busybox", "sh", "-c", bomb)
    until(lambda: "can't fork" in (seen := daemon.docker("logs", "box")).out + seen.err, what="the limit is felt")
    assert daemon.docker("run", "--rm", "busybox", "echo", "alive").out == "alive\n"
    assert 20 <= len(daemon.ok("top", "box").splitlines()) <= 31
    daemon.ok("rm", "-f", "box")


def test_a_process_that_ignores_signals_ends(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "box", "busybox", "sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1000; done")
    daemon.ok("stop", "-t", "1", "box")
    assert daemon.inspect("box")["State"]["ExitCode"] == 137


def test_names_of_containers_cannot_hold_control_characters(daemon: Daemon) -> None:
    """Terminal escapes in what `ps` prints: names are checked, commands are quoted."""
    assert daemon.docker("create", "--name", "\x1b[2J", "busybox").code != 0
    daemon.ok("create", "--name", "box", "--label", "x=\x1b[2J", "busybox", "echo", "\x1b[2J\x07\r\nfake")
    for listing in (daemon.corten("ps", "-a").out, daemon.corten("ps", "-a", "--no-trunc").out):
        assert not set(listing) & set("\x1b\x07\r"), listing
        assert len(listing.splitlines()) == 2


def test_an_error_of_the_cli_does_not_carry_escapes(daemon: Daemon) -> None:
    """What an image or a registry has named reaches the terminal as text."""
    daemon.ok("run", "-d", "--name", "box", "busybox", "sh", "-c", "sleep 1000; true", "\x1b[2J")
    shown = daemon.corten("top", "box").out
    assert "sleep 1000; true" in shown
    assert not set(shown) & set("\x1b\x07")
    name = image(daemon, "hostile:latest", Cmd=["\x1b]0;owned\x07\x1b[2J"], Entrypoint=None)
    done = daemon.corten("run", "--rm", name)
    assert done.code == 127
    assert not set(done.err) & set("\x1b\x07"), done.err


def test_what_a_container_names_does_not_make_lines_of_the_daemons_log(daemon: Daemon) -> None:
    """Log injection: a program that removes itself cannot be restarted, and the daemon logs why, with its name.

    The defence: `OneLine` in daemon/logsetup.py writes control characters out.
    """
    forged = "2026-01-01 00:00:00,000 ERROR corten.daemon: forged"
    program = f"/v/x\n{forged}"
    write = 'printf "#!/bin/sh\\nrm \\"\\$0\\"\\n" >"$0"; chmod +x "$0"'
    daemon.ok("run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", write, program)
    daemon.ok("run", "-d", "--name", "box", "--restart", "always", "-v", "vol:/v", "busybox", program)
    until(lambda: "box could not be restarted" in daemon.log(), what="the daemon's complaint")
    daemon.curl("/v1.44/containers/a%0A" + forged.replace(" ", "%20") + "/json")
    assert forged in daemon.log()
    assert not [line for line in daemon.log().splitlines() if line.startswith(forged)]


def test_shared_memory_of_several_containers_has_no_setuid_programs(daemon: Daemon) -> None:
    """It is a folder of the host then. The defence: the options that `_mounts` of engine/spec/builder.py gives it."""
    flags = daemon.ok("run", "--rm", "--ipc", "shareable", "busybox", "grep", " /dev/shm ", "/proc/mounts").split()[3]
    assert {"nosuid", "nodev", "noexec"} <= set(flags.split(","))

"""Containers whose root is nobody on the host, and the ids of their files."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from corten.runtime.cgroups import Cgroup
from corten.runtime.types import LaunchRequest, MountSpec, Stdio
from corten.specs.oci_runtime import (
    Capabilities,
    Device,
    Hook,
    Hooks,
    IDMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Rlimit,
    Spec,
)
from tests.kernel.boxes import DEADLINE, Terminal, boxes, cgroup_of
from tests.kernel.launching import Lab, leftovers, needs_root, remove_parents
from tests.kernel.test_oci_cli import Bundle

pytestmark = [pytest.mark.root, needs_root]

UIDS, GIDS, SIZE = 100000, 200000, 65536
Change = Callable[[Spec, Linux], None]


class RemapLab(Lab):
    """Whose containers have a user namespace and an idmapped root, if the test does not say otherwise."""

    words: tuple[str, ...] = ("idmap",)
    layers: tuple[str, ...] = ()

    def request(self, *args: object, **more: object) -> LaunchRequest:
        made = super().request(*args, **more)  # type: ignore[arg-type]
        options = (*made.rootfs[0].options, *self.words)
        if self.layers:
            options = (f"lowerdir={':'.join(self.layers)}", *options[1:])
        return replace(made, rootfs=(replace(made.rootfs[0], options=options),))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[RemapLab]:
    made = RemapLab(tmp_path)
    yield made
    assert not leftovers(made.cgroup)
    remove_parents(os.path.dirname(made.cgroup))
    with open("/proc/self/mountinfo") as file:
        assert str(tmp_path) not in file.read()


def remapped(change: Change | None = None, *, path: str = "") -> Callable[[Spec], None]:
    def apply(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.namespaces.append(Namespace(type="user", path=path))
        spec.linux.uid_mappings = [IDMapping(container_id=0, host_id=UIDS, size=SIZE)]
        spec.linux.gid_mappings = [IDMapping(container_id=0, host_id=GIDS, size=SIZE)]
        if change is not None:
            change(spec, spec.linux)

    return apply


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_the_maps_and_who_root_is(lab: RemapLab) -> None:
    script = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u; id -g; cat"
    probe = "import os; answer['user'] = os.readlink(f'/proc/{main.pid}/ns/user')"
    done = lab.run("sh", "-c", script, change=remapped(), probe=probe)
    assert done.failure is None, done.failure
    words = done.out.split()
    assert words == ["0", str(UIDS), str(SIZE), "0", str(GIDS), str(SIZE), "allow", "0", "0"]
    assert done.answer["user"] != os.readlink("/proc/self/ns/user")


def test_nothing_on_disk_is_owned_by_the_remapped_ids(lab: RemapLab) -> None:
    (lab.lower / "home/web/file").write_text("1")
    os.chown(lab.lower / "home/web/file", 1000, 1001)
    script = (
        "stat -c %u:%g /etc/passwd /home/web/file; touch /root/new; echo 2 >> /home/web/file; "
        "mkdir /srv; chown 7:8 /srv; rm /etc/group"
    )
    done = lab.run("sh", "-c", script, change=remapped())
    assert done.code == 0, (done.failure, done.err)
    assert done.out.split() == ["0:0", "1000:1001"]
    assert owner(lab.upper / "root/new") == (0, 0)
    assert owner(lab.upper / "home/web/file") == (1000, 1001)  # copied up
    assert owner(lab.upper / "srv") == (7, 8)
    whiteout = (lab.upper / "etc/group").lstat()
    assert whiteout.st_rdev == 0
    assert (whiteout.st_uid, whiteout.st_gid) == (0, 0)


def test_the_hosts_files_belong_to_nobody(lab: RemapLab, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "secret").write_text("s")
    (tmp_path / "secret").chmod(0o600)

    def change(spec: Spec, linux: Linux) -> None:
        spec.mounts += [
            Mount(destination="/data", type="bind", source=str(tmp_path / "data"), options=["rbind"]),
            Mount(destination="/secret", type="bind", source=str(tmp_path / "secret"), options=["bind"]),
        ]

    done = lab.run("sh", "-c", "stat -c %u /data; touch /data/x; cat /secret", change=remapped(change))
    assert done.out == "65534\n"
    assert done.err.count("Permission denied") == 2


def test_sources_below_directories_that_only_the_hosts_root_may_pass(lab: RemapLab, tmp_path: Path) -> None:
    (tmp_path / "closed/data").mkdir(parents=True)
    (tmp_path / "closed/data/f").write_text("found\n")
    os.chown(tmp_path / "closed", 12345, 12345)
    (tmp_path / "closed").chmod(0o700)

    def change(spec: Spec, linux: Linux) -> None:
        spec.mounts.append(Mount(destination="/data", type="bind", source=str(tmp_path / "closed/data")))

    assert lab.run("cat", "/data/f", change=remapped(change)).out == "found\n"


@pytest.mark.parametrize("count", [1, 70])
def test_deep_images(lab: RemapLab, tmp_path: Path, count: int) -> None:
    layers = []
    for number in range(count):
        layer = tmp_path / f"layers/{number:012}/fs"
        layer.mkdir(parents=True)
        (layer / f"f{number}").write_text("x")
        layers.append(str(layer))
    lab.layers = (*layers, str(lab.lower))
    done = lab.run("sh", "-c", "ls / | grep -c ^f; stat -c %u /f0; echo > /f0", change=remapped())
    assert done.code == 0, (done.failure, done.err)
    assert done.out.split() == [str(count), "0"]
    assert owner(lab.upper / "f0") == (0, 0)


def test_a_layer_whose_path_the_kernel_takes_only_in_one_page(lab: RemapLab, tmp_path: Path) -> None:
    layer = tmp_path / "/".join(("x" * 100,) * 3)
    layer.mkdir(parents=True)
    (layer / "deep").touch()
    lab.layers = (str(layer), str(lab.lower))
    done = lab.run("sh", "-c", "stat -c %u /deep; touch /root/x", change=remapped())
    assert done.out == "0\n", (done.failure, done.err)
    assert owner(lab.upper / "root/x") == (0, 0)


def test_a_layer_with_a_mount_of_its_own(lab: RemapLab, tmp_path: Path) -> None:
    """One copy of what is above all layers would show the empty directory below the mount."""
    layer, other = tmp_path / "apart", tmp_path / "other"
    layer.mkdir()
    other.mkdir()
    (other / "apart").write_text("apart\n")
    lab.layers = (str(layer), str(lab.lower))
    script = f'mount --bind {other} {layer} && exec "$@"'
    wrap = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    done = lab.run("sh", "-c", "cat /apart; stat -c %u /apart", change=remapped(), wrap=wrap)
    assert done.out == "apart\n0\n", (done.failure, done.err)


def test_without_idmap_layers_are_as_they_are_on_disk(lab: RemapLab) -> None:
    lab.words = ()
    for directory, names, files in os.walk(lab.lower):
        for name in (".", *names, *files):
            os.chown(os.path.join(directory, name), UIDS, GIDS, follow_symlinks=False)
    for path in (lab.upper, lab.directory / "work"):
        os.chown(path, UIDS, GIDS)
    done = lab.run("sh", "-c", "stat -c %u:%g /etc/passwd; touch /root/new", change=remapped())
    assert done.out == "0:0\n", (done.failure, done.err)
    assert owner(lab.upper / "root/new") == (UIDS, GIDS)


def test_a_bundles_own_directory_as_root(lab: RemapLab) -> None:
    os.rename(lab.lower, lab.directory / "run/rootfs")
    original = lab.request

    def request(*args: object, **more: object) -> LaunchRequest:
        source = str(lab.directory / "run/rootfs")
        return replace(original(*args, **more), rootfs=(MountSpec("bind", source, options=("rbind", "ridmap")),))

    lab.request = request  # type: ignore[method-assign]
    done = lab.run("sh", "-c", "touch /root/new; stat -c %u:%g /root/new", change=remapped())
    assert done.out == "0:0\n", (done.failure, done.err)
    assert owner(lab.directory / "run/rootfs/root/new") == (0, 0)


def test_devices_can_be_used_and_belong_to_the_container(lab: RemapLab) -> None:
    def change(spec: Spec, linux: Linux) -> None:
        linux.devices = [
            Device(type="c", path="/dev/other-null", major=1, minor=3, file_mode=0o640, uid=7, gid=8),
            Device(type="p", path="/dev/sub/pipe", file_mode=0o600),
        ]

    script = "cd /dev; stat -c '%F %u:%g %a %t:%T' null other-null sub/pipe; echo x > null; head -c 3 zero | wc -c"
    done = lab.run("sh", "-c", script, change=remapped(change))
    lines = done.out.splitlines()
    assert lines[:4] == [
        "character special file 0:0 666 1:3",
        "character special file 7:8 640 1:3",
        "fifo 0:0 600 0:0",
        "3",
    ], (done.failure, done.err)


def test_a_device_whose_owner_is_not_mapped(lab: RemapLab) -> None:
    def change(spec: Spec, linux: Linux) -> None:
        linux.devices = [Device(type="c", path="/dev/x", major=1, minor=3, uid=SIZE)]

    done = lab.run("true", change=remapped(change))
    assert done.failure is not None
    assert done.failure[2] == f"linux.devices: /dev/x: its owner {SIZE}:0 is not mapped in the user namespace"


def test_fresh_file_systems_and_cgroups(lab: RemapLab) -> None:
    script = "cut -d' ' -f5 /proc/self/mountinfo; ls /sys/class/net"
    done = lab.run("sh", "-c", script, change=remapped())
    lines = done.out.split()
    for target in ("/proc", "/sys", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys/fs/cgroup"):
        assert target in lines
    assert "lo" in lines, (done.failure, done.err)


def test_masked_paths_hostname_and_sysctl(lab: RemapLab) -> None:
    def change(spec: Spec, linux: Linux) -> None:
        linux.masked_paths = ["/etc/passwd", "/sys/firmware"]
        linux.readonly_paths = ["/proc/sys"]
        linux.sysctl = {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shm_rmid_forced": "1"}

    script = (
        "cat /etc/passwd; ls -A /sys/firmware; hostname; cd /proc/sys/net/ipv4; "
        "cat ip_unprivileged_port_start; echo 1 > ip_forward"
    )
    done = lab.run("sh", "-c", script, change=remapped(change))
    assert done.out.split() == ["box", "0"], (done.failure, done.err)
    assert "Read-only file system" in done.err


def test_capabilities_are_those_of_the_namespace(lab: RemapLab) -> None:
    """All of them inside, and none of them outside."""
    every = [f"CAP_{name}" for name in ("SYS_ADMIN", "NET_ADMIN", "MKNOD", "CHOWN", "SYS_TIME", "SYS_CHROOT")]

    def change(spec: Spec, linux: Linux) -> None:
        assert spec.process is not None
        spec.process.capabilities = Capabilities(bounding=every, effective=every, permitted=every)

    script = (
        "mount -t tmpfs x /tmp && echo mounted; ip link set lo down && echo down; "
        "mknod /root/sda b 8 0; chroot / date -s 2000-01-01"
    )
    done = lab.run("sh", "-c", script, change=remapped(change))
    assert "mounted" in done.out
    assert "down" in done.out
    assert done.err.count("Operation not permitted") == 2, done.err


def test_users_by_name_and_their_streams(lab: RemapLab) -> None:
    script = "id; echo by-name > /dev/stdout; echo by-name > /dev/stderr; cat /proc/self/oom_score_adj"

    def change(spec: Spec, linux: Linux) -> None:
        assert spec.process is not None
        spec.process.oom_score_adj = 77
        spec.process.rlimits = [Rlimit(type="RLIMIT_NOFILE", soft=64, hard=128)]

    done = lab.run("sh", "-c", script, change=remapped(change), user="web", groups=["more"])
    assert done.out == "uid=1000(web) gid=1001(web) groups=1001(web),2000(extra),3000(more)\nby-name\n77\n", done.err
    assert done.err == "by-name\n"
    assert done.warnings == []


def test_terminal(lab: RemapLab) -> None:
    def change(spec: Spec, linux: Linux) -> None:
        assert spec.process is not None
        spec.process.terminal = True

    done = lab.run(
        "sh", "-c", "tty; stat -c %u /dev/console /dev/pts/0; echo x > /dev/console", change=remapped(change)
    )
    assert done.console.split() == ["/dev/pts/0", "0", "0", "x"], done.failure


@pytest.mark.parametrize("hold", [False, True])
def test_init_and_hold(lab: RemapLab, hold: bool) -> None:
    done = lab.run("sh", "-c", "cat /proc/1/comm; exit 4", change=remapped(), init=True, hold=hold)
    assert (done.code, done.out) == (4, "corten-init\n"), done.failure


def test_hooks(lab: RemapLab, tmp_path: Path) -> None:
    """The runtime's see the pid on the host, the container's are its root."""

    def change(spec: Spec, linux: Linux) -> None:
        script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); cat /proc/$pid/uid_map > "
        spec.hooks = Hooks(
            create_runtime=[Hook(path="/bin/sh", args=["sh", "-c", f"{script}{tmp_path}/map"], env=["PATH=/bin"])],
            create_container=[Hook(path="/bin/sh", args=["sh", "-c", "echo $(id -u) > root/hook"], env=["PATH=/bin"])],
        )

    done = lab.run("cat", "/root/hook", change=remapped(change))
    assert done.out == "0\n", done.failure
    assert (tmp_path / "map").read_text().split() == ["0", str(UIDS), str(SIZE)]


def test_exec(lab: RemapLab) -> None:
    def process(*args: str, terminal: bool = False) -> Process:
        return Process(cwd="/tmp", args=list(args), env=["PATH=/bin"], terminal=terminal, oom_score_adj=55)

    script = (
        "readlink /proc/self/ns/user; id -u; cat /proc/self/uid_map /proc/self/oom_score_adj; "
        "echo out > /dev/stdout; touch /root/by-exec"
    )
    done = lab.run(
        "sh",
        "-c",
        "readlink /proc/self/ns/user; cat",
        change=remapped(),
        execs=[
            (process("sh", "-c", script), ""),
            (process("sh", "-c", "id; stat -c %u /dev/pts/0; tty", terminal=True), "web"),
        ],
    )
    assert [one.get("code") for one in done.execs] == [0, 0], done.execs
    spaces = [word for word in done.out.split() if word.startswith("user:")]  # whichever was first
    assert spaces == [spaces[0]] * 2
    assert spaces[0] != os.readlink("/proc/self/ns/user")
    words = [word for word in done.out.split() if word != spaces[0]]
    assert words == ["0", "0", str(UIDS), str(SIZE), "55", "out"]
    assert owner(lab.upper / "root/by-exec") == (0, 0)
    web = "uid=1000(web) gid=1001(web) groups=1001(web),2000(extra)"
    assert done.execs[1]["console"].splitlines() == [web, "1000", "/dev/pts/0"]
    assert all(one["warnings"] == [] for one in done.execs)


def test_nothing_of_the_host_stays_open(lab: RemapLab) -> None:
    probe = (
        "import os; place = f'/proc/{main.pid}'; "
        "answer.update(fds=sorted(os.listdir(place + '/fd')), root=os.listdir(place + '/root'))"
    )
    done = lab.run("cat", change=remapped(), probe=probe)
    assert done.answer["fds"] == ["0", "1", "2"]
    assert set(done.answer["root"]) == {"bin", "etc", "tmp", "root", "home", "proc", "dev", "sys"}


def test_through_the_shim(tmp_path: Path) -> None:
    """Its streams, an exec and the exit, as the daemon has them."""

    async def scenario() -> None:
        async with boxes(tmp_path) as box:
            request = box.request("userns", "sh", "-c", "id -u; cat /proc/self/uid_map; echo named > /dev/stdout; cat")
            request = replace(request, stdio=Stdio(open_stdin=True))
            request = replace(request, rootfs=(replace(request.rootfs[0], options=("rbind", "idmap")),))
            remapped()(request.spec)
            client = Terminal(stdin=True, raw=False)
            await box.client.launch(request, [client.stream])
            await box.logged_until("userns", "named")
            assert box.logged("userns").split() == ["0", "0", str(UIDS), str(SIZE), "named"]
            await box.exec("userns", "e1", "sh", "-c", "echo by exec > /bin/made")
            assert (await box.exec_exit_of("e1")).code == 0
            assert owner(tmp_path / "root/bin/made") == (0, 0)
            client.sock.shutdown(socket.SHUT_WR)
            await box.client.signal("userns", signal.SIGKILL)
            assert (await box.exit_of("userns")).code == 137

    asyncio.run(scenario())


@pytest.mark.parametrize("propagation", ["", "private", "shared", "rslave", "unbindable"])
def test_nothing_of_the_root_shows_on_a_host_that_shares_its_mounts(lab: RemapLab, propagation: str) -> None:
    """As systemd makes it: what the helper mounts for a moment must not get about."""

    def change(spec: Spec, linux: Linux) -> None:
        linux.rootfs_propagation = propagation
        spec.mounts.append(Mount(destination="/v", type="bind", source=str(lab.directory), options=["rbind", "idmap"]))

    share = ("unshare", "-m", "sh", "-c", 'mount --make-rshared / && exec "$@"', "sh")
    probe = "answer['seen'] = open('/proc/self/mountinfo').read()"
    done = lab.run("sh", "-c", "ls /v; cat", change=remapped(change), wrap=share, probe=probe)
    assert "lower" in done.out, done.failure
    assert str(lab.directory) not in done.answer["seen"]


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    """Whose root belongs to the ids that the container has on the host, as its callers prepare it."""
    made = Bundle(tmp_path)
    for directory, names, files in os.walk(made.directory / "rootfs"):
        for name in (".", *names, *files):
            os.chown(os.path.join(directory, name), UIDS, UIDS, follow_symlinks=False)
    yield made
    made.call("delete", "--force", "oci")
    Cgroup(cgroup_of("")).remove()


def _edit(bundle: Bundle, *args: str, sizes: Sequence[int] = (SIZE,)) -> None:
    bundle.edit(*args)
    path = bundle.directory / "config.json"
    config = json.loads(path.read_text())
    config["linux"]["namespaces"] += [{"type": "user"}]
    mappings = [{"containerID": 0, "hostID": UIDS, "size": size} for size in sizes]
    config["root"]["readonly"] = False
    config["linux"] |= {"uidMappings": mappings, "gidMappings": mappings}
    path.write_text(json.dumps(config))


def test_by_the_oci_command_line(bundle: Bundle) -> None:
    _edit(bundle, "sleep", "1000")
    create = bundle.command("create", "--bundle", str(bundle.directory), "oci")
    null = subprocess.DEVNULL
    subprocess.run(create, stdin=null, stdout=null, stderr=null, check=True, timeout=DEADLINE)
    pid = json.loads(bundle.ok("state", "oci"))["pid"]
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(UIDS), str(SIZE)]
    bundle.ok("start", "oci")
    assert bundle.ok("exec", "oci", "sh", "-c", "cat /proc/self/uid_map; echo x > /tmp/x").split()[1] == str(UIDS)
    assert owner(bundle.directory / "rootfs/tmp/x") == (UIDS, UIDS)
    assert Path(f"/proc/{pid}").stat().st_uid == UIDS


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((), "linux.uidMappings: a user namespace needs"),
        ((5, 5), r"linux.uidMappings\[1\]: container ids"),
    ],
)
def test_mappings_that_the_command_line_refuses(bundle: Bundle, sizes: Sequence[int], text: str) -> None:
    _edit(bundle, "true", sizes=sizes)
    refused = bundle.call("run", "--bundle", str(bundle.directory), "oci")
    assert refused.returncode == 1
    assert re.search(text, refused.stderr), refused.stderr
    assert bundle.call("state", "oci").returncode != 0
    assert not leftovers(cgroup_of("oci"))

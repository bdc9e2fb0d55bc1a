"""Mounts, devices and propagation, seen from inside the container."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corten.specs.oci_runtime import Device, IDMapping, Mount, Namespace, Spec
from tests.kernel.launching import Lab, Outcome, leftovers, needs_root, remove_parents

pytestmark = [pytest.mark.root, needs_root]
Change = Callable[[Spec], None]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    assert not leftovers(made.cgroup)
    remove_parents(os.path.dirname(made.cgroup))
    with open("/proc/self/mountinfo") as file:
        assert str(tmp_path) not in file.read()


def with_mounts(*mounts: Mount, propagation: str = "") -> Change:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.mounts += mounts
        spec.linux.rootfs_propagation = propagation

    return change


class Seen:
    """A line of /proc/self/mountinfo: the mount's options, its propagation, and the file system's type and options."""

    def __init__(self, line: str) -> None:
        before, _, after = line.partition(" - ")
        fields = before.split()
        self.point, self.options, self.peers = (
            fields[4],
            set(fields[5].split(",")),
            [p.split(":")[0] for p in fields[6:]],
        )
        self.kind, _, options = after.split()
        self.super_options = set(options.split(","))


def seen(done: Outcome) -> dict[str, Seen]:
    assert done.failure is None, done.failure
    return {line.point: line for line in map(Seen, done.out.splitlines())}


def look(lab: Lab, change: Change, wrap: tuple[str, ...] = ()) -> dict[str, Seen]:
    return seen(lab.run("cat", "/proc/self/mountinfo", change=change, wrap=wrap))


def in_own_tree(script: str) -> tuple[str, ...]:
    """Runs the launcher in a mount namespace where `script` has been run."""
    return ("unshare", "-m", "sh", "-ec", f'{script}; exec "$@"', "sh")


def bind(source: Path | str, target: str, *options: str) -> Mount:
    return Mount(destination=target, type="bind", source=str(source), options=list(options))


def tmpfs(target: str, *options: str) -> Mount:
    return Mount(destination=target, type="tmpfs", source="tmpfs", options=list(options))


def refused(lab: Lab, change: Change) -> str:
    done = lab.run("true", change=change)
    assert done.failure is not None
    return done.failure[2]


# -- options ---------------------------------------------------------------------------------------------------------


def test_options_of_the_mount_and_of_the_file_system(lab: Lab) -> None:
    mount = tmpfs(
        "/t", "nosuid", "nodev", "noexec", "nosymfollow", "noatime", "nodiratime", "sync", "dirsync", "lazytime",
        "mand", "silent", "size=64k",
    )  # fmt: skip
    found = look(lab, with_mounts(mount, tmpfs("/u", "strictatime", "iversion", "ro", "async", "loud", "mode=700")))
    assert found["/t"].options == {"rw", "nosuid", "nodev", "noexec", "nosymfollow", "noatime", "nodiratime"}
    assert found["/t"].super_options >= {"sync", "dirsync", "lazytime", "mand", "size=64k"}
    assert (found["/u"].kind, found["/u"].options) == ("tmpfs", {"ro"})
    assert "mode=700" in found["/u"].super_options


def test_the_usual_mounts(lab: Lab) -> None:
    found = look(lab, with_mounts())
    assert {path: found[path].kind for path in ("/proc", "/sys", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm")} == {
        "/proc": "proc",
        "/sys": "sysfs",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/dev/mqueue": "mqueue",
        "/dev/shm": "tmpfs",
    }
    assert "ro" in found["/sys"].options
    assert found["/dev/pts"].super_options >= {"gid=5", "mode=620", "ptmxmode=666"}
    assert not found["/dev/shm"].options & {"suid", "dev"}


@pytest.mark.parametrize(
    ("words", "top", "below"),
    [
        (("rbind",), {"rw"}, {"rw"}),
        (("rbind", "ro"), {"ro"}, {"rw"}),
        (("rbind", "rro"), {"ro"}, {"ro"}),
        (("rbind", "rro", "rrw"), {"rw"}, {"rw"}),
        (("rbind", "ro", "rnosuid", "rnoexec"), {"ro", "nosuid", "noexec"}, {"rw", "nosuid", "noexec"}),
        (("rbind", "rnosymfollow", "rnoatime"), {"rw", "nosymfollow", "noatime"}, {"rw", "nosymfollow", "noatime"}),
        (("bind", "rro"), {"ro"}, None),
    ],
)  # fmt: skip
def test_recursive_options(
    lab: Lab, tmp_path: Path, words: tuple[str, ...], top: set[str], below: set[str] | None
) -> None:
    (tmp_path / "v").mkdir()
    tree = f"mount -t tmpfs t {tmp_path}/v; mkdir {tmp_path}/v/below; mount -t tmpfs t {tmp_path}/v/below"
    found = look(lab, with_mounts(bind(tmp_path / "v", "/v", *words)), in_own_tree(tree))
    assert found["/v"].options - {"relatime"} == top
    assert (found["/v/below"].options - {"relatime"} if below is not None else "/v/below" in found) == (below or False)


@pytest.mark.parametrize("words", [("bind",), ("bind", "ro")])
def test_what_is_locked_on_the_host_stays(lab: Lab, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "v").mkdir()
    tree = f"mount -t tmpfs -o nosuid,noexec,nodev t {tmp_path}/v"
    found = look(lab, with_mounts(bind(tmp_path / "v", "/v", *words)), in_own_tree(tree))
    assert found["/v"].options >= {"nosuid", "noexec", "nodev", "ro" if "ro" in words else "rw"}


@pytest.mark.parametrize(
    ("words", "peers"),
    [
        (("rbind",), {"master"}),
        (("rbind", "private"), set()),
        (("rbind", "rslave"), {"master"}),
        (("rbind", "private", "shared"), {"shared"}),
        (("rbind", "rslave", "rshared"), {"master", "shared"}),
        (("rbind", "rprivate", "unbindable"), {"unbindable"}),
    ],
)
def test_propagation_of_a_mount(lab: Lab, tmp_path: Path, words: tuple[str, ...], peers: set[str]) -> None:
    (tmp_path / "v").mkdir()
    found = look(lab, with_mounts(bind(tmp_path / "v", "/v", *words)), in_own_tree("mount --make-rshared /"))
    assert set(found["/v"].peers) == peers
    assert found["/"].peers == []


@pytest.mark.parametrize(
    ("word", "root", "below"),
    [
        ("private", [], {"shared"}),
        ("rprivate", [], set()),
        ("slave", [], {"shared"}),
        ("shared", ["shared"], {"shared"}),
        ("rshared", ["shared"], {"shared"}),
        ("unbindable", ["unbindable"], {"shared"}),
        ("runbindable", ["unbindable"], {"unbindable"}),
    ],
)
def test_propagation_of_the_root(lab: Lab, tmp_path: Path, word: str, root: list[str], below: set[str]) -> None:
    """The specification's words are about the root alone; what the mounts' own options say holds."""
    (tmp_path / "v").mkdir()
    change = with_mounts(bind(tmp_path / "v", "/v", "rbind", "private", "shared"), propagation=word)
    found = look(lab, change, in_own_tree("mount --make-rshared /"))
    assert found["/"].peers == root
    assert set(found["/v"].peers) == below


def test_options_of_control_groups(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        [groups] = [mount for mount in spec.mounts if mount.type == "cgroup"]
        groups.options = ["nosuid", "rro", "rnoexec", "shared"]

    found = {path: line for path, line in look(lab, change).items() if path.startswith("/sys/fs/cgroup")}
    assert all(line.options >= {"ro", "nosuid", "noexec"} for line in found.values())
    assert "shared" in found["/sys/fs/cgroup"].peers


# -- what is bound where ---------------------------------------------------------------------------------------------


def test_files_sockets_and_the_bundles_own(lab: Lab, tmp_path: Path) -> None:
    (lab.directory / "run/data").mkdir()
    (lab.directory / "run/data/file").write_text("bundle\n")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        change = with_mounts(
            bind(tmp_path / "socket", "/run/new/socket", "bind"),
            bind("data", "/d", "rbind"),
            bind("data/file", "rel/../f", "bind"),
        )
        done = lab.run("sh", "-c", "test -S /run/new/socket && cat /d/file /f", change=change)
    assert done.out == "bundle\nbundle\n", done


@pytest.mark.parametrize("directory", [True, False])
def test_a_directory_does_not_go_on_a_file(lab: Lab, tmp_path: Path, directory: bool) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("")
    source, target = (tmp_path / "dir", "/etc/passwd") if directory else (tmp_path / "file", "/etc")
    text = refused(lab, with_mounts(bind(source, target, "bind")))
    assert text == (
        f'error mounting "{source}" to rootfs at "{target}": not a directory: Are you trying to mount a directory '
        "onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
    )


def test_the_hosts_proc_may_be_bound_and_nothing_else_there(lab: Lab, tmp_path: Path) -> None:
    def without_proc(spec: Spec) -> None:
        spec.mounts = [mount for mount in spec.mounts if mount.destination != "/proc"]

    def hosts(spec: Spec) -> None:
        without_proc(spec)
        spec.mounts.append(bind("/proc", "/proc", "rbind"))

    def another(spec: Spec) -> None:
        without_proc(spec)
        spec.mounts.append(bind(tmp_path, "/proc", "rbind"))

    assert int(lab.run("readlink", "/proc/self", change=hosts).out) > 1
    assert refused(lab, another) == '"/proc" cannot be mounted because it is not of type proc'


def test_files_of_proc_that_may_be_covered(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("42.00 1.00\n")
    done = lab.run("cat", "/proc/uptime", change=with_mounts(bind(tmp_path / "uptime", "/proc/uptime", "bind")))
    assert done.out == "42.00 1.00\n"
    text = refused(lab, with_mounts(bind(tmp_path / "uptime", "/proc/version", "bind")))
    assert "inside /proc" in text


def test_an_unknown_file_system_is_named(lab: Lab) -> None:
    text = refused(lab, with_mounts(Mount(destination="/x", type="nosuchfs", source="s")))
    assert text == 'error mounting "s" to rootfs at "/x": file system type "nosuchfs": no such device'


def test_an_unknown_word_of_a_file_system_is_named(lab: Lab) -> None:
    assert 'option "odd"' in refused(lab, with_mounts(tmpfs("/x", "size=1m", "odd=1")))


# -- remount ---------------------------------------------------------------------------------------------------------


def test_remount(lab: Lab) -> None:
    change = with_mounts(
        tmpfs("/t", "nosuid"),
        Mount(destination="/t", options=["remount", "ro", "noexec"]),
        tmpfs("/u", "size=1m"),
        Mount(destination="/u", type="tmpfs", options=["remount", "size=2m", "sync"]),
        Mount(destination="/dev/shm", options=["remount", "bind", "nosymfollow"]),
    )
    found = look(lab, change)
    assert found["/t"].options >= {"ro", "noexec", "nosuid"}
    assert found["/u"].super_options >= {"size=2048k", "sync"}
    assert found["/dev/shm"].options >= {"nosymfollow", "nosuid"}


def test_remount_of_what_is_not_mounted(lab: Lab) -> None:
    text = refused(lab, with_mounts(Mount(destination="/etc", options=["remount", "ro"])))
    assert text == 'error remounting "/etc": invalid argument'
    assert "/nosuch" in refused(lab, with_mounts(Mount(destination="/nosuch", options=["remount", "size=1"])))


# -- tmpcopyup -------------------------------------------------------------------------------------------------------


def fill(place: Path, outside: Path) -> None:
    (place / "sub").mkdir(parents=True)
    place.chmod(0o2751)
    os.chown(place, 7, 8)
    (place / "file").write_text("text\n")
    (place / "file").chmod(0o4711)
    os.chown(place / "file", 1000, 1001)
    (place / "file").chmod(0o4711)  # the change of owner has taken the setuid bit away
    os.setxattr(place / "file", "trusted.test", b"kept")
    os.utime(place / "file", ns=(1_000_000_000, 2_000_000_000))
    os.link(place / "file", place / "sub/again")
    os.symlink(outside, place / "link")
    os.chown(place / "link", 5, 5, follow_symlinks=False)
    os.mkfifo(place / "fifo", 0o640)
    with open(place / "sub/sparse", "wb") as file:
        file.truncate(256 << 20)
        file.seek(128 << 20)
        file.write(b"middle")


def test_tmpcopyup_takes_all_of_a_directory(lab: Lab, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret\n")
    fill(lab.lower / "data", outside)
    probe = """
import os
top = f"/proc/{main.pid}/root/data"
answer["xattr"] = os.getxattr(top + "/file", "trusted.test")
answer["sparse"] = os.stat(top + "/sub/sparse").st_blocks * 512
answer["same"] = os.path.samefile(top + "/file", top + "/sub/again")
answer["inside"] = os.stat(top).st_dev != os.stat(f"/proc/{main.pid}/root").st_dev
with open(top + "/sub/sparse", "rb") as file:
    file.seek(128 << 20)
    answer["middle"] = file.read(7)
"""
    names = "/data /data/file /data/link /data/fifo /data/sub"
    script = f"stat -c '%n %a %u:%g %F %Y' {names}; readlink /data/link; echo x > /data/new; cat"
    change = with_mounts(tmpfs("/data", "tmpcopyup", "nosuid", "size=64m"))
    done = lab.run("sh", "-c", script, change=change, probe=probe)
    lines = done.out.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines[:5]] == [
        "/data 2751 7:8 directory",
        "/data/file 4711 1000:1001 regular file",
        "/data/link 777 5:5 symbolic link",
        "/data/fifo 640 0:8 fifo",
        "/data/sub 755 0:0 directory",
    ]
    assert lines[1].endswith(" 2")
    assert lines[5] == str(outside)
    assert done.answer["xattr"] == b"kept"
    assert done.answer["sparse"] < 1 << 20
    assert done.answer["middle"] == b"middle\0"
    assert done.answer["same"]
    assert done.answer["inside"]
    assert not (lab.upper / "data").exists()


def test_tmpcopyup_follows_nothing_and_stays_on_its_mount(lab: Lab, tmp_path: Path) -> None:
    """The place may be a link of the image's, which is followed inside the root; below it none is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret\n")
    (lab.lower / "real").mkdir()
    (lab.lower / "real/out").symlink_to(outside)
    (lab.lower / "real/own").write_text("own\n")
    (lab.lower / "place").symlink_to("../../real")
    change = with_mounts(bind(outside, "/real/mounted", "bind"), tmpfs("/place", "tmpcopyup", "ro", "mode=700"))
    done = lab.run("sh", "-c", "cd /real; ls -A . mounted; cat own; stat -c %a .; touch x", change=change)
    assert done.out == ".:\nmounted\nout\nown\n\nmounted:\nown\n700\n", done
    assert "Read-only file system" in done.err


def test_tmpcopyup_of_what_does_not_fit_or_is_not_there(lab: Lab) -> None:
    (lab.lower / "data").mkdir()
    (lab.lower / "data/large").write_bytes(b"x" * 100_000)
    text = refused(lab, with_mounts(tmpfs("/data", "tmpcopyup", "size=8k")))
    assert text == 'copying what is at "/data" into the tmpfs there: no space left on device'
    assert "/new" in look(lab, with_mounts(tmpfs("/new", "tmpcopyup")))


def test_tmpcopyup_of_directories_nested_too_deeply(lab: Lab) -> None:
    place = os.open(lab.lower, os.O_RDONLY | os.O_DIRECTORY)
    for name in ("deep", *["d"] * 300):
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    try:
        text = refused(lab, with_mounts(tmpfs("/deep", "tmpcopyup")))
    finally:
        subprocess.run(["rm", "-r", str(lab.lower / "deep")], check=True)  # Python's own way goes only so deep
    assert text == 'copying what is at "/deep" into the tmpfs there: file name too long'


# -- devices ---------------------------------------------------------------------------------------------------------


def test_devices_of_all_kinds(lab: Lab) -> None:
    (lab.lower / "run").mkdir()
    os.mknod(lab.lower / "run/old", stat.S_IFCHR | 0o600, os.makedev(1, 3))

    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.devices = [
            Device(type="c", path="/dev/deep/zero", major=1, minor=5, file_mode=0o640, uid=5, gid=6),
            Device(type="u", path="/dev/unbuffered", major=1, minor=7, file_mode=0o600),
            Device(type="p", path="/run/fifo", file_mode=0o622),
            Device(type="c", path="/run/old", major=1, minor=3, file_mode=0o666, gid=3),
            Device(type="c", path="/dev/tty", major=5, minor=0, file_mode=0o620, gid=5),
        ]

    names = "/dev/deep/zero /dev/unbuffered /run/fifo /run/old /dev/tty"
    done = lab.run("stat", "-c", "%F %t:%T %a %u:%g", *names.split(), change=change)
    assert done.out.splitlines() == [
        "character special file 1:5 640 5:6",
        "character special file 1:7 600 0:0",
        "fifo 0:0 622 0:0",
        "character special file 1:3 666 0:3",
        "character special file 5:0 620 0:5",
    ]


def test_a_dev_of_the_hosts_gets_no_nodes(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()

    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.mounts = [mount for mount in spec.mounts if not mount.destination.startswith("/dev")]
        spec.mounts.append(bind(tmp_path / "dev", "/dev", "rbind"))
        spec.linux.devices = [Device(type="c", path="/dev/mine", major=1, minor=3)]

    assert lab.run("true", change=change).code == 0
    assert list((tmp_path / "dev").iterdir()) == []


def test_a_sysctl_that_does_not_exist_is_named(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.sysctl = {"net.core.nosuch": "1"}

    assert "net.core.nosuch" in refused(lab, change)


def test_in_a_user_namespace(lab: Lab, tmp_path: Path) -> None:
    (lab.lower / "data").mkdir()
    (lab.lower / "data/file").write_text("text\n")
    os.chown(lab.lower / "data", 7, 0)
    (tmp_path / "v").mkdir()

    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.namespaces.append(Namespace(type="user"))
        spec.linux.uid_mappings = [IDMapping(container_id=0, host_id=0, size=65536)]
        spec.linux.gid_mappings = [IDMapping(container_id=0, host_id=0, size=65536)]
        spec.mounts += [
            tmpfs("/data", "tmpcopyup", "nosuid"),
            Mount(destination="/data", options=["remount", "ro"]),
            bind(tmp_path / "v", "/v", "rbind", "rro"),
        ]

    done = lab.run("sh", "-c", "cat /data/file; stat -c %u /data; touch /data/x /v/x", change=change)
    assert done.out == "text\n7\n", done
    assert done.err.count("Read-only file system") == 2

"""Namespaces made and joined, of all eight kinds, clocks, and mounts idmapped for a container that is not remapped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corten.linux import mount as api
from corten.linux import process as kernel
from corten.runtime.cgroups import Cgroup, Hierarchy, Layout
from corten.runtime.child import stage
from corten.specs.oci_runtime import Hook, Hooks, IDMapping, Linux, Mount, Namespace, Process, Spec, TimeOffset
from tests.kernel.launching import NAMESPACES, Lab, leftovers, needs_root, remove_parents
from tests.kernel.test_user_namespaces import GIDS, SIZE, UIDS, RemapLab, owner

pytestmark = [pytest.mark.root, needs_root]

# The names in /proc/PID/ns.
FILES = {
    "mount": "mnt",
    "pid": "pid_for_children",
    "network": "net",
    "uts": "uts",
    "ipc": "ipc",
    "cgroup": "cgroup",
    "user": "user",
    "time": "time_for_children",
}
SINGLE = {"pid": "pid", "time": "time"}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    check(made)


@pytest.fixture
def remap_lab(tmp_path: Path) -> Iterator[RemapLab]:
    made = RemapLab(tmp_path)
    yield made
    check(made)


def check(made: Lab) -> None:
    """Nothing is left."""
    assert not leftovers(made.cgroup)
    remove_parents(os.path.dirname(made.cgroup))
    with open("/proc/self/mountinfo") as file:
        assert str(made.directory) not in file.read()


@contextmanager
def resident(flags: int, *, remap: bool = False, deny: bool = False) -> Iterator[str]:
    """A process in namespaces of its own, its mounts private and nothing of it left afterwards; its /proc/PID/ns."""
    told, tell = os.pipe()
    go, start = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(start)
            kernel.unshare(flags)
            if flags & kernel.CLONE_NEWNS:
                api.mount("", "/", "", api.MS_REC | api.MS_PRIVATE)
            child = os.fork() if flags & (kernel.CLONE_NEWPID | kernel.CLONE_NEWTIME) else -1  # who keeps those alive
            if child <= 0:
                os.write(tell, b"1")
            os.read(go, 1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(go)
    try:
        assert os.read(told, 1) == b"1"
        if deny:
            Path(f"/proc/{pid}/setgroups").write_text("deny")
        if remap:
            Path(f"/proc/{pid}/uid_map").write_text(f"0 {UIDS} {SIZE}\n")
            Path(f"/proc/{pid}/gid_map").write_text(f"0 {GIDS} {SIZE}\n")
        yield f"/proc/{pid}/ns"
    finally:
        os.close(start)
        os.close(told)
        os.waitpid(pid, 0)


def joining(paths: dict[str, str], change: Callable[[Spec, Linux], None] | None = None) -> Callable[[Spec], None]:
    """The default namespaces, those of `paths` joined."""

    def apply(spec: Spec) -> None:
        assert spec.linux is not None
        kinds = dict.fromkeys((*NAMESPACES, *paths))
        spec.linux.namespaces = [Namespace(type=kind, path=paths.get(kind, "")) for kind in kinds]
        if paths.get("uts"):
            spec.hostname = ""
        if change is not None:
            change(spec, spec.linux)

    return apply


def inside(kind: str) -> str:
    return f"readlink /proc/self/ns/{SINGLE.get(kind, FILES[kind])}"


@pytest.mark.parametrize("kind", ["pid", "network", "uts", "ipc", "cgroup", "time"])
def test_one_is_joined_by_path(lab: Lab, kind: str) -> None:
    flag = {
        "pid": kernel.CLONE_NEWPID,
        "network": kernel.CLONE_NEWNET,
        "uts": kernel.CLONE_NEWUTS,
        "ipc": kernel.CLONE_NEWIPC,
        "cgroup": kernel.CLONE_NEWCGROUP,
        "time": kernel.CLONE_NEWTIME,
    }[kind]
    with resident(flag) as place:
        path = f"{place}/{FILES[kind]}"
        wanted = os.readlink(path)
        exec_ = (Process(cwd="/", args=["sh", "-c", inside(kind)], env=["PATH=/bin"]), "")
        done = lab.run("sh", "-c", f"{inside(kind)}; cat", change=joining({kind: path}), execs=[exec_])
    expected = wanted.replace("_for_children", "")
    assert done.out.split() == [expected, expected], (done.failure, done.execs)


def test_a_mount_namespace_is_joined_by_path(lab: Lab) -> None:
    """As runc does it: the root is mounted there and becomes the root of that namespace."""
    with resident(kernel.CLONE_NEWNS) as place:
        path = f"{place}/mnt"
        wanted = os.readlink(path)
        done = lab.run("sh", "-c", f"{inside('mount')}; cat /etc/group", change=joining({"mount": path}))
    assert done.out.splitlines()[:2] == [wanted, "root:x:0:"], done.failure


def test_a_user_namespace_is_joined_by_path(remap_lab: RemapLab) -> None:
    """And the network namespace that it owns; the layers are mapped as it is."""
    with resident(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET, remap=True) as place:
        paths = {"user": f"{place}/user", "network": f"{place}/net"}
        wanted = [os.readlink(paths[kind]) for kind in ("user", "network")]
        script = "readlink /proc/self/ns/user; readlink /proc/self/ns/net; stat -c %u /etc/passwd; touch /root/x; cat"
        exec_ = (Process(cwd="/", args=["readlink", "/proc/self/ns/user"], env=["PATH=/bin"]), "")
        done = remap_lab.run("sh", "-c", script, change=joining(paths), execs=[exec_])
    assert sorted(done.out.split()) == sorted([*wanted, "0", wanted[0]]), (done.failure, done.execs)
    assert owner(remap_lab.upper / "root/x") == (0, 0)


def test_a_user_namespace_is_joined_by_a_descriptor(remap_lab: RemapLab) -> None:
    """The mappings may be said again: they are the same."""

    def change(spec: Spec, linux: Linux) -> None:
        linux.uid_mappings = [IDMapping(container_id=0, host_id=UIDS, size=SIZE)]
        linux.gid_mappings = [IDMapping(container_id=0, host_id=GIDS, size=SIZE)]

    with resident(kernel.CLONE_NEWUSER, remap=True) as place:
        fd = os.open(f"{place}/user", os.O_RDONLY)
    try:
        path = f"/proc/{os.getpid()}/fd/{fd}"
        done = remap_lab.run("sh", "-c", "cat /proc/self/uid_map", change=joining({"user": path}, change))
    finally:
        os.close(fd)
    assert done.out.split() == ["0", str(UIDS), str(SIZE)], done.failure


def test_a_user_namespace_that_denies_setgroups(remap_lab: RemapLab) -> None:
    with resident(kernel.CLONE_NEWUSER, remap=True, deny=True) as place:
        done = remap_lab.run("id", "-G", change=joining({"user": f"{place}/user"}), user="web")
    assert done.code == 0, done.failure
    assert "1001" in done.out.split()
    assert "2000" not in done.out.split()
    assert done.warnings == ["supplementary groups were left out: the user namespace denies setgroups"]


def test_all_eight_are_joined(remap_lab: RemapLab) -> None:
    """Of another container that has them all, whose root becomes this one's."""
    flags = (
        kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS
        | kernel.CLONE_NEWIPC | kernel.CLONE_NEWCGROUP | kernel.CLONE_NEWTIME
    )  # fmt: skip
    with resident(flags, remap=True) as place:
        paths = {kind: f"{place}/{file}" for kind, file in FILES.items()}
        wanted = {kind: os.readlink(path).replace("_for_children", "") for kind, path in paths.items()}

        def change(spec: Spec, linux: Linux) -> None:
            spec.mounts = [mount for mount in spec.mounts if mount.type != "cgroup"]

        script = "; ".join(inside(kind) for kind in FILES)
        done = remap_lab.run("sh", "-c", script, change=joining(paths, change))
    assert dict(zip(FILES, done.out.split(), strict=True)) == wanted, done.failure


def test_host_owned_namespaces_with_a_user_namespace_of_its_own(remap_lab: RemapLab) -> None:
    """The container's root has no power over them, and /sys and /dev/mqueue show them all the same."""
    with resident(kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS) as place:
        paths = {kind: f"{place}/{FILES[kind]}" for kind in ("network", "ipc", "uts")}

        def change(spec: Spec, linux: Linux) -> None:
            linux.namespaces.append(Namespace(type="user"))
            linux.uid_mappings = [IDMapping(container_id=0, host_id=UIDS, size=SIZE)]
            linux.gid_mappings = [IDMapping(container_id=0, host_id=GIDS, size=SIZE)]

        wanted = [os.readlink(path) for path in paths.values()]
        script = f"{'; '.join(inside(kind) for kind in paths)}; ls /sys/class/net; hostname other"
        done = remap_lab.run("sh", "-c", script, change=joining(paths, change))
    assert done.out.split() == [*wanted, "lo"], done.failure
    assert "Operation not permitted" in done.err


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(FILES))
def test_a_path_that_is_missing(lab: Lab, kind: str) -> None:
    done = lab.run("true", change=joining({kind: "/proc/self/ns/nosuch"}))
    assert done.failure is not None
    expected = f"linux.namespaces: joining the {kind} namespace /proc/self/ns/nosuch: no such file or directory"
    assert done.failure[2] == expected


@pytest.mark.parametrize("kind", list(FILES))
def test_a_path_of_the_wrong_kind(lab: Lab, kind: str) -> None:
    other = "uts" if kind != "uts" else "ipc"
    done = lab.run("true", change=joining({kind: f"/proc/self/ns/{other}"}))
    assert done.failure is not None
    path = f"/proc/self/ns/{other}"
    assert done.failure[2] == f"linux.namespaces: joining the {kind} namespace {path}: it is a {other} namespace"


def test_a_path_that_is_no_namespace(lab: Lab, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = lab.run("true", change=joining({"network": str(tmp_path / "pipe")}))
    assert done.failure is not None
    assert done.failure[2].endswith("pipe: it is no namespace")


def test_the_runtimes_own_user_namespace(lab: Lab) -> None:
    done = lab.run("true", change=joining({"user": "/proc/self/ns/user"}))
    assert done.failure is not None
    assert done.failure[2] == "linux.namespaces: the user namespace /proc/self/ns/user is the runtime's own"


def test_mappings_that_are_not_those_of_the_path(lab: Lab) -> None:
    def change(spec: Spec, linux: Linux) -> None:
        linux.uid_mappings = [IDMapping(container_id=0, host_id=UIDS + 1, size=SIZE)]
        linux.gid_mappings = [IDMapping(container_id=0, host_id=GIDS, size=SIZE)]

    with resident(kernel.CLONE_NEWUSER, remap=True) as place:
        done = lab.run("true", change=joining({"user": f"{place}/user"}, change))
        assert done.failure is not None
        assert done.failure[2] == f"linux.uidMappings: they are not those of the user namespace {place}/user"


def test_a_mount_that_fails_in_a_user_namespace(remap_lab: RemapLab) -> None:
    def change(spec: Spec, linux: Linux) -> None:
        linux.namespaces.append(Namespace(type="user"))
        linux.uid_mappings = [IDMapping(container_id=0, host_id=UIDS, size=2)]
        linux.gid_mappings = [IDMapping(container_id=0, host_id=GIDS, size=2)]

    done = remap_lab.run("true", change=joining({}, change))  # devpts has gid=5
    assert done.failure is not None
    assert 'error mounting "devpts" to rootfs at "/dev/pts"' in done.failure[2]


@pytest.mark.parametrize("source", ["/nosuch", "/proc"])
def test_a_source_that_cannot_be_had(remap_lab: RemapLab, source: str) -> None:
    def change(spec: Spec, linux: Linux) -> None:
        linux.namespaces.append(Namespace(type="user"))
        linux.uid_mappings = [IDMapping(container_id=0, host_id=UIDS, size=SIZE)]
        linux.gid_mappings = [IDMapping(container_id=0, host_id=GIDS, size=SIZE)]
        spec.mounts.append(Mount(destination="/data", type="bind", source=source, options=["bind", "idmap"]))

    done = remap_lab.run("true", change=joining({}, change))
    assert done.failure is not None
    assert (
        done.failure[2]
        == {
            "/nosuch": 'error mounting "/nosuch" to the rootfs: open /nosuch: no such file or directory',
            "/proc": 'idmapping the mount of "/proc" on /data: its file system cannot be idmapped',
        }[source]
    )


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_offsets_of_the_clocks(lab: Lab) -> None:
    def change(spec: Spec, linux: Linux) -> None:
        linux.time_offsets = {"boottime": TimeOffset(secs=500000, nanosecs=5), "monotonic": TimeOffset(secs=7)}

    exec_ = (Process(cwd="/", args=["sh", "-c", "cat /proc/uptime >&2"], env=["PATH=/bin"]), "")
    script = "cat /proc/uptime /proc/self/timens_offsets; cat"
    done = lab.run("sh", "-c", script, change=joining({"time": ""}, change), execs=[exec_])
    words = done.out.split()
    host = float(Path("/proc/uptime").read_text().split()[0])
    assert 500000 <= float(words[0]) - host + 60 <= 500120, done.failure
    assert words[2:8] == ["monotonic", "7", "0", "boottime", "500000", "5"]
    assert 500000 <= float(done.err.split()[0]) - host + 60 <= 500120


def test_offsets_that_are_out_of_the_kernels_range(lab: Lab) -> None:
    def change(spec: Spec, linux: Linux) -> None:
        linux.time_offsets = {"boottime": TimeOffset(secs=-(10**12))}

    done = lab.run("true", change=joining({"time": ""}, change))
    assert done.failure is not None
    assert done.failure[2].startswith("linux.timeOffsets: setting boottime -1000000000000 0: ")


# -- idmapped mounts ---------------------------------------------------------------------------------------------------


def idmapped(source: Path, *words: str, ids: tuple[int, int, int] | None = None) -> Callable[[Spec], None]:
    def apply(spec: Spec) -> None:
        mappings = [IDMapping(container_id=ids[0], host_id=ids[1], size=ids[2])] if ids else []
        spec.mounts.append(
            Mount(
                destination="/data",
                type="bind",
                source=str(source),
                options=list(words),
                uid_mappings=mappings,
                gid_mappings=mappings,
            )
        )

    return apply


@pytest.mark.parametrize("words", [("bind", "idmap"), ("rbind", "ridmap"), ("rbind",)])
def test_a_bind_mount_with_mappings_of_its_own(lab: Lab, tmp_path: Path, words: tuple[str, ...]) -> None:
    source = tmp_path / "data"
    source.mkdir()
    (source / "f").write_text("x")
    os.chown(source / "f", 3, 3)
    script = "stat -c %u:%g /data/f; chown 1002 /data/f; touch /data/root"
    done = lab.run("sh", "-c", script, change=idmapped(source, *words, ids=(0, 1000, 10)))
    assert done.out == "1003:1003\n", done.failure
    assert owner(source / "f") == (2, 3)
    assert not (source / "root").exists()  # root has no number there
    assert "Value too large" in done.err


def test_a_tree_of_mounts_is_idmapped_as_a_whole_or_not(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "below").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/f").touch()
    prepare = f'mount --bind {tmp_path}/other {source}/below && exec "$@"'
    wrap = ("unshare", "--mount", "--propagation", "private", "sh", "-c", prepare, "sh")
    seen = {}
    for word in ("idmap", "ridmap"):
        change = idmapped(source, "rbind", word, ids=(0, 1000, 10))
        done = lab.run("stat", "-c", "%u", "/data", "/data/below/f", change=change, wrap=wrap)
        seen[word] = done.out.split()
        for name in ("work", "upper"):
            shutil.rmtree(lab.directory / name)
            (lab.directory / name).mkdir()
    assert seen == {"idmap": ["1000", "0"], "ridmap": ["1000", "1000"]}


def test_a_bind_mount_by_the_containers_own_mappings(remap_lab: RemapLab, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    os.chown(source, 1000, 1000)

    def change(spec: Spec, linux: Linux) -> None:
        linux.namespaces.append(Namespace(type="user"))
        linux.uid_mappings = [IDMapping(container_id=0, host_id=UIDS, size=SIZE)]
        linux.gid_mappings = [IDMapping(container_id=0, host_id=GIDS, size=SIZE)]
        idmapped(source, "rbind", "idmap", "nosuid")(spec)

    done = remap_lab.run("sh", "-c", "stat -c %u:%g /data; touch /data/x", change=joining({}, change))
    assert done.out == "1000:1000\n", done.failure
    assert owner(source / "x") == (0, 0)


def test_nobody_is_left_when_the_start_fails_late(remap_lab: RemapLab) -> None:
    """The child has been made by the helper, and is gone with the error."""

    def change(spec: Spec, linux: Linux) -> None:
        linux.namespaces.append(Namespace(type="user"))
        linux.uid_mappings = [IDMapping(container_id=0, host_id=UIDS, size=SIZE)]
        linux.gid_mappings = [IDMapping(container_id=0, host_id=GIDS, size=SIZE)]

    done = remap_lab.run("nosuch", change=joining({}, change))
    assert done.failure is not None
    assert done.failure[3] == 127


# -- what may not be seen ----------------------------------------------------------------------------------------------


def test_a_start_cannot_be_looked_into_from_its_namespaces(remap_lab: RemapLab, tmp_path: Path) -> None:
    """A root of the user namespace, with all capabilities and in the pid namespace too, meets the child before the root
    is switched: /proc/PID/root would be the host's."""
    flags = kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID
    attack = tmp_path / "attack"
    attack.write_text(
        "#!/bin/sh\n"
        "host=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')\n"
        "inner=$(awk '/NSpid/ { print $NF }' /proc/$host/status)\n"
        f"nsenter --user=$1/user --pid=$1/pid_for_children unshare --mount sh -c '\n"
        "  mount -t proc proc /proc; id -u; ls -d /proc/$0/root/ /proc/$0/cwd/; ls /proc/$0/fd; head -c1 /proc/$0/exe\n"
        f"' $inner > {tmp_path}/seen 2>&1\n"
        "exit 0\n"
    )
    attack.chmod(0o755)
    with resident(flags, remap=True) as place:

        def change(spec: Spec, linux: Linux) -> None:
            path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
            spec.hooks = Hooks(create_runtime=[Hook(path=str(attack), args=["attack", place], env=[path])])

        paths = {"user": f"{place}/user", "pid": f"{place}/pid_for_children"}
        done = remap_lab.run("sh", "-c", "echo $$", change=joining(paths, change))
    assert int(done.out) > 1, done.failure
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen[0] == "0"
    assert len(seen) == 5
    assert [line.count("ermission denied") for line in seen[1:]] == [1, 1, 1, 1], seen


def test_a_cgroup_is_given_away_with_the_files_that_may_be(tmp_path: Path) -> None:
    names = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "memory.max"]
    (tmp_path / "c").mkdir()
    for name in names:
        (tmp_path / "c" / name).touch()
    (tmp_path / "v1").mkdir()
    hybrid = Layout(str(tmp_path), (Hierarchy(("pids",), str(tmp_path / "v1")),))
    stage.delegate(Cgroup("/c", hybrid), UIDS)
    stage.delegate(Cgroup("/c", Layout(str(tmp_path), ())), -1)
    assert owner(tmp_path / "c") == (0, 0)
    stage.delegate(Cgroup("/c", Layout(str(tmp_path), ())), UIDS)
    assert [owner(tmp_path / "c" / name)[0] for name in (".", *names)] == [UIDS] * 4 + [0]

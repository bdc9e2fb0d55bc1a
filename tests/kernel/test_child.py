"""What the first process of a container finds itself in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.runtime.cgroups import host_layout
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.launch import launch
from corten.runtime.plan import compile_launch
from corten.runtime.seccomp_profile import default_profile
from corten.specs.oci_runtime import (
    CPU,
    Capabilities,
    ConsoleSize,
    Memory,
    Mount,
    Namespace,
    Pids,
    Process,
    Rlimit,
    Seccomp,
    Spec,
    Syscall,
)
from tests.kernel.launching import CAPABILITIES, Lab, leftovers, needs_root, remove_parents

pytestmark = [pytest.mark.root, needs_root]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    assert not leftovers(made.cgroup)
    remove_parents(os.path.dirname(made.cgroup))
    with open("/proc/self/mountinfo") as file:
        assert str(tmp_path) not in file.read()


def status(out: str) -> dict[str, str]:
    """/proc/PID/status as a dictionary."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in out.splitlines())}


# -- how it starts and ends ------------------------------------------------------------------------------------------


def test_exit_code_and_streams(lab: Lab) -> None:
    done = lab.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code", "detail"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH: unknown'),
        ("/nosuch", 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied: unknown'),
        ("/etc", 126, 'exec: "/etc": is a directory: unknown'),
        ("/bad-interpreter", 127, "exec /bad-interpreter: no such file or directory"),
        ("/no-format", 126, "exec /no-format: exec format error"),
    ],
)
def test_command_that_cannot_be_executed(lab: Lab, command: str, code: int, detail: str) -> None:
    for name, text in (("bad-interpreter", "#!/nowhere\n"), ("no-format", "echo\n")):
        (lab.lower / name).write_text(text)
        (lab.lower / name).chmod(0o755)
    done = lab.run(command)
    assert done.failure is not None
    assert done.failure[2:] == (detail, code)


def test_hold_and_release(lab: Lab) -> None:
    done = lab.run("sh", "-c", "exit 3", hold=True)
    assert "busybox" not in done.answer["held"]  # still the launcher's program when launch returned
    assert done.code == 3


def test_command_missing_is_known_before_a_held_process_is_released(lab: Lab) -> None:
    done = lab.run("nosuch", hold=True)
    assert done.failure is not None
    assert done.failure[3] == 127
    assert "held" not in done.answer


def test_no_descriptor_reaches_the_program(lab: Lab, tmp_path: Path) -> None:
    secret = os.open(tmp_path, os.O_RDONLY)
    try:
        probe = "import os; answer['fds'] = sorted(os.listdir(f'/proc/{main.pid}/fd'))"
        done = lab.run("cat", leak=[secret], probe=probe)
    finally:
        os.close(secret)
    assert done.answer["fds"] == ["0", "1", "2"]


# -- namespaces and the tree -----------------------------------------------------------------------------------------


def test_namespaces_are_its_own(lab: Lab) -> None:
    names = ("mnt", "pid", "uts", "ipc", "net", "cgroup")
    done = lab.run("sh", "-c", "for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done; hostname; ps")
    lines = done.out.splitlines()
    for name, inside in zip(names, lines, strict=False):
        assert inside != os.readlink(f"/proc/self/ns/{name}")
    assert lines[6] == "box"
    assert lines[8].split()[0] == "1"


def test_network_namespace_by_path_and_host_uts(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.hostname = ""
        spec.linux.namespaces = [space for space in spec.linux.namespaces if space.type not in ("network", "uts")] + [
            Namespace(type="network", path="/proc/self/ns/net")
        ]

    done = lab.run("sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/uts", change=change)
    assert done.out.split() == [os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/uts")]


def test_pid_namespace_by_path(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.namespaces = [space for space in spec.linux.namespaces if space.type != "pid"]
        spec.linux.namespaces.append(Namespace(type="pid", path="/proc/self/ns/pid"))

    done = lab.run("sh", "-c", "readlink /proc/self/ns/pid; echo $$", change=change)
    space, pid = done.out.split()
    assert space == os.readlink("/proc/self/ns/pid")
    assert int(pid) > 1


def test_devices(lab: Lab) -> None:
    done = lab.run(
        "sh", "-c", "cd /dev; ls -l null zero full random urandom tty; readlink fd; readlink ptmx; echo x > null"
    )
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[4:6] for line in lines[:6]] == [
        [f"{major},", str(minor)] for major, minor in ((1, 7), (1, 3), (1, 8), (5, 0), (1, 9), (1, 5))
    ]
    assert all(line.startswith("crw-rw-rw-") for line in lines[:6])
    assert lines[6:] == ["/proc/self/fd", "pts/ptmx"]


def test_masked_and_readonly_paths(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.masked_paths = ["/proc/kcore", "/proc/acpi", "/sys/firmware", "/etc/passwd", "/proc/nosuch"]
        spec.linux.readonly_paths = ["/proc/sys", "/tmp"]

    script = "cat /etc/passwd /proc/kcore; ls -A /sys/firmware; echo 1 > /proc/sys/kernel/printk; touch /tmp/x"
    done = lab.run("sh", "-c", script, change=change)
    assert done.out == ""
    assert done.err.count("Read-only file system") == 2


def test_readonly_root(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.root is not None
        spec.root.readonly = True

    done = lab.run("sh", "-c", "touch /x; touch /dev/shm/ok && echo shm", change=change)
    assert "Read-only file system" in done.err
    assert done.out == "shm\n"


def test_writes_go_to_the_upper_directory(lab: Lab) -> None:
    assert lab.run("sh", "-c", "echo kept > /root/file").code == 0
    assert (lab.upper / "root/file").read_text() == "kept\n"


def test_bind_mounts_of_files_and_directories(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("A\n")
    (tmp_path / "file").write_text("F\n")

    def change(spec: Spec) -> None:
        spec.mounts += [
            Mount(destination="/deep/new/dir", type="bind", source=str(tmp_path / "data"), options=["rbind", "ro"]),
            Mount(destination="/deep/file", type="bind", source=str(tmp_path / "file"), options=["bind"]),
        ]

    done = lab.run(
        "sh", "-c", "cat /deep/new/dir/a /deep/file; touch /deep/new/dir/b; echo new > /deep/file", change=change
    )
    assert done.out == "A\nF\n"
    assert "Read-only file system" in done.err
    assert (tmp_path / "file").read_text() == "new\n"


def test_missing_bind_source_fails_and_names_it(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        spec.mounts.append(Mount(destination="/x", type="bind", source="/nosuch/source", options=["rbind"]))

    done = lab.run("true", change=change)
    assert done.failure is not None
    assert done.failure[1] == 2
    assert "/nosuch/source" in done.failure[2]


def test_unknown_file_system_option_is_explained(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        spec.mounts.append(Mount(destination="/t", type="tmpfs", source="tmpfs", options=["nonsense=1"]))

    done = lab.run("true", change=change)
    assert done.failure is not None
    assert "nonsense" in done.failure[2]


def test_a_readonly_tmpfs_can_still_carry_mounts(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("inside\n")

    def change(spec: Spec) -> None:
        spec.mounts[1].options.append("ro")  # /dev: its nodes are made in it
        spec.mounts += [
            Mount(destination="/t", type="tmpfs", source="tmpfs", options=["ro"]),
            Mount(destination="/t/new/file", type="bind", source=str(tmp_path / "file"), options=["bind"]),
        ]

    done = lab.run("sh", "-c", "cat /t/new/file; echo > /dev/null; touch /t/x /dev/x", change=change)
    assert done.out == "inside\n", done.failure
    assert done.err.count("Read-only file system") == 2


def test_shared_propagation_reaches_the_host_and_the_root_does_not(lab: Lab, tmp_path: Path) -> None:
    """In a mount namespace of the launcher's own, all of it shared, as systemd makes the host's."""
    (tmp_path / "volume/below").mkdir(parents=True)

    def change(spec: Spec) -> None:
        assert spec.linux is not None
        assert spec.process is not None
        spec.linux.rootfs_propagation = "shared"
        names = [*CAPABILITIES, "CAP_SYS_ADMIN"]
        spec.process.capabilities = Capabilities(bounding=names, effective=names, permitted=names)
        source = str(tmp_path / "volume")
        spec.mounts.append(Mount(destination="/v", type="bind", source=source, options=["rbind", "rshared"]))

    probe = "import select\nfor _ in range(1000):\n"
    probe += " answer['seen'] = [line.split()[4] for line in open('/proc/self/mountinfo')]\n"
    probe += f" if {str(tmp_path / 'volume/below')!r} in answer['seen']: break\n select.select([], [], [], 0.01)\n"
    done = lab.run(
        "sh", "-c", "mount -t tmpfs t /v/below && cat", change=change, probe=probe, wrap=("unshare", "-m", *_SHARED)
    )
    assert done.failure is None, done
    assert [path for path in done.answer["seen"] if str(tmp_path) in path] == [str(tmp_path / "volume/below")]


_SHARED = ("sh", "-c", 'mount --make-rshared / && exec "$@"', "sh")


def test_paths_too_long_for_the_mount_api(lab: Lab) -> None:
    """fsconfig takes 255 bytes; mount(2) does the rest."""
    deep = lab.directory / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    lab.lower = lab.lower.rename(deep / "lower")
    assert len(str(lab.lower)) > 255
    assert lab.run("sh", "-c", "exit 5").code == 5


def test_tmpfs_takes_over_the_mode_of_its_directory(lab: Lab) -> None:
    (lab.lower / "secret").mkdir(mode=0o700)

    def change(spec: Spec) -> None:
        spec.mounts.append(Mount(destination="/secret", type="tmpfs", source="tmpfs", options=["size=1m", "noexec"]))

    done = lab.run("stat", "-c", "%a", "/secret", change=change)
    assert done.out == "700\n"


# -- attacks ---------------------------------------------------------------------------------------------------------


def test_symbolic_links_in_mount_targets_stay_inside(lab: Lab, tmp_path: Path) -> None:
    """CVE-2021-30465: an image's link must not take a mount out of the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (lab.lower / "link").symlink_to(outside)
    (lab.lower / "up").symlink_to("../../../../../.." + str(outside))
    (lab.lower / "dangling").symlink_to("/not/yet/there")
    source = tmp_path / "source"
    source.mkdir()
    (source / "mark").write_text("mark\n")

    def change(spec: Spec) -> None:
        for target in ("/link/a", "/up/b", "/dangling"):
            spec.mounts.append(Mount(destination=target, type="bind", source=str(source), options=["rbind"]))

    done = lab.run("sh", "-c", f"cat {outside}/a/mark {outside}/b/mark /not/yet/there/mark", change=change)
    assert done.out == "mark\n" * 3, done.failure or done.err
    assert list(outside.iterdir()) == []


def test_proc_must_not_be_a_link(lab: Lab) -> None:
    (lab.lower / "proc").symlink_to("/tmp")
    done = lab.run("true")
    assert done.failure is not None
    assert done.failure[0] == "mount"


def test_nothing_is_mounted_into_proc(lab: Lab, tmp_path: Path) -> None:
    """CVE-2019-16884: a volume over /proc would hide what security labels are written to."""
    (lab.lower / "innocent").symlink_to("/proc")

    def change(spec: Spec) -> None:
        spec.mounts.append(Mount(destination="/innocent/self", type="bind", source=str(tmp_path), options=["rbind"]))

    done = lab.run("true", change=change)
    assert done.failure is not None
    assert "inside /proc" in done.failure[2]


@pytest.mark.parametrize("number", range(3, 16))
def test_working_directory_in_a_leaked_descriptor(lab: Lab, number: int) -> None:
    """CVE-2024-21626: the working directory must not be one of the launcher's, reached through /proc/self/fd."""

    def change(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.cwd = f"/proc/self/fd/{number}"

    done = lab.run("sh", "-c", "pwd; ls ../../../..", change=change)
    assert done.failure is not None
    assert done.failure[0] == "EnterDirectory" or "chdir to cwd" in done.failure[2]


def test_working_directory_by_an_images_link(lab: Lab) -> None:
    (lab.lower / "wd").symlink_to("/proc/self/fd/7")

    def change(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.cwd = "/wd"

    assert lab.run("pwd", change=change).failure is not None


def test_the_child_cannot_be_looked_into_before_exec(lab: Lab) -> None:
    """CVE-2019-5736 needs /proc/PID/exe of the runtime's process: it is not dumpable while it is ours."""
    probe = (
        "import os; answer['owner'] = os.stat(f'/proc/{main.pid}/environ').st_uid, os.readlink(f'/proc/{main.pid}/exe')"
    )
    done = lab.run("cat", user="web", probe=probe)
    assert done.answer["owner"] == (1000, "/bin/busybox")
    done = lab.run("cat", user="web", probe=probe, init=True)
    assert done.answer["owner"][0] == 0  # init stays ours: its files in /proc belong to root


# -- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", (), "uid=0 gid=0 groups=0 HOME=/root"),
        ("root", (), "uid=0 gid=0 groups=0 HOME=/root"),
        ("web", (), "uid=1000 gid=1001 groups=1001,2000 HOME=/home/web"),
        ("1000", (), "uid=1000 gid=1001 groups=1001,2000 HOME=/home/web"),
        ("web:more", (), "uid=1000 gid=3000 groups=3000 HOME=/home/web"),
        ("web", ("more", "77"), "uid=1000 gid=1001 groups=1001,2000,3000,77 HOME=/home/web"),
        ("1234", (), "uid=1234 gid=0 groups=0 HOME=/"),
        ("1234:5678", (), "uid=1234 gid=5678 groups=5678 HOME=/"),
    ],
)
def test_user(lab: Lab, user: str, groups: tuple[str, ...], expected: str) -> None:
    script = "grep -E '^(Uid|Gid|Groups)' /proc/self/status; echo HOME=$HOME"
    done = lab.run("sh", "-c", script, user=user, groups=groups)
    lines = done.out.splitlines()
    uid, gid = lines[0].split()[1], lines[1].split()[1]
    members = ",".join(sorted(lines[2].split()[1:], key=int))
    parts = dict(part.split("=") for part in expected.split())
    wanted = ",".join(sorted(parts["groups"].split(","), key=int))
    assert (uid, gid, members, lines[3]) == (parts["uid"], parts["gid"], wanted, f"HOME={parts['HOME']}")


@pytest.mark.parametrize(
    ("user", "detail"),
    [
        ("foo", "unable to find user foo: no matching entries in passwd file"),
        ("web:bar", "unable to find group bar: no matching entries in group file"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_unknown_user(lab: Lab, user: str, detail: str) -> None:
    done = lab.run("true", user=user)
    assert done.failure is not None
    assert done.failure[2:] == (detail, 128)


def test_passwd_that_is_no_file(lab: Lab) -> None:
    (lab.lower / "etc/passwd").unlink()
    os.mkfifo(lab.lower / "etc/passwd")
    done = lab.run("true", user="web")
    assert done.failure is not None
    assert "no matching entries" in done.failure[2]


def test_capabilities(lab: Lab) -> None:
    mask = sum(1 << bit for bit in (0, 1, 5, 6, 7, 13))  # CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, NET_RAW
    found = status(lab.run("cat", "/proc/self/status").out)
    assert {name: int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {
        "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapInh": 0, "CapAmb": 0,
    }  # fmt: skip
    found = status(lab.run("cat", "/proc/self/status", user="web").out)
    assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")] == [0, 0, mask]


def test_ambient_capabilities_reach_a_user(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.process is not None
        names = ["CAP_NET_RAW"]
        spec.process.capabilities = Capabilities(
            bounding=CAPABILITIES, effective=names, permitted=names, inheritable=names, ambient=names
        )

    found = status(lab.run("cat", "/proc/self/status", user="web", change=change).out)
    assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapAmb", "CapInh")] == [1 << 13] * 4


def test_no_capabilities_given_is_none(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.capabilities = None

    found = status(lab.run("cat", "/proc/self/status", change=change).out)
    assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")] == [0, 0, 0]


@pytest.mark.parametrize("nnp", [False, True])
@pytest.mark.parametrize("user", ["", "web"])
def test_seccomp(lab: Lab, nnp: bool, user: str) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        assert spec.process is not None
        spec.linux.seccomp = default_profile(CAPABILITIES)
        spec.process.no_new_privileges = nnp

    script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; unshare -m true; mount -t tmpfs t /tmp; echo $?"
    done = lab.run("sh", "-c", script, change=change, user=user)
    assert done.failure is None
    lines = done.out.splitlines()
    assert [line.split()[1] for line in lines[:2]] == [str(int(nnp)), "2"]
    assert lines[2] != "0"
    assert "Operation not permitted" in done.err or "ermission denied" in done.err


def test_seccomp_that_allows_hardly_more_than_execve(lab: Lab) -> None:
    """Nothing of ours may happen after the filter is loaded but execve: the profile is the container's, not ours."""
    names = ["execve", "brk", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64"]
    names += ["readlink", "readlinkat"]
    names += ["getrandom", "mprotect", "exit_group", "getuid", "setuid", "setgid", "getgid", "mmap", "prctl", "uname"]

    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.seccomp = Seccomp(
            default_action="SCMP_ACT_KILL_PROCESS", syscalls=[Syscall(names=names, action="SCMP_ACT_ALLOW")]
        )

    done = lab.run("true", change=change)
    assert done.failure is None
    assert done.code == 0


def test_limits_umask_and_environment(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.rlimits = [Rlimit(type="RLIMIT_NOFILE", soft=100, hard=200)]
        spec.process.user.umask = 0o027
        spec.process.env += ["A=1", "A=2", "EMPTY="]
        spec.process.cwd = "/new/dir"

    done = lab.run("sh", "-c", "ulimit -n; ulimit -Hn; umask; echo $A ${EMPTY-unset}; pwd; env", change=change)
    lines = done.out.splitlines()
    assert lines[:5] == ["100", "200", "0027", "2 ", "/new/dir"] or lines[:5] == ["100", "200", "0027", "2", "/new/dir"]
    assert (lab.upper / "new/dir").is_dir()


def test_a_hard_limit_that_cannot_be_raised_is_a_warning(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.oom_score_adj = -500
        spec.process.rlimits = [Rlimit(type="RLIMIT_CORE", soft=0, hard=2**64 - 1)]

    done = lab.run("sh", "-c", "cat /proc/self/oom_score_adj; ulimit -c", change=change)
    assert done.failure is None
    score, core = done.out.split()
    assert core == "0"
    if score != "-500":  # this host may not lower it
        assert any("oom_score_adj" in text for text in done.warnings)


def test_signals_are_as_a_program_expects(lab: Lab) -> None:
    found = status(lab.run("cat", "/proc/self/status").out)
    assert {int(found[name], 16) for name in ("SigBlk", "SigIgn")} == {0}


def test_sysctl_and_loopback(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.sysctl = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmni": "17"}

    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni; ip a show lo"
    with open("/proc/sys/kernel/shmmni") as file:
        before = file.read()
    done = lab.run("sh", "-c", script, change=change)
    assert done.out.split()[:2] == ["80", "17"]
    assert "127.0.0.1" in done.out
    with open("/proc/sys/kernel/shmmni") as file:
        assert file.read() == before


# -- terminal, init, exec --------------------------------------------------------------------------------------------


def terminal(spec: Spec) -> None:
    assert spec.process is not None
    spec.process.terminal = True
    spec.process.console_size = ConsoleSize(height=33, width=101)


def test_terminal(lab: Lab) -> None:
    done = lab.run(
        "sh", "-c", "tty; stty size; ls -l /dev/console; test -t 1 && echo yes; echo x >/dev/tty", change=terminal
    )
    assert done.code == 0, done
    lines = done.console.replace("\r", "").splitlines()
    assert lines[:2] == ["/dev/pts/0", "33 101"] or lines[:2] == ["/dev/console", "33 101"]
    assert "136," in lines[2]
    assert lines[3:] == ["yes", "x"]


def test_init_reaps_forwards_and_passes_the_code_on(lab: Lab) -> None:
    done = lab.run("sh", "-c", "echo $$; (sleep 0.01 &) ; exit 9", init=True)
    assert done.code == 9
    assert int(done.out) > 1
    assert lab.run("sh", "-c", "kill -9 $$", init=True).code == 137
    script = "trap 'echo term; exit 4' TERM; while read line; do :; done"
    done = lab.run("sh", "-c", script, init=True, probe=_TERM_WHEN_CAUGHT)
    assert (done.code, done.out) == (4, "term\n")


# Waits until init's child catches SIGTERM, sends it to init, waits for the end.
_TERM_WHEN_CAUGHT = """
import os, select, signal
for _ in range(1000):
    children = open(f"/proc/{main.pid}/task/{main.pid}/children").read().split()
    lines = open(f"/proc/{children[0]}/status").read().splitlines() if children else []
    if any(line.startswith("SigCgt") and int(line.split()[1], 16) >> signal.SIGTERM - 1 & 1 for line in lines):
        break
    select.select([], [], [], 0.01)
os.kill(main.pid, signal.SIGTERM)
os.waitid(os.P_PID, main.pid, os.WEXITED | os.WNOWAIT)
"""


def test_init_with_a_terminal(lab: Lab) -> None:
    done = lab.run("sh", "-c", "tty; echo hi > /dev/tty", init=True, change=terminal)
    assert done.code == 0
    assert done.console.replace("\r", "").splitlines()[-1] == "hi"


def test_exec_joins_the_container(lab: Lab) -> None:
    capabilities = Capabilities(bounding=CAPABILITIES, effective=CAPABILITIES, permitted=CAPABILITIES)
    script = "hostname; cat /proc/self/cgroup; readlink /proc/self/ns/net; id -u; ps | grep -c cat; pwd"
    process = Process(cwd="/tmp", args=["sh", "-c", script], env=["PATH=/bin"], capabilities=capabilities)
    missing = Process(cwd="/", args=["nosuch"], env=["PATH=/bin"])
    terminal = Process(cwd="/", args=["tty"], env=["PATH=/bin"], terminal=True)
    done = lab.run("cat", execs=[(process, "web"), (missing, ""), (terminal, ""), (process, "nobody")])
    lines = done.out.splitlines()
    assert lines[0] == "box"
    host = [line for line in lines[1:] if line[:1].isdigit() and ":" in line]
    controllers = {line.split(":")[1]: line.split(":")[2] for line in host}
    assert all(path == "/" for path in controllers.values())
    [net] = [line for line in lines if line.startswith("net:")]
    assert net != os.readlink("/proc/self/ns/net")
    assert "1000" in lines
    assert lines[-1] == "/tmp"
    codes = [entry.get("code") for entry in done.execs]
    assert codes == [0, None, 0, None]
    assert done.execs[1]["failure"][3] == 127
    assert done.execs[2]["console"].strip() == "/dev/pts/0"
    assert "nobody" in done.execs[3]["failure"][2]


# -- control groups --------------------------------------------------------------------------------------------------


def test_limits_are_in_force(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        assert spec.linux.resources is not None
        resources = spec.linux.resources
        resources.memory = Memory(limit=64 << 20)
        resources.pids = Pids(limit=50)
        resources.cpu = CPU(shares=512, quota=50000, period=100000)

    names = "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares cpu/cpu.cfs_quota_us"
    if host_layout().pure_v2:
        names = "memory.max pids.max cpu.weight cpu.max"
    done = lab.run("sh", "-c", f"cd /sys/fs/cgroup; cat {names}; touch x 2>&1", change=change)
    lines = done.out.splitlines()
    assert lines[:2] == [str(64 << 20), "50"]
    assert lines[2:4] == (["59", "50000 100000"] if host_layout().pure_v2 else ["512", "50000"])
    assert "Read-only" in lines[4] or "denied" in lines[4]


def test_device_rules_are_in_force(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.capabilities = Capabilities(
            bounding=[*CAPABILITIES, "CAP_MKNOD"],
            effective=[*CAPABILITIES, "CAP_MKNOD"],
            permitted=[*CAPABILITIES, "CAP_MKNOD"],
        )

    script = "mknod /tmp/z c 1 5 && head -c 1 /tmp/z | wc -c; mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg"
    done = lab.run("sh", "-c", script, change=change)
    assert done.out.strip() == "1"
    assert "ermi" in done.err


def test_memory_limit_kills(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        assert spec.linux.resources is not None
        spec.linux.resources.memory = Memory(limit=16 << 20, swap=16 << 20)

    probe = (
        "from corten.runtime.cgroups import Cgroup\nfrom corten.runtime.cgroups_oom import oom_kills\n"
        "import os\nos.waitid(os.P_PID, main.pid, os.WEXITED | os.WNOWAIT)\n"
    )
    probe += f"answer['oom'] = oom_kills(Cgroup('{lab.cgroup}')) > 0"
    done = lab.run("sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=64", change=change, probe=probe)
    assert done.answer["oom"] is True


def test_a_failed_launch_leaves_nothing(lab: Lab) -> None:
    done = lab.run("nosuch")
    assert done.failure is not None
    assert not leftovers(lab.cgroup)


def test_streams_belong_to_the_user(lab: Lab) -> None:
    done = lab.run("sh", "-c", "echo again > /dev/stdout", user="web")
    assert (done.code, done.out) == (0, "again\n"), done.err
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.stat("/dev/null").st_uid == 0


def test_without_a_control_group_nothing_starts(lab: Lab) -> None:
    spec = lab.spec("true")
    assert spec.linux is not None
    spec.linux.cgroups_path = ""
    spec.linux.resources = None
    with pytest.raises(ChildFailed, match="control group"):
        launch(compile_launch(lab.request(spec)).to_wire(), -1, -1, -1)

"""`--userns-remap` with the real docker command: what is root inside is nobody outside, and files stay as they are."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import foreign
from tests.compat.remapped import RemappedDaemon, place_of_a_daemon, private_folder, remapped_daemon
from tests.waiting import until

SLEEP = ("sleep", "1000")
NOBODY = "65534"


@pytest.fixture(scope="module")
def shared() -> Iterator[RemappedDaemon]:
    with remapped_daemon("--userns-remap", "default", "--add-runtime", "runc=/usr/bin/runc") as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: RemappedDaemon) -> Iterator[RemappedDaemon]:
    yield shared
    assert shared.answers()
    if left := shared.ok("ps", "-aq").split():
        shared.ok("rm", "-fv", *left)


@pytest.fixture(params=["corten", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    return f"--runtime={request.param}"


def test_default_makes_dockremap_and_its_ranges(daemon: RemappedDaemon) -> None:
    etc = daemon.host.place / "etc"
    assert "dockremap:" in (etc / "passwd").read_text()
    assert "dockremap:" in (etc / "group").read_text()
    assert min(daemon.ranges()) >= 100000
    assert "name=userns" in daemon.info()["SecurityOptions"]
    assert " userns" in daemon.ok("info")


def test_root_inside_is_a_subordinate_outside(daemon: RemappedDaemon, runtime: str) -> None:
    daemon.ok("run", "-d", "--name", "box", runtime, "busybox", *SLEEP)
    assert daemon.ok("exec", "box", "id") == "uid=0(root) gid=0(root) groups=0(root)"
    assert daemon.ok("exec", "-u", "app", "box", "id", "-u") == "1000"
    uid, gid = daemon.ranges()
    assert daemon.root_of("box") == (uid, gid)
    assert daemon.ok("exec", "box", "cat", "/proc/self/uid_map").split() == ["0", str(uid), "65536"]
    assert daemon.ok("exec", "box", "cat", "/proc/self/gid_map").split() == ["0", str(gid), "65536"]
    assert daemon.inspect("box")["HostConfig"]["UsernsMode"] == ""


@pytest.mark.parametrize("name", foreign.NAMES)
def test_the_null_device_stays_the_hosts(tmp_path: Path, name: str) -> None:
    """crun gives the streams that it is called with to root of the container."""
    before = os.stat("/dev/null")
    program = foreign.program(name, tmp_path)
    with remapped_daemon("--userns-remap", "default", "--add-runtime", f"other={program}") as daemon:
        daemon.ok("run", "-d", "--name", "box", "--runtime", "other", "busybox", *SLEEP)
        assert daemon.ok("exec", "box", "sh", "-c", "echo x >/dev/null; echo 1") == "1"
        after = os.stat("/dev/null")
        daemon.ok("rm", "-f", "box")
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


def test_files_are_roots_inside_and_unshifted_on_disk(daemon: RemappedDaemon, runtime: str) -> None:
    script = "touch /byroot; chown app /byroot; chown root /byroot; su app -c 'touch /tmp/byapp'; stat -c %u:%g /bin/sh"
    name = f"files{runtime[-4:]}"
    script = script.replace("by", name)
    assert daemon.ok("run", "--name", name, runtime, "busybox", "sh", "-c", script) == "0:0"
    made = daemon.made(f"{name}root")
    assert (made.st_uid, made.st_gid) == (0, 0)
    assert daemon.made(f"tmp/{name}app").st_uid == 1000
    daemon.ok("start", name)
    daemon.ok("wait", name)


def test_volumes_are_roots_inside_and_unshifted_on_disk(daemon: RemappedDaemon, runtime: str) -> None:
    volume = f"v{runtime[-4:]}"
    seen = daemon.ok("run", "--rm", runtime, "-v", f"{volume}:/home/app", "busybox", "sh", "-c",
    "touch /home/app/f && chown 1000:1000 /home/app/f && stat -c %u:%g /home/app /home/app/f")  # fmt: skip
    assert seen.split() == ["0:0", "1000:1000"]
    data = Path(json.loads(daemon.ok("volume", "inspect", volume))[0]["Mountpoint"])
    assert (data / "f").stat().st_uid == 1000
    assert data.stat().st_uid == 0
    # A container with the host's users sees the same; so does one that takes the volume over.
    plain = ("run", "--rm", "--userns", "host", "-v", f"{volume}:/v", "busybox", "stat", "-c", "%u:%g", "/v", "/v/f")
    assert daemon.ok(*plain).split() == ["0:0", "1000:1000"]
    daemon.ok("create", "--name", "from", "-v", f"{volume}:/v:ro", "busybox")
    taken = daemon.docker("run", "--rm", runtime, "--volumes-from", "from", "busybox", "touch", "/v/g")
    assert "Read-only file system" in taken.err
    daemon.ok("rm", "from")
    daemon.ok("volume", "rm", volume)


def test_what_belongs_to_the_hosts_root_stays_closed(daemon: RemappedDaemon, runtime: str) -> None:
    place = private_folder(daemon.host.place, f"closed-{runtime[-4:]}")
    (daemon.host.place / "open.txt").write_text("for all\n")
    script = "ls /private; cat /private/secret; chmod 777 /private; chown 0 /private; echo x >/open; cat /open; id -u"
    done = daemon.docker("run", "--rm", runtime, "-v", f"{place}:/private", "-v",
    f"{daemon.host.place}/open.txt:/open", "busybox", "sh", "-c", script)  # fmt: skip
    assert done.out == "for all\n0\n"
    assert done.err.count("ermission denied") + done.err.count("not permitted") == 5, done.err
    assert (place.stat().st_mode & 0o777, place.stat().st_uid) == (0o700, 0)
    owner = daemon.ok("run", "--rm", runtime, "-v", f"{place}:/private", "busybox", "stat", "-c", "%u", "/private")
    assert owner == NOBODY


def test_a_folder_made_for_a_bind_belongs_to_the_containers_root(daemon: RemappedDaemon) -> None:
    folder = daemon.host.place / "made/for/it"
    daemon.ok("run", "--rm", "-v", f"{folder}:/b", "busybox", "touch", "/b/f")
    uid, gid = daemon.ranges()
    for path in (folder / "f", folder, folder.parent, folder.parent.parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (uid, gid)


@pytest.mark.parametrize(
    "attempt",
    [
        "echo 7 >/proc/sys/kernel/panic",
        "echo x >/proc/sysrq-trigger",
        "mknod /x c 1 3 && head -c1 /x && echo x >/x",
        "date -s 2000-01-01",
        "dmesg -c",
        "renice -n -5 1",
        "mount -o remount,rw /sys && echo 1 >/sys/kernel/mm/ksm/run",
    ],
)
def test_all_capabilities_inside_are_none_outside(daemon: RemappedDaemon, attempt: str) -> None:
    """With everything else switched off too, it is the user namespace that refuses."""
    before = Path("/proc/sys/kernel/panic").read_text()
    done = daemon.docker("run", "--rm", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt",
    "systempaths=unconfined", "busybox", "sh", "-c", f"({attempt}) && echo done")  # fmt: skip
    assert (done.code, done.out) != (0, "done\n")
    assert done.err
    assert Path("/proc/sys/kernel/panic").read_text() == before


def test_etc_files_are_the_containers(daemon: RemappedDaemon, runtime: str) -> None:
    script = (
        "stat -c %u:%g /etc/hosts /etc/hostname /etc/resolv.conf; echo 1.2.3.4 x >>/etc/hosts && tail -n1 /etc/hosts"
    )
    out = daemon.ok("run", "--rm", runtime, "busybox", "sh", "-c", script)
    assert out.split("\n") == ["0:0"] * 3 + ["1.2.3.4 x"]


def test_the_hosts_users_for_one_container(daemon: RemappedDaemon) -> None:
    daemon.ok("run", "-d", "--name", "plain", "--userns", "host", "busybox", *SLEEP)
    assert daemon.root_of("plain") == (0, 0)
    assert daemon.inspect("plain")["HostConfig"]["UsernsMode"] == "host"
    namespaces = [os.readlink(f"/proc/{pid}/ns/user") for pid in ("self", daemon.inspect("plain")["State"]["Pid"])]
    assert namespaces[0] == namespaces[1]
    assert daemon.ok("run", "--rm", "--userns", "host", "--privileged", "--pid", "host", "--network", "host", "busybox",
    "echo", "all") == "all"  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--privileged"], "privileged mode is incompatible with user namespaces.  You must run the container in the"),
        (["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
        (["--userns", "private"], "--userns: invalid USER mode"),
    ],
)
def test_refusals_in_dockers_words(daemon: RemappedDaemon, flags: list[str], words: str) -> None:
    done = daemon.docker("run", "--rm", *flags, "busybox", "true")
    assert done.code == 125
    assert words in done.err
    assert daemon.ok("ps", "-aq") == ""


def test_a_mode_that_does_not_exist_over_the_api(daemon: RemappedDaemon) -> None:
    body = {"Image": "busybox", "HostConfig": {"UsernsMode": "container:x"}}
    answer = daemon.curl("/containers/create", "POST", body)
    assert answer.code == 400
    assert "invalid USER mode" in answer.out


def test_the_network_is_the_containers(daemon: RemappedDaemon, runtime: str) -> None:
    daemon.ok("run", "-d", "--name", "web", runtime, "-p", "8080:80", "--cap-add", "NET_ADMIN", "busybox", "httpd",
    "-f", "-h", "/etc")  # fmt: skip
    page = until(lambda: daemon.host.run("busybox", "wget", "-qO-", "http://127.0.0.1:8080/passwd").out, what="a page")
    assert "root:" in page
    daemon.ok("exec", "web", "ip", "link", "set", "lo", "down")
    daemon.ok("exec", "web", "ip", "link", "set", "lo", "up")
    assert daemon.docker("exec", "web", "ls", "/sys/class/net").out.split() == ["eth0", "lo"]
    joined = daemon.ok("run", "--rm", runtime, "--network", "container:web", "busybox", "wget", "-qO-",
    f"http://{daemon.inspect('web')['NetworkSettings']['IPAddress']}/group")  # fmt: skip
    assert "app" in joined


def test_every_group_inside_may_ping(daemon: RemappedDaemon) -> None:
    daemon.ok("run", "-d", "--name", "box", "busybox", *SLEEP)
    names = ("/proc/sys/net/ipv4/ping_group_range", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
    assert daemon.ok("exec", "box", "cat", *names).split() == ["0", "65535", "0"]
    network = f"--net=/proc/{daemon.inspect('box')['State']['Pid']}/ns/net"
    first = daemon.ranges()[1]
    outside = subprocess.run(["nsenter", network, "cat", names[0]], capture_output=True, text=True, check=True)
    assert outside.stdout.split() == [str(first), str(first + 65535)]


def test_sharing_namespaces_of_another_container(daemon: RemappedDaemon) -> None:
    daemon.ok(
        "run",
        "-d",
        "--name",
        "first",
        "--ipc",
        "shareable",
        "busybox",
        "sh",
        "-c",
        "sleep 4321 & echo >/dev/shm/f; wait",
    )
    users = os.readlink(f"/proc/{daemon.inspect('first')['State']['Pid']}/ns/user")
    for kind, script in (
        ("pid", "ps -o args | grep -c '^sleep 432[1]'"),
        ("ipc", "ls /dev/shm | wc -l"),
        ("network", "echo 1"),
    ):
        daemon.ok("run", "-d", "--name", kind, f"--{kind}", "container:first", "busybox", *SLEEP)
        assert daemon.ok("exec", kind, "sh", "-c", script) == "1"
        assert os.readlink(f"/proc/{daemon.inspect(kind)['State']['Pid']}/ns/user") == users
    daemon.ok("run", "-d", "--name", "apart", "busybox", *SLEEP)
    assert os.readlink(f"/proc/{daemon.inspect('apart')['State']['Pid']}/ns/user") != users
    daemon.ok("run", "-d", "--name", "plain", "--userns", "host", "busybox", *SLEEP)
    refused = daemon.docker("run", "--name", "no", "--network", "container:plain", "busybox", "true")
    assert refused.code == 125
    assert "it runs in another user namespace" in refused.err
    daemon.ok("run", "--rm", "--userns", "host", "--network", "container:first", "busybox", "true")


def test_file_systems_of_its_own(daemon: RemappedDaemon, runtime: str) -> None:
    script = """
        stat -c %u /t /dev /dev/shm /proc/self /sys | tr '\\n' ' '
        touch /t/f /dev/shm/f && head -c3 /dev/zero >/dev/null && echo x >/dev/null && test -d /sys/class || exit 1
        cat /proc/1/comm
    """
    seen = daemon.ok("run", "--rm", runtime, "--tmpfs", "/t", "--read-only", "busybox", "sh", "-c", script)
    assert seen.split()[:3] == ["0", "0", "0"]
    assert seen.split()[-1] == "sh"
    assert "Read-only" in daemon.docker("run", "--rm", runtime, "--read-only", "busybox", "touch", "/x").err


def test_devices(daemon: RemappedDaemon) -> None:
    script = "head -c2 /dev/mine | od -An -tx1; ls /dev; head -c1 /dev/null; stat -c %a /dev/null"
    seen = daemon.ok("run", "--rm", "--device", "/dev/zero:/dev/mine", "busybox", "sh", "-c", script)
    assert seen.split()[:2] == ["00", "00"]
    assert {"full", "null", "random", "urandom", "zero", "tty", "pts", "mine"} <= set(seen.split())


def test_a_terminal_and_init(daemon: RemappedDaemon, runtime: str) -> None:
    script = "tty; stat -c %u $(tty) /dev/console; cat /proc/1/comm"
    command = ["docker", "-H", daemon.url, "run", "--rm", "-t", runtime, "--init", "busybox", "sh", "-c", script]
    done = subprocess.run(
        daemon.host.inside("script", "-qec", " ".join(map(_quoted, command)), "/dev/null"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.split()
    assert lines[0] == "/dev/pts/0", done.stdout
    assert lines[1:3] == ["0", "0"]
    if runtime.endswith("corten"):
        assert lines[3] == "corten-init"


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def test_terminals_of_exec_sessions(daemon: RemappedDaemon) -> None:
    daemon.ok("run", "-d", "--name", "box", "busybox", *SLEEP)
    command = f"docker -H {daemon.url} exec -t -u app box sh -c 'id -u; stat -c %u $(tty); echo through >/dev/tty'"
    done = subprocess.run(
        daemon.host.inside("script", "-qec", command, "/dev/null"), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["1000", "1000", "through"]
    assert daemon.ok("exec", "--privileged", "box", "id", "-u") == "0"
    assert daemon.docker("exec", "--privileged", "box", "mknod", "/x", "b", "8", "0").code == 1


def test_health_checks_top_and_stats(daemon: RemappedDaemon) -> None:
    daemon.ok("run", "-d", "--name", "box", "--health-cmd", "test $(id -u) = 0", "--health-interval", "100ms",
    "busybox", *SLEEP)  # fmt: skip
    until(lambda: daemon.inspect("box")["State"]["Health"]["Status"] == "healthy", what="health")
    rows = daemon.ok("top", "box", "-eo", "uid,pid,args").splitlines()
    assert rows[1].split()[0] == str(daemon.ranges()[0])
    stats = ("stats", "--no-stream", "--format", "{{.PIDs}}", "box")
    until(lambda: daemon.ok(*stats) == "1", what="a look between two health checks")
    daemon.ok("pause", "box")
    daemon.ok("unpause", "box")
    daemon.ok("restart", "-t", "0", "box")
    assert daemon.ok("exec", "box", "id", "-u") == "0"


def test_limits_and_cgroups(daemon: RemappedDaemon) -> None:
    seen = daemon.ok("run", "--rm", "-m", "64m", "--pids-limit", "50", "--cgroupns", "private", "--ulimit",
    "nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ls /sys/fs/cgroup | wc -l; cat /proc/self/cgroup")  # fmt: skip
    lines = seen.splitlines()
    assert lines[0] == "100"
    assert int(lines[1]) > 0
    assert all(line.endswith(":/") or "corten" not in line for line in lines[2:])


def test_a_setgid_program_and_supplementary_groups(daemon: RemappedDaemon) -> None:
    seen = daemon.ok("run", "--rm", "-u", "app", "--group-add", "3000", "busybox", "id", "-G")
    assert set(seen.split()) == {"1000", "2000", "3000"}


def test_containers_survive_the_daemon_and_its_setting() -> None:
    ranges = {"subuid": "tester:700000:65536\n", "subgid": "tester:800000:65536\n"}
    accounts = {name: Path("/etc", name).read_text() + "tester:x:4711:4711::/:/bin/false\n" for name in ("passwd",)}
    accounts["group"] = Path("/etc/group").read_text() + "tester:x:4711:\n"
    with remapped_daemon("--userns-remap", "tester", etc=ranges | accounts) as daemon:
        daemon.ok("run", "-d", "--name", "box", "--restart", "always", "busybox", "sh", "-c", "touch /f; sleep 1000")
        daemon.ok("create", "--name", "privileged", "--userns", "host", "--privileged", "busybox", "true")
        assert daemon.root_of("box") == (700000, 800000)
        pid = daemon.inspect("box")["State"]["Pid"]
        daemon.kill()
        daemon.start()
        assert daemon.inspect("box")["State"]["Pid"] == pid
        assert daemon.ok("exec", "box", "stat", "-c", "%u", "/f") == "0"
        # Another setting counts from the next start on; what is on disk fits both.
        daemon.stop()
        daemon.args = []
        daemon.start()
        assert daemon.ok("exec", "box", "cat", "/proc/self/uid_map").split() == ["0", "700000", "65536"]
        daemon.ok("restart", "-t", "0", "box")
        assert daemon.root_of("box") == (0, 0)
        assert daemon.ok("exec", "box", "stat", "-c", "%u", "/f") == "0"


def test_snapshots_that_are_copies() -> None:
    with remapped_daemon("--userns-remap=default", "--storage-driver=copy") as daemon:
        daemon.ok("run", "-d", "--name", "box", "busybox", "sh", "-c", "touch /made; sleep 1000")
        assert daemon.root_of("box") == daemon.ranges()
        assert daemon.ok("exec", "box", "stat", "-c", "%u", "/made", "/bin/sh").split() == ["0", "0"]
        assert daemon.made("made").st_uid == 0
        daemon.ok("rm", "-f", "box")


@pytest.mark.parametrize(
    ("value", "etc", "words"),
    [
        ("nobodyhere", {}, 'Error during uid lookup for "nobodyhere"'),
        ("daemon", {"subuid": "daemon:1000\n"}, "subuid, line 1: daemon:1000: must be NAME:FIRST:COUNT"),
        ("daemon", {"subuid": "", "subgid": ""}, 'no subuid ranges found for user "daemon"'),
        ("a:b:c", {}, "Invalid user/group specification in --userns-remap"),
    ],
)
def test_a_daemon_that_cannot_remap_does_not_start(value: str, etc: dict[str, str], words: str) -> None:
    with place_of_a_daemon("--userns-remap", value, etc=etc) as daemon:
        done = daemon.host.run(*daemon.command())
        assert done.code == 1
        assert words in done.err


def test_a_data_root_that_cannot_be_idmapped_is_told_at_the_start() -> None:
    with place_of_a_daemon("--userns-remap", "default") as daemon:
        place = daemon.host.place
        for name in ("lower", "upper", "work", "data"):
            (place / name).mkdir()
        options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
        mounted = daemon.host.run(*daemon.inside("mount", "-t", "overlay", "overlay", "-o", options, f"{place}/data"))
        assert mounted.code == 0, mounted.err
        done = daemon.host.run(*daemon.command())
        assert done.code == 1
        assert f"the file system of {place}/data/snapshots (overlay) cannot be idmapped" in done.err


def test_cp_shows_and_takes_the_ids_of_the_container(daemon: RemappedDaemon, tmp_path: Path) -> None:
    daemon.host.place.chmod(0o711)
    (tmp_path / "file").write_text("x\n")
    os.chown(tmp_path / "file", 1000, 1001)
    for form in ("running", "stopped"):
        name = f"copied-{form}"
        daemon.ok(
            "run", "-d", "--name", name, "-v", "/volume", "busybox", "sh", "-c", "echo y > /made; exec sleep 1000"
        )
        await_file(daemon, name)
        if form == "stopped":
            daemon.ok("stop", "-t", "0", name)
        for place in ("/tmp", "/volume"):
            daemon.ok("cp", str(tmp_path / "file"), f"{name}:{place}/")
            packed = tmp_path / "out.tar"
            copy = f"docker -H {daemon.url} cp {name}:"
            command = f"{copy}{place}/file - > {packed}; {copy}/made - > {packed}2"
            assert daemon.host.run("sh", "-c", command).code == 0
            with tarfile.open(packed) as tar, tarfile.open(f"{packed}2") as other:
                assert [(m.uid, m.gid) for m in tar] == [(1000, 1001)]
                assert [(m.uid, m.gid) for m in other] == [(0, 0)]
        if form == "stopped":
            daemon.ok("start", name)
        shown = daemon.ok("exec", name, "stat", "-c", "%u:%g", "/tmp/file", "/volume/file")
        assert shown.split() == ["1000:1001", "1000:1001"]
        daemon.ok("export", "-o", str(tmp_path / "all.tar"), name)
        daemon.ok("rm", "-fv", name)


@pytest.mark.parametrize("form", ["running", "stopped", "created"])
def test_cp_of_a_bound_folder_shows_the_same_ids_whatever_the_container_does(
    daemon: RemappedDaemon, tmp_path: Path, form: str
) -> None:
    first_uid, first_gid = daemon.ranges()
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, first_uid, first_gid)
    for name, owner in (("inside", (first_uid + 5, first_gid + 6)), ("outside", (0, 0))):
        (folder / name).write_text("x\n")
        os.chown(folder / name, *owner)
    daemon.ok("create", "--name", "box", "-v", f"{folder}:/b", "-v", f"{folder}:/ro:ro", "busybox", "sleep", "1000")
    if form != "created":
        daemon.ok("start", "box")
    if form == "stopped":
        daemon.ok("stop", "-t", "0", "box")
    nobody = int(Path("/proc/sys/kernel/overflowuid").read_text())
    for place in ("b", "ro"):
        copied = f"docker -H {daemon.url} cp box:/{place} - > {tmp_path}/out.tar"
        assert daemon.host.run("sh", "-c", copied).code == 0
        with tarfile.open(tmp_path / "out.tar") as tar:
            found = {member.name: (member.uid, member.gid) for member in tar}
        assert found == {place: (0, 0), f"{place}/inside": (5, 6), f"{place}/outside": (nobody, nobody)}
    os.chown(folder / "inside", 1000, 1001)
    daemon.ok("cp", str(folder / "inside"), "box:/b/new")
    status = (folder / "new").stat()
    assert (status.st_uid, status.st_gid) == (first_uid + 1000, first_gid + 1001)
    refused = daemon.docker("cp", str(folder / "new"), "box:/ro/")
    assert "mounted volume is marked read-only" in refused.err
    daemon.ok("rm", "-f", "box")


def await_file(daemon: RemappedDaemon, name: str) -> None:
    until(lambda: daemon.docker("exec", name, "test", "-s", "/made").code == 0, what="the file")


def test_an_image_as_a_mount(daemon: RemappedDaemon, runtime: str) -> None:
    """Its files have the owners that they have in the image, in one layer and in several."""
    daemon.ok("run", "--name", "maker", "busybox", "sh", "-ec", "mkdir /d; echo a > /d/f; chown app /d/f")
    daemon.ok("commit", "maker", "tools")
    look = ("sh", "-c", "stat -c '%u %n' /x/d/f /x/bin/busybox; touch /x/d/new || echo refused")
    seen = daemon.ok("run", "--rm", runtime, "--mount", "type=image,src=tools,dst=/x", "busybox", *look)
    assert seen.splitlines() == ["1000 /x/d/f", "0 /x/bin/busybox", "refused"]
    part = ("type=image,src=busybox,dst=/x,image-subpath=etc/passwd", "busybox", "stat", "-c", "%u", "/x")
    assert daemon.ok("run", "--rm", runtime, "--mount", *part) == "0"
    daemon.ok("rm", "maker")
    daemon.ok("rmi", "tools")

"""What `corten-runtime` is given and cannot do: a message with the member's name, and nothing left behind."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corten.runtime.cgroups import Cgroup
from tests.kernel.boxes import cgroup_of, needs_root
from tests.kernel.test_oci_cli import Bundle
from tests.kernel.test_oci_hooks import NAME, traces

pytestmark = [pytest.mark.root, needs_root]

Change = Callable[[Any, Path], None]


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    made = Bundle(tmp_path)
    made.edit("true")
    yield made
    assert traces(made) == []
    Cgroup(cgroup_of("")).remove()


def refused(bundle: Bundle, command: str, log: Path) -> subprocess.CompletedProcess[str]:
    given = ("--log", str(log), "--log-format", "json", command, "--bundle", str(bundle.directory), NAME)
    ran = bundle.forked(*given)
    assert ran.returncode != 0
    assert ran.stdout == ""
    assert ran.stderr.startswith("corten-runtime: ")
    assert "Traceback" not in ran.stderr
    message = ran.stderr.removeprefix("corten-runtime: ").removesuffix("\n")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["msg"] for line in lines if line["level"] == "error"] == [message]
    assert traces(bundle) == []
    assert bundle.forked("list", "-q").stdout == ""
    return ran


def program(name: str, body: bytes, mode: int = 0o755) -> Change:
    """A file of the image as the command."""

    def change(config: Any, root: Path) -> None:
        path = root / "bin" / name
        path.write_bytes(body)
        path.chmod(mode)
        config["process"]["args"] = [f"/bin/{name}"]

    return change


def put(path: str, value: Any) -> Change:
    """A member of the specification; a number in the path is an index, "+" a further one."""

    def change(config: Any, root: Path) -> None:
        place = config
        *way, last = path.split("/")
        for name in way:
            place = place[int(name)] if name.isdigit() else place[name]
        if last == "+":
            place.append(value)
        else:
            place[last] = value

    return change


def drop(name: str) -> Change:
    return lambda config, root: config.pop(name)


# ELF of the other of our two architectures: the header is all that the kernel looks at.
_OTHER = {"x86_64": 183, "aarch64": 62}[platform.machine()]
FOREIGN = b"\x7fELF\x02\x01\x01" + bytes(9) + bytes((2, 0)) + _OTHER.to_bytes(2, "little") + bytes(44)

WRONG: dict[str, tuple[Change, str]] = {
    "type": (put("process/args", "true"), "process.args"),
    "no version": (drop("ociVersion"), "ociVersion"),
    "version": (put("ociVersion", "2.0.0"), "ociVersion"),
    "no process": (drop("process"), "process: is missing"),
    "no root": (drop("root"), "root.path: is missing"),
    "rootfs missing": (put("root/path", "nowhere"), "root.path: .*/nowhere: no such file or directory"),
    "rootfs a file": (put("root/path", "config.json"), "root.path: .*/config.json is not a directory"),
    "no args": (put("process/args", []), "process.args"),
    "cwd": (put("process/cwd", "tmp"), "process.cwd"),
    "cwd a file": (put("process/cwd", "/etc/passwd"), 'process.cwd: chdir to cwd \\("/etc/passwd"\\)'),
    "zero byte": (put("process/args", ["tr\0ue"]), r"process.args\[0\]"),
    "environment": (put("process/env/+", "NOTHING"), r"process.env\[2\]"),
    "capability": (put("process/capabilities/bounding/+", "CAP_NONE"), 'capabilities.bounding.3.: "CAP_NONE"'),
    "rlimit": (put("process/rlimits/0/type", "RLIMIT_NONE"), r"process.rlimits\[0\].type: .*RLIMIT_NONE"),
    "rlimit twice": (put("process/rlimits/+", {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}), r"rlimits\[1\]"),
    "rlimit order": (put("process/rlimits/0/soft", 4096), r"process.rlimits\[0\]"),
    "uid": (put("process/user", {"uid": 4294967295, "gid": 0}), "process.user.uid"),
    "uid text": (put("process/user", {"uid": "root", "gid": 0}), "process.user.uid"),
    "affinity": (
        put("process/execCPUAffinity", {"initial": "0", "final": "all"}),
        "process.execCPUAffinity.final: all",
    ),
    "oom": (put("process/oomScoreAdj", 2000), "process.oomScoreAdj"),
    "scheduler": (put("process/scheduler", {"policy": "SCHED_NONE"}), "process.scheduler.policy"),
    "namespace": (put("linux/namespaces/+", {"type": "nothing"}), "linux.namespaces.*nothing"),
    "namespace twice": (put("linux/namespaces/+", {"type": "pid"}), "namespaces.*pid.*twice"),
    "namespace path": (put("linux/namespaces/0/path", "/no/such"), r"linux.namespaces\[0\].path: /no/such"),
    "mount option": (put("mounts/1/options/+", "nonsense"), r'mounts\[1\]: .*"/dev".*nonsense'),
    "bind option": (
        put("mounts/+", {"destination": "/x", "type": "bind", "source": "/etc", "options": ["bind", "nonsense"]}),
        r"mounts\[\d\].*nonsense",
    ),
    "mount source": (
        put("mounts/+", {"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}),
        r"mounts\[\d\]: .*/no/such.*no such file or directory",
    ),
    "mount type": (put("mounts/+", {"destination": "/x", "type": "nofs", "source": "x"}), r'mounts\[\d\]: .*"/x".*'),
    "propagation": (put("linux/rootfsPropagation", "sideways"), "linux.rootfsPropagation"),
    "sysctl": (put("linux/sysctl", {"net.nothing.such": "1"}), "net.nothing.such"),
    "device": (put("linux/devices", [{"path": "/dev/x", "type": "q"}]), "linux.devices.*"),
    "device rule": (put("linux/resources/devices/0/access", "rwx"), "access"),
    "masked": (put("linux/maskedPaths/+", "proc"), "linux.maskedPaths"),
    "memory": (put("linux/resources/memory", {"limit": -5}), "linux.resources.memory.limit"),
    "cgroup": (put("linux/cgroupsPath", "/"), "linux.cgroupsPath"),
    "hostname": (put("hostname", "x" * 100), "hostname"),
    "profile": (put("process/apparmorProfile", "no-such-profile"), "process.apparmorProfile"),
}


# The two differ in what happens after a launch alone.
CASES = [*((case, "run") for case in WRONG), *((case, "create") for case in ("type", "cwd a file", "mount option"))]


@pytest.mark.parametrize(("case", "command"), CASES)
def test_a_specification_that_cannot_be(bundle: Bundle, tmp_path: Path, case: str, command: str) -> None:
    change, words = WRONG[case]
    path = bundle.directory / "config.json"
    config = json.loads(path.read_text())
    change(config, bundle.directory / "rootfs")
    path.write_text(json.dumps(config))
    ran = refused(bundle, command, tmp_path / "log")
    assert ran.returncode == (126 if command == "run" and case == "cwd a file" else 1)
    assert re.search(words, ran.stderr), ran.stderr


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (put("process/args", ["nowhere"]), 127, 'exec: "nowhere": executable file not found in \\$PATH'),
        (put("process/args", ["/no/such"]), 127, "/no/such.*no such file or directory"),
        (put("process/args", ["/bin"]), 126, "/bin.*is a directory"),
        (program("plain", b"text\n", 0o644), 126, "/bin/plain.*permission denied"),
        (program("foreign", FOREIGN), 126, "/bin/foreign.*exec format error"),
        (program("script", b"#!/no/interpreter\n"), 127, "/bin/script.*no such file or directory"),
        (program("empty", b""), 126, "/bin/empty.*exec format error"),
    ],
    ids=["unknown", "missing", "directory", "not executable", "other architecture", "no interpreter", "empty"],
)
def test_a_program_that_cannot_run(bundle: Bundle, tmp_path: Path, change: Change, code: int, words: str) -> None:
    path = bundle.directory / "config.json"
    config = json.loads(path.read_text())
    change(config, bundle.directory / "rootfs")
    path.write_text(json.dumps(config))
    ran = refused(bundle, "run", tmp_path / "log")
    assert ran.returncode == code
    assert ran.stderr.startswith("corten-runtime: process.args[0]: exec")
    assert re.search(words, ran.stderr), ran.stderr


@pytest.mark.parametrize("body", ["", "{", "[]", '"text"', "{} {}", '{"ociVersion": "1.0.0", "process": 5}', "\xff"])
def test_a_file_that_is_no_specification(bundle: Bundle, tmp_path: Path, body: str) -> None:
    (bundle.directory / "config.json").write_bytes(body.encode("latin-1"))
    ran = refused(bundle, "run", tmp_path / "log")
    assert (ran.returncode, "invalid runtime configuration" in ran.stderr) == (1, True), ran.stderr


def test_a_bundle_without_a_specification(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.directory / "config.json").unlink()
    ran = refused(bundle, "run", tmp_path / "log")
    assert ran.stderr.endswith("config.json: No such file or directory\n")


@pytest.mark.parametrize("name", ["a/b", "../x", "..", ".", "", "a b", "x" * 300, "\N{SNOWMAN}"])
def test_ids_that_are_none(bundle: Bundle, name: str) -> None:
    for command in ("run", "state", "delete"):
        given = ("--bundle", str(bundle.directory)) if command == "run" else ()
        ran = bundle.forked(command, *given, name)
        assert (ran.returncode, "invalid container id" in ran.stderr) == (1, True), ran.stderr


def test_an_id_is_taken_once_however_many_want_it(bundle: Bundle) -> None:
    command = bundle.command("create", "--bundle", str(bundle.directory), NAME)
    paths = [bundle.base / f"said.{number}" for number in range(4)]
    running = []
    for path in paths:
        with open(path, "wb") as file:  # not a pipe: the container has it too
            running.append(subprocess.Popen(command, stdin=file, stdout=file, stderr=file, env=bundle.env))
    assert sorted(process.wait(timeout=30) for process in running) == [0, 1, 1, 1]
    assert sum(f"container with id exists: {NAME}" in path.read_text() for path in paths) == 3
    assert bundle.state() == "created"
    bundle.ok("delete", "--force", NAME)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("frobnicate",), "unknown command"),
        (("--nothing", "list"), "flag provided but not defined: --nothing"),
        (("state",), "needs 1 argument"),
        (("state", "a", "b"), "takes no argument 'b'"),
        (("--log-format", "xml", "list"), "--log-format"),
        (("--rootless", "maybe", "list"), "--rootless"),
        (("run", "--preserve-fds", "x", "a"), "--preserve-fds"),
        (("run", "--preserve-fds", "5", "a"), "--preserve-fds: descriptor"),
        (("run", "--bundle"), "flag needs an argument"),
        (("list", "--format", "yaml"), "--format yaml"),
        (("kill", "a", "NOSUCH"), "unknown signal 'NOSUCH'"),
        (("update", "--memory", "lots", "a"), "does not exist"),
    ],
)
def test_a_command_line_that_is_none(bundle: Bundle, words: tuple[str, ...], message: str) -> None:
    ran = bundle.forked(*words)
    assert (ran.returncode, message in ran.stderr) == (1, True), ran.stderr

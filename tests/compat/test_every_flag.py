"""No flag of `docker run` is without effect: the docker command's own help says which there are."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import platform
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.harness import Daemon, Outcome, daemon_on_host
from tests.compat.run_flags import PROOFS, Elsewhere, Recorded, Refused, Shown
from tests.compat.test_flags import flags_of, told
from tests.waiting import until

BY_CONTAINER = {name: proof for name, proof in PROOFS.items() if isinstance(proof, Shown)}
RECORDED = {name: proof for name, proof in PROOFS.items() if isinstance(proof, Recorded)}
REFUSED = {name: proof for name, proof in PROOFS.items() if isinstance(proof, Refused)}
ELSEWHERE = {name: proof for name, proof in PROOFS.items() if isinstance(proof, Elsewhere)}
SLEEP = ("sleep", "100")


def runner(daemon: Daemon, flag: str) -> Callable[..., Outcome]:
    """docker, or `corten` for a flag that is younger than the docker command."""
    return daemon.docker if flag in flags_of(told("run")) else daemon.corten


def a_disk() -> str:
    """Whichever has a queue of its own."""
    disks = [path for path in Path("/sys/block").iterdir() if (path / "device").exists()]
    return f"/dev/{min(disks).name}"


def filled(daemon: Daemon, text: str) -> str:
    place = daemon.host.place
    (place / "env").write_text("B=two\n")
    words = {"place": str(place), "host": platform.node(), "pid": re.escape(os.readlink("/proc/self/ns/pid"))}
    return text.format(disk=a_disk() if "{disk}" in text else "", **words)


def test_every_flag_of_docker_is_proven() -> None:
    run, create = set(flags_of(told("run"))), set(flags_of(told("create")))
    assert len(run) > 80
    assert run - set(PROOFS) == set()
    assert create - run == set()


def test_the_other_proofs_exist() -> None:
    short = {name: flags_of(told("run")).get(name, ("",))[0] for name in PROOFS}
    for flag, proof in ELSEWHERE.items():
        if flag == "help":
            continue
        module, _, test = proof.test.partition("::")
        found = importlib.import_module(f"tests.compat.{module}")
        assert callable(getattr(found, test, None)), proof.test
        said = inspect.getsource(found)
        assert f"--{flag}" in said or re.search(rf'"-{short[flag] or "!"}\w?"', said), f"{proof.test} knows no --{flag}"


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[str, str]]:
    """What each command prints in a container without flags."""
    with daemon_on_host() as daemon:
        yield {
            flag: daemon.docker("run", "--rm", "busybox", "sh", "-c", filled(daemon, proof.command)).both.strip()
            for flag, proof in BY_CONTAINER.items()
        }


@pytest.mark.parametrize("flag", BY_CONTAINER)
def test_seen_in_the_container(daemon: Daemon, plain: dict[str, str], flag: str) -> None:
    proof = BY_CONTAINER[flag]
    words, command = shlex.split(filled(daemon, proof.args)), filled(daemon, proof.command)
    shell = ["-c"] if flag == "entrypoint" else ["sh", "-c"]
    done = runner(daemon, flag)("run", "--rm", *words, "busybox", *shell, command)
    pattern = filled(daemon, proof.prints)
    printed = done.both.strip()
    assert re.fullmatch(pattern, printed), printed
    assert done.code == proof.code
    assert not re.fullmatch(pattern, plain[flag]), "the same without the flag"


@pytest.mark.parametrize("flag", RECORDED)
def test_recorded(daemon: Daemon, flag: str) -> None:
    proof = RECORDED[flag]
    made = runner(daemon, flag)("create", *shlex.split(filled(daemon, proof.args)), "busybox")
    assert made.code == 0, made.err
    shown = daemon.ok("inspect", "-f", proof.template, made.out.strip())
    assert shown == proof.prints
    assert daemon.docker("inspect", "-f", proof.template, daemon.ok("create", "busybox")).out.strip() != shown


@pytest.mark.parametrize("flag", REFUSED)
def test_refused(daemon: Daemon, flag: str) -> None:
    proof = REFUSED[flag]
    done = runner(daemon, flag)("run", *shlex.split(proof.args), "busybox", "true")
    assert done.code in (1, 125)
    assert proof.words in done.err
    assert daemon.ok("ps", "-aq") == ""


def test_annotations_reach_the_runtime(daemon: Daemon) -> None:
    made = runner(daemon, "annotation")("run", "-d", "--annotation", "org.example.a=1", "busybox", *SLEEP)
    record = daemon.inspect(made.out.strip())
    assert record["HostConfig"]["Annotations"] == {"org.example.a": "1"}
    spec = json.loads((daemon.host.place / "run/containers" / record["Id"] / "config.json").read_bytes())
    assert spec["annotations"]["org.example.a"] == "1"


def test_cgroup_parent(daemon: Daemon) -> None:
    parent = f"/corten-test-{os.getpid()}"
    made = daemon.ok("run", "-d", "--cgroup-parent", parent, "busybox", *SLEEP)
    try:
        groups = Path(f"/proc/{daemon.inspect(made)['State']['Pid']}/cgroup").read_text()
        assert f"{parent}/{made}" in groups
    finally:
        daemon.ok("rm", "-f", made)
        root = Path("/sys/fs/cgroup")
        for left in [*root.glob(f".{parent}"), *root.glob(f"*{parent}")]:
            left.rmdir()  # Docker leaves it, as others may be in it


def test_cgroupns(daemon: Daemon) -> None:
    ours = os.readlink("/proc/self/ns/cgroup")
    for kind in ("host", "private"):
        seen = runner(daemon, "cgroupns")(
            "run", "--rm", "--cgroupns", kind, "busybox", "readlink", "/proc/self/ns/cgroup"
        )
        assert (seen.out.strip() == ours) == (kind == "host")


def test_cidfile(daemon: Daemon) -> None:
    file = daemon.host.place / "cid"
    made = daemon.ok("create", "--cidfile", str(file), "busybox")
    assert file.read_text() == made
    again = daemon.docker("create", "--cidfile", str(file), "busybox")
    assert again.code != 0
    assert "container ID file found" in again.err


@pytest.mark.parametrize("word", ["run", "create"])
def test_disable_content_trust_is_the_clients(daemon: Daemon, word: str) -> None:
    """With it, nothing is looked for; without, docker asks a Notary server, and we say that we know none."""
    daemon.ok(word, "--rm", "--disable-content-trust", "busybox", "true")
    refused = daemon.corten(word, "--disable-content-trust=false", "busybox", "true")
    assert (refused.code, "content trust is not supported" in refused.err) == (125, True)


def test_health_flags(daemon: Daemon) -> None:
    """As they are recorded, and one that is carried out; tests/unit/engine/test_unhealthy and test_health have more."""
    made = runner(daemon, "health-start-interval")(
        "run", "-d", "--health-cmd", "echo asked; false", "--health-interval", "1s", "--health-timeout", "2s",
        "--health-start-period", "3s", "--health-start-interval", "4s", "--health-retries", "7", "busybox", *SLEEP
    )  # fmt: skip
    health = daemon.inspect(made.out.strip())["Config"]["Healthcheck"]
    second = 1_000_000_000
    assert health == {
        "Test": ["CMD-SHELL", "echo asked; false"],
        "Interval": second,
        "Timeout": 2 * second,
        "StartPeriod": 3 * second,
        "StartInterval": 4 * second,
        "Retries": 7,
    }
    quick = ("--health-interval", "50ms", "--health-retries", "2", "--health-cmd", "echo asked; false")
    asked = daemon.ok("run", "-d", *quick, "busybox", *SLEEP)
    until(lambda: daemon.inspect(asked)["State"]["Health"]["Status"] == "unhealthy", what="two failures")
    state = daemon.inspect(asked)["State"]["Health"]
    assert state["FailingStreak"] >= 2
    assert state["Log"][0]["Output"] == "asked\n"


def test_log_driver(daemon: Daemon) -> None:
    daemon.ok("run", "--name", "silent", "--log-driver", "none", "busybox", "echo", "x")
    assert "configured logging driver does not support reading" in daemon.docker("logs", "silent").err
    refused = daemon.docker("create", "--log-driver", "bogus", "busybox")
    assert 'error looking up logging plugin bogus: plugin "bogus" not found' in refused.err


def test_pull_and_quiet(daemon: Daemon) -> None:
    for flags in (["--pull", "never"], ["--pull", "never", "--quiet"]):
        done = runner(daemon, "quiet")("run", *flags, "nothing:1", "true")
        assert (done.code, "Unable to find image" in done.err) == (125, False)
        assert "No such image: nothing:1" in done.err
    for flags in (["--pull", "always"], ["--pull", "missing"], []):
        image = "busybox" if "always" in flags else "127.0.0.1:1/nothing"
        done = runner(daemon, "pull")("run", *flags, image, "true")
        assert done.code == 125  # the registry does not answer
        assert ("Unable to find image" in done.err) == ("always" not in flags)
        quiet = runner(daemon, "quiet")("run", "--quiet", *flags, image, "true")
        assert "Unable to find image" not in quiet.err


def ends_of(process: subprocess.Popen[bytes], signo: int) -> bool:
    process.send_signal(signo)
    return process.poll() is not None


def test_signals_are_not_passed(daemon: Daemon) -> None:
    command = ["docker", "-H", daemon.url, "run", "--sig-proxy=false", "--name", "deaf", "busybox"]
    trap = "trap 'echo caught' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(daemon.host.inside(*command, "sh", "-c", trap), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        # The docker command itself ends of the third one.
        until(lambda: ends_of(process, signal.SIGTERM), what="its end")
    assert daemon.inspect("deaf")["State"]["Running"] is True
    assert daemon.ok("logs", "deaf") == "ready"


def test_stop_signal_and_timeout(daemon: Daemon) -> None:
    trap = "trap 'exit 9' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    for name, flags, code in (("usr1", ["--stop-signal", "USR1"], 9), ("soon", ["--stop-timeout", "0"], 137)):
        daemon.ok("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", trap)
        until(lambda name=name: daemon.ok("logs", name) == "ready", what="the traps")  # type: ignore[misc]
        daemon.ok("stop", name)
        assert daemon.inspect(name)["State"]["ExitCode"] == code


def test_volumes_from(daemon: Daemon) -> None:
    daemon.ok("run", "--name", "giver", "-v", "/shared", "busybox", "sh", "-c", "echo given > /shared/file")
    assert daemon.ok("run", "--rm", "--volumes-from", "giver", "busybox", "cat", "/shared/file") == "given"
    written = daemon.docker("run", "--rm", "--volumes-from", "giver:ro", "busybox", "touch", "/shared/file")
    assert (written.code, "Read-only file system" in written.err) == (1, True)

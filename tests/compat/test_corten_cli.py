"""`corten` says and does what `docker` does, against the same daemon."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from tests import docker_client
from tests.compat.harness import Daemon, daemon_on_host
from tests.waiting import until

SLEEP = ("sleep", "100")


@pytest.fixture(scope="module")
def scene() -> Iterator[Daemon]:
    """A daemon with containers that the comparing tests only look at."""
    with daemon_on_host() as daemon:
        daemon.ok("run", "-d", "--name", "web", "-l", "tier=front", "-p", "8600:80", "-p", "127.0.0.1:8601:53/udp",
        "busybox", "httpd", "-f", "-h", "/etc")  # fmt: skip
        daemon.docker("run", "--name", "done", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
        daemon.ok("create", "--name", "made", "busybox", *SLEEP)
        daemon.ok("tag", "busybox", "other:1")
        daemon.ok("volume", "create", "vol")
        yield daemon


def steady(text: str) -> list[str]:
    """Lines whose words are the same a moment later: times and paddings levelled."""
    text = re.sub(r"(?:Up )?(?:About |Less than )?(?:an?|\d+) (?:second|minute)s?(?: ago)?", "AGO", text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.strip().splitlines()]


COMPARED = [
    "ps",
    "ps -a",
    "ps -aq",
    "ps -a --no-trunc",
    "ps -l",
    "ps -n 2",
    "ps -a --filter status=exited",
    "ps -a --filter label=tier=front --format {{.Names}}",
    "ps -a --filter exited=3 -q",
    "ps -a --filter name=^/?w -q",
    "ps -a --filter ancestor=busybox -q",
    "ps -a --format {{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.Ports}}\\t{{.Labels}}",
    "ps -a --format table\\ {{.Names}}\\t{{.Image}}",
    "ps --filter nonsense=1",
    "container ls -a",
    "images",
    "images -q",
    "images --no-trunc",
    "images --digests",
    "images other",
    "images --filter reference=oth* --format {{.Repository}}:{{.Tag}}",
    "image ls --format {{json\\ .}}",
    "image ls nothing",
    "history busybox",
    "history -q busybox",
    "inspect web",
    "inspect --format {{.State.Status}}\\ {{json\\ .Config.Labels}} web",
    "inspect -f {{range\\ $k,$v:=.NetworkSettings.Ports}}{{$k}}={{len\\ $v}};{{end}} web",
    "inspect -f {{.Config.Cmd}}{{.HostConfig.Memory}}{{.Args}} web",
    "inspect -f {{.Nothing}} web",
    "inspect -f {{.Broken web",
    "inspect nobody",
    "inspect web nobody",
    "inspect --type image busybox",
    "inspect --type volume --format {{.Name}}{{.Driver}} vol",
    "image inspect --format {{.Id}}{{.RepoTags}} busybox",
    "container inspect busybox",
    "network ls --format {{.Name}}\\ {{.Driver}}\\ {{.Scope}}",
    "network inspect bridge --format {{.Name}}",
    "volume ls",
    "volume inspect vol --format {{.Name}}",
    "logs done",
    "logs --tail 1 done",
    "logs nobody",
    "port web",
    "port web 80",
    "port web 53/udp",
    "port web 99",
    "top web",
    "top web -o pid,comm",
    "wait done",
    "version --format {{.Server.APIVersion}}\\ {{.Server.Os}}",
    "info --format {{.Driver}}\\ {{.ContainersRunning}}\\ {{.Images}}",
    "stats --no-stream --format {{.Name}}",
    "start nobody",
    "stop nobody",
    "kill done",
    "exec done true",
    "exec nobody true",
    "rm web",
    "rmi nothing",
    "rename nobody x",
    "tag nothing x",
    "tag busybox UPPER",
    "tag busybox x@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "tag busybox :",
    "pull UPPER",
    "save nothing",
    "run --pull never nothing true",
    "run --memory 1m busybox true",
    "run --no-such-flag busybox",
    "run",
    "run -p x:y busybox",
    "run -v /a:/b:/c:/d busybox",
    "run -e",
    "no-such-command",
    "ps extra",
    "rm",
]


@pytest.mark.parametrize("line", COMPARED)
def test_the_same_as_docker(scene: Daemon, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if docker_client.major_version() < 26:
        pytest.skip("the docker command line is older than 26, with other columns and fields")
    # Both speak the same version, or an answer has members that are younger than the docker command.
    newest = scene.ok("version", "--format", "{{.Client.DefaultAPIVersion}}")
    monkeypatch.setenv("DOCKER_API_VERSION", newest)
    args = [part.replace("\0", " ") for part in line.replace("\\ ", "\0").split(" ")]
    theirs, ours = scene.docker(*args), scene.corten(*args)
    # docker lists the names of one image in the order of a Go map: any.
    order = sorted if line.startswith("image") else list
    assert order(steady(ours.out)) == order(steady(theirs.out))
    assert ours.code == theirs.code
    assert bool(ours.err.strip()) == bool(theirs.err.strip()), ours.err
    wording = docker_client.major_version() >= 28  # earlier messages end with full stops and quote in another way
    if wording and (theirs.code not in (0, 125) or "Error response" in theirs.err):
        assert steady(ours.err)[0].replace("corten", "docker") == steady(theirs.err)[0]


@pytest.mark.parametrize(
    ("command", "code"),
    [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["no-such"], 127), (["/etc/notexec"], 126), (["/etc"], 126)],
)
def test_exit_codes_of_run_and_exec(daemon: Daemon, command: list[str], code: int) -> None:
    assert daemon.corten("run", "--rm", "busybox", *command).code == code
    daemon.ok("run", "-d", "--name", "xx", "busybox", *SLEEP)
    ours, theirs = daemon.corten("exec", "xx", *command), daemon.docker("exec", "xx", *command)
    assert (ours.code, ours.out) == (theirs.code, theirs.out)
    assert ours.code == code


def test_a_life_from_run_to_rm(daemon: Daemon) -> None:
    trap = "echo up; trap 'exit 3' TERM; while :; do sleep 0.05; done"
    made = daemon.corten("run", "-d", "--name", "life", "-p", "8610:80", "-e", "A=1", "-l", "x=y", "busybox",
    "sh", "-c", trap)  # fmt: skip
    assert made.code == 0, made.err
    assert re.fullmatch(r"[0-9a-f]{64}\n", made.out)
    until(lambda: daemon.corten("logs", "life").out == "up\n", what="the log")
    assert daemon.corten("exec", "-e", "B=2", "life", "sh", "-c", "echo $A$B").out == "12\n"
    assert daemon.corten("exec", "-i", "life", "cat", input="in").out == "in"
    for command in (["pause"], ["unpause"], ["stop"], ["start"], ["restart", "-t", "0"], ["kill"]):
        done = daemon.corten(*command, "life")
        assert (done.code, done.out) == (0, "life\n"), (command, done.err)
    assert daemon.corten("wait", "life").out == "137\n"
    assert daemon.corten("rename", "life", "later").code == 0
    assert daemon.corten("rm", "later").out == "later\n"
    assert daemon.corten("ps", "-aq").out == ""


def test_streams_of_run(daemon: Daemon) -> None:
    done = daemon.corten("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo err >&2", input="in\n")
    assert (done.out, done.err) == ("in\n", "err\n")
    data = os.urandom(1 << 15).hex() * 40
    assert daemon.corten("run", "--rm", "-i", "busybox", "cat", input=data).out == data


def test_save_load_tag_rmi(daemon: Daemon) -> None:
    archive = str(daemon.host.place / "ours.tar")
    assert daemon.corten("tag", "busybox", "copy:1").code == 0
    assert daemon.corten("save", "-o", archive, "copy:1").code == 0
    assert daemon.corten("rmi", "copy:1").out == "Untagged: copy:1\n"
    assert daemon.corten("load", "-i", archive).out == "Loaded image: copy:1\n"
    assert daemon.ok("run", "--rm", "copy:1", "echo", "x") == "x"
    daemon.ok("rmi", "copy:1")


def test_bootstrap_makes_a_base_image(daemon: Daemon) -> None:
    made = daemon.corten("image", "bootstrap", "-t", "base:1", "busybox")
    assert made.code == 0, made.err
    assert "base:1" in made.out
    assert daemon.corten("run", "--rm", "base:1", "sh", "-c", "echo $((6*7)); id -un").out == "42\nroot\n"
    again = daemon.corten("image", "bootstrap", "nothing")
    assert again.code == 1
    assert "it must be busybox or debian" in again.err
    daemon.ok("rmi", "base:1")


def test_a_daemon_that_does_not_answer(daemon: Daemon) -> None:
    done = daemon.corten("-H", "unix:///no/such/place.sock", "ps")
    assert done.code == 1
    assert "unix:///no/such/place.sock" in done.err
    assert "cortend" in done.err
    assert daemon.corten("-H", "tcp://127.0.0.1:9", "ps").code == 1
    run = daemon.corten("-H", "unix:///no/such/place.sock", "run", "busybox")
    assert run.code == 125


def test_a_terminal(daemon: Daemon) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    command = [sys.executable, "-m", "corten.cli.main", "-H", daemon.url, "run", "--rm", "-it", "busybox", "sh"]
    with subprocess.Popen(
        daemon.host.inside(*command), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        seen = b""
        for said, expected in ((b"", b"# "), (b"tty\n", b"/dev/"), (b"stty size\n", b"24 80"), (b"exit 5\n", b"")):
            os.write(ours, said)
            while expected not in seen:
                assert select.select([ours], [], [], 20)[0], seen
                seen += os.read(ours, 1024)
        assert process.wait(20) == 5
    os.close(ours)


def test_the_whole_of_version_and_info(daemon: Daemon) -> None:
    version = json.loads(daemon.corten("version", "--format", "{{json .}}").out)
    assert version["Client"]["ApiVersion"] == version["Server"]["ApiVersion"]
    info = daemon.corten("info")
    assert info.code == 0
    assert "Storage Driver: overlayfs" in info.out
    theirs = json.loads(daemon.ok("info", "--format", "{{json .}}"))
    ours = json.loads(daemon.corten("info", "--format", "{{json .}}").out)
    assert ours["ID"] == theirs["ID"]


def test_events_as_docker_prints_them(daemon: Daemon) -> None:
    daemon.ok("run", "--rm", "--name", "told", "busybox", "true")
    # A time, as docker cuts "0s" to the second.
    args = ("events", "--since", "5m", "--until", f"{time.time() + 0.2:.3f}", "--filter", "container=told")
    assert daemon.corten(*args).out == daemon.docker(*args).out
    assert "container die" in daemon.corten(*args).out

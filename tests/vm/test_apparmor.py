"""Containers under AppArmor, which Debian's kernel uses and development machines rarely have."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.specs.oci_runtime import Spec
from tests.compat.harness import Daemon
from tests.kernel.launching import Lab, remove_parents
from tests.vm.machine import started

LOADED = Path("/sys/kernel/security/apparmor/profiles")
OWN = "corten-test-deny"
SHOW = "cat /proc/1/attr/current"


@pytest.fixture(scope="module", autouse=True)
def own_profile() -> Iterator[None]:
    """A profile that forbids to read one file."""
    text = f"profile {OWN} flags=(attach_disconnected) {{ file, signal, capability, deny /etc/group r, }}\n"
    subprocess.run(["apparmor_parser", "--replace"], input=text, text=True, check=True)
    yield
    subprocess.run(["apparmor_parser", "--remove"], input=text, text=True, check=True)


def test_the_default_profile(daemon: Daemon) -> None:
    assert "name=apparmor" in json.loads(daemon.ok("info", "--format", "{{json .SecurityOptions}}"))
    assert "corten-default (enforce)\n" in LOADED.read_text()
    started(daemon)
    assert daemon.inspect("box")["AppArmorProfile"] == "corten-default"
    assert daemon.ok("exec", "box", "sh", "-c", SHOW) == "corten-default (enforce)"
    assert daemon.ok("exec", "box", "cat", "/proc/self/attr/current") == "corten-default (enforce)"
    assert daemon.ok("exec", "--privileged", "box", "cat", "/proc/self/attr/current") == "unconfined"
    # From outside, and from one process of the container to another.
    assert daemon.ok("exec", "box", "sh", "-c", "sleep 99 & kill -9 $!; wait $!; echo $?") == "137"
    daemon.ok("kill", "box")
    assert daemon.ok("wait", "box") == "137"


def test_with_an_init(daemon: Daemon) -> None:
    started(daemon, "--init")
    assert "corten-default (enforce)" in daemon.ok("exec", "box", "sh", "-c", "cat /proc/[0-9]*/attr/current")
    daemon.ok("stop", "box")
    assert daemon.inspect("box")["State"]["ExitCode"] == 143


def test_what_the_default_profile_forbids(daemon: Daemon) -> None:
    """Each succeeds in the same container without the profile."""
    script = """
        mount -t tmpfs t /mnt && echo mounted
        cat /proc/sys/vm/stat_interval > /tmp/v && cat /tmp/v > /proc/sys/vm/stat_interval && echo written
        head -c1 /proc/kcore > /dev/null && echo read
        echo 4096 > /proc/sys/kernel/shmmni && echo ours
    """
    options = ["--cap-add", "SYS_ADMIN", "--cap-add", "SYS_RAWIO"]
    options += ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"]
    run = ("sh", "-c", "mkdir -p /mnt; mount -o remount,rw /proc/sys 2>/dev/null;" + script)
    free = daemon.docker("run", "--rm", *options, "--security-opt", "apparmor=unconfined", "busybox", *run)
    assert free.lines == ["mounted", "written", "read", "ours"], free.err
    bound = daemon.docker("run", "--rm", *options, "busybox", *run)
    assert bound.lines == ["ours"], bound.err
    assert bound.err.count("ermission denied") == 3, bound.err


def test_privileged_containers_are_not_confined(daemon: Daemon) -> None:
    started(daemon, "--privileged")
    assert daemon.ok("exec", "box", "sh", "-c", SHOW) == "unconfined"
    assert daemon.inspect("box")["AppArmorProfile"] == "unconfined"


@pytest.mark.parametrize("options", [(), ("--privileged",)])
def test_a_profile_of_the_user(daemon: Daemon, options: tuple[str, ...]) -> None:
    started(daemon, *options, "--security-opt", f"apparmor={OWN}")
    assert daemon.inspect("box")["AppArmorProfile"] == OWN
    assert daemon.ok("exec", "box", "sh", "-c", SHOW) == f"{OWN} (enforce)"
    assert daemon.ok("exec", "box", "cat", "/etc/passwd")
    refused = daemon.docker("exec", "box", "cat", "/etc/group")
    assert (refused.code, refused.out) == (1, "")
    assert "Permission denied" in refused.err


def test_a_profile_that_is_not_loaded(daemon: Daemon) -> None:
    done = daemon.docker("run", "--name", "box", "--security-opt", "apparmor=nobody-has-it", "busybox", "true")
    assert done.code in (125, 126, 127)
    assert "nobody-has-it" in done.err


def test_no_new_privileges_under_the_profile(daemon: Daemon) -> None:
    run = ("run", "--rm", "--security-opt", "no-new-privileges", "busybox", "cat", "/proc/self/attr/current")
    assert daemon.ok(*run) == "corten-default (enforce)"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    remove_parents(os.path.dirname(made.cgroup))


def test_the_field_of_the_specification(lab: Lab) -> None:

    def confine(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.apparmor_profile = OWN

    script = "cat /proc/self/attr/current; cat /etc/group"
    outcome = lab.run("sh", "-c", script, change=confine)
    assert outcome.failure is None
    assert outcome.out == f"{OWN} (enforce)\n"
    assert "Permission denied" in outcome.err

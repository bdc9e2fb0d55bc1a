"""What follows a failing health check, with the real docker command and with corten."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.compat.harness import Daemon
from tests.waiting import until

OFTEN = ("--health-interval", "100ms", "--health-retries", "1")
SICK = ("--health-cmd", "test -e /well", *OFTEN)


def ended(daemon: Daemon, name: str) -> dict[str, Any]:
    """State of a container, once it has ended."""
    until(lambda: daemon.inspect(name)["State"]["Status"] == "exited", what=f"the end of {name}")
    state: dict[str, Any] = daemon.inspect(name)["State"]
    return state


def events(daemon: Daemon, name: str) -> list[str]:
    past = ("--since", "1", "--until", f"{time.time():.9f}")
    return daemon.ok("events", *past, "--filter", f"container={name}", "--format", "{{.Action}}").splitlines()


def actions(daemon: Daemon, name: str) -> list[str]:
    return [action for action in events(daemon, name) if not action.startswith("exec_")]


def test_restart_by_a_label_until_it_is_well(daemon: Daemon) -> None:
    """What the docker command can say of it."""
    label = "corten.health-on-failure=restart"
    daemon.ok("run", "-d", "--name", "again", *SICK, "--stop-timeout", "0", "-l", label, "busybox", "sleep", "99")
    until(lambda: daemon.inspect("again")["RestartCount"] >= 2, what="two restarts")
    told = actions(daemon, "again")
    assert told[:8] == [
        "create",
        "start",
        "health_status: unhealthy",
        "health_on_failure: restart",
        "kill",
        "kill",
        "die",
        "start",
    ]
    assert daemon.inspect("again")["Config"]["Healthcheck"]["OnFailure"] == "restart"
    until(lambda: daemon.docker("exec", "again", "touch", "/well").code == 0, what="the cure")
    until(lambda: daemon.inspect("again")["State"]["Health"]["Status"] == "healthy", what="health")
    daemon.ok("stop", "-t", "0", "again")
    assert daemon.inspect("again")["State"]["Status"] == "exited"


@pytest.mark.parametrize(("action", "code"), [("stop", 0), ("kill", 137)])
def test_stop_and_kill(daemon: Daemon, action: str, code: int) -> None:
    trap = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done")
    said = daemon.corten("run", "-d", "--name", action, *SICK, "--health-on-failure", action, "busybox", *trap)
    assert said.code == 0, said.err
    assert ended(daemon, action)["ExitCode"] == code
    assert f"health_on_failure: {action}" in actions(daemon, action)


def test_the_choice_adds_to_what_the_image_checks(daemon: Daemon) -> None:
    daemon.ok("create", "--name", "base", "busybox")
    check = 'HEALTHCHECK --interval=100ms --retries=1 CMD ["false"]'
    daemon.ok("commit", "-c", check, "-c", 'CMD ["sleep", "99"]', "base", "checked")
    try:
        said = daemon.corten("run", "-d", "--name", "both", "--health-on-failure", "kill", "checked")
        assert said.code == 0, said.err
        assert ended(daemon, "both")["ExitCode"] == 137
        health = daemon.inspect("both")["Config"]["Healthcheck"]
        assert health == {"Test": ["CMD", "false"], "Interval": 100_000_000, "Retries": 1, "OnFailure": "kill"}
    finally:
        daemon.ok("rm", "-f", "base", "both")
        daemon.ok("rmi", "checked")


def test_update_of_a_container_that_runs(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "live", *SICK, "busybox", "sleep", "99")
    until(lambda: daemon.inspect("live")["State"]["Health"]["Status"] == "unhealthy", what="the failure")
    refused = daemon.corten("update", "--health-on-failure", "reboot", "live")
    assert refused.code == 1
    assert "invalid health-on-failure 'reboot'" in refused.err
    assert daemon.corten("update", "--health-on-failure", "kill", "live").out == "live\n"
    assert ended(daemon, "live")["ExitCode"] == 137


def test_without_a_check_there_is_nothing_to_do(daemon: Daemon) -> None:
    refused = daemon.corten("run", "--rm", "--health-on-failure", "kill", "busybox", "true")
    assert refused.code == 125
    assert "health-on-failure 'kill' needs a health check" in refused.err
    warned = daemon.docker("create", "--name", "warned", "-l", "corten.health-on-failure=kill", "busybox")
    assert "WARNING: The label corten.health-on-failure has no effect" in warned.err
    refused = daemon.docker("run", "--rm", *SICK, "-l", "corten.health-on-failure=restart", "busybox", "true")
    assert "can't create 'AutoRemove' container" in refused.err


def test_nothing_is_asked_of_a_paused_container(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "frozen", "--health-cmd", "true", *OFTEN, "busybox", "sleep", "99")
    until(lambda: daemon.inspect("frozen")["State"]["Health"]["Status"] == "healthy", what="health")
    daemon.ok("pause", "frozen")
    before = json.loads(daemon.ok("inspect", "-f", "{{json .State.Health}}", "frozen"))
    # Ten intervals of another container: by then this one would have been asked ten times.
    daemon.ok("run", "-d", "--name", "other", "--health-cmd", "true", *OFTEN, "busybox", "sleep", "99")
    until(lambda: events(daemon, "other").count("exec_die") >= 10, what="ten probes")
    assert json.loads(daemon.ok("inspect", "-f", "{{json .State.Health}}", "frozen")) == before
    assert before["Status"] == "healthy"
    daemon.ok("unpause", "frozen")
    until(
        lambda: daemon.inspect("frozen")["State"]["Health"]["Log"][-1]["Start"] > before["Log"][-1]["End"],
        what="another probe",
    )


@pytest.mark.parametrize(
    ("command", "flags", "code", "output"),
    [
        ("sleep 9", ("--health-timeout", "200ms"), -1, "Health check exceeded timeout (200ms)"),
        ("echo so far; sleep 9", ("--health-timeout", "1500ms"), -1, "Health check exceeded timeout (1.5s): so far\n"),
        ("head -c 9000 /dev/zero | tr '\\0' x", (), 0, "x" * 4096 + "..."),
        ("head -c 4096 /dev/zero | tr '\\0' x; exit 2", (), 2, "x" * 4096),
    ],
)
def test_what_is_kept_of_a_check(daemon: Daemon, command: str, flags: tuple[str, ...], code: int, output: str) -> None:
    daemon.ok("run", "-d", "--name", "box", "--health-cmd", command, *OFTEN, *flags, "busybox", "sleep", "99")
    until(lambda: daemon.inspect("box")["State"]["Health"]["Log"], what="a result")
    result = daemon.inspect("box")["State"]["Health"]["Log"][0]
    assert (result["ExitCode"], result["Output"]) == (code, output)


def test_no_policy_for_what_goes_by_itself(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--rm", "--name", "box", "busybox", "sleep", "99")
    refused = daemon.docker("update", "--restart", "always", "box")
    words = f"{daemon.inspect('box')['Id']}: Restart policy cannot be updated because AutoRemove is enabled"
    assert f"Cannot update container {words} for the container" in refused.err
    daemon.ok("update", "--restart", "no", "box")

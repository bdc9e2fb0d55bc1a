"""`--link` on the default network, with the real docker command and with corten."""

from __future__ import annotations

import json

import pytest

from tests.compat.harness import Daemon
from tests.waiting import until

SLEEP = ("sleep", "1000")


@pytest.fixture
def linked(daemon: Daemon) -> Daemon:
    """`db` runs, and `web`, which calls it sql."""
    daemon.ok("run", "-d", "--name", "db", "-h", "dbhost", "-e", "PW=x", "--expose", "5432", "busybox", *SLEEP)
    daemon.ok("run", "-d", "--name", "web", "--link", "db:sql", "busybox", *SLEEP)
    return daemon


def hosts(daemon: Daemon, name: str = "web") -> list[str]:
    return [line for line in daemon.ok("exec", name, "cat", "/etc/hosts").splitlines() if "sql" in line]


def address(daemon: Daemon, name: str) -> str:
    found: str = daemon.inspect(name)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    return found


def test_what_the_linking_container_sees(linked: Daemon) -> None:
    ip = address(linked, "db")
    assert hosts(linked) == [f"{ip}\tsql dbhost db"]
    # The first process and those that follow it.
    for command in (("exec", "web", "env"), ("exec", "web", "cat", "/proc/1/environ")):
        variables = linked.ok(*command).replace("\0", "\n").splitlines()
        assert [entry for entry in variables if entry.startswith("SQL")] == [
            f"SQL_PORT=tcp://{ip}:5432",
            f"SQL_PORT_5432_TCP=tcp://{ip}:5432",
            f"SQL_PORT_5432_TCP_ADDR={ip}",
            "SQL_PORT_5432_TCP_PORT=5432",
            "SQL_PORT_5432_TCP_PROTO=tcp",
            "SQL_NAME=/web/sql",
            "SQL_ENV_PW=x",
        ]
    linked.ok("exec", "web", "ping", "-c", "1", "sql")


def test_what_docker_shows_and_finds(linked: Daemon) -> None:
    assert linked.ok("inspect", "-f", "{{json .HostConfig.Links}}", "web") == '["/db:/web/sql"]'
    for run in (linked.docker, linked.corten):
        assert run("ps", "--no-trunc", "--format", "{{.Names}}").lines == ["web", "db,web/sql"]
        assert run("ps", "--format", "{{.Names}}").lines == ["web", "db"]
        for ref in ("web/sql", "/web/sql"):
            assert run("inspect", "-f", "{{.Name}}", ref).out == "/db\n"
            assert run("exec", ref, "hostname").out == "dbhost\n"
        assert run("top", "web/sql").code == 0
        assert run("logs", "web/sql").code == 0
        assert run("restart", "-t", "0", "web/sql").out == "web/sql\n"
    assert linked.ok("ps", "-q", "--filter", "name=sql") == ""
    assert json.loads(linked.curl("/containers/db/json").out)["HostConfig"]["Links"] is None


def test_the_target_comes_back_elsewhere(linked: Daemon) -> None:
    first = address(linked, "db")
    linked.ok("stop", "-t", "0", "db")
    for done in (linked.docker("exec", "web", "true"), linked.docker("restart", "-t", "0", "web")):
        assert "Cannot link to a non running container: /db AS /web/sql" in done.err
        assert done.code == 1
    linked.ok("run", "-d", "--name", "taker", "busybox", *SLEEP)
    linked.ok("start", "db")
    linked.ok("start", "web")
    linked.ok("stop", "-t", "0", "db")
    linked.ok("run", "-d", "--name", "taker2", "busybox", *SLEEP)
    linked.ok("start", "db")
    second = address(linked, "db")
    assert second != first
    assert hosts(linked) == [f"{second}\tsql dbhost db"]
    linked.ok("exec", "web", "ping", "-c", "1", "sql")
    assert f"SQL_PORT_5432_TCP_ADDR={second}" in linked.ok("exec", "web", "env").splitlines()


def test_the_start_of_a_target_that_others_need_first(daemon: Daemon) -> None:
    daemon.ok("create", "--name", "db", "busybox", *SLEEP)
    for run in (daemon.docker, daemon.corten):
        refused = run("run", "--name", "web", "--link", "db", "busybox", "true")
        assert refused.code == 125
        assert "Cannot link to a non running container: /db AS /web/db" in refused.err
        state = daemon.inspect("web")["State"]
        assert (state["Status"], state["ExitCode"]) == ("created", 128)
        daemon.ok("rm", "web")


def test_names_change(linked: Daemon) -> None:
    linked.ok("rename", "web/sql", "db2")
    linked.ok("rename", "web", "web2")
    assert linked.inspect("web2")["HostConfig"]["Links"] == ["/db2:/web2/sql"]
    assert linked.inspect("web2/sql")["Name"] == "/db2"
    assert linked.docker("inspect", "web/sql").code == 1
    linked.ok("restart", "-t", "0", "web2")
    assert hosts(linked, "web2") == [f"{address(linked, 'db2')}\tsql dbhost db2"]
    assert "SQL_NAME=/web2/sql" in linked.ok("exec", "web2", "env").splitlines()


@pytest.mark.parametrize("tool", ["docker", "corten"])
def test_a_link_is_removed(linked: Daemon, tool: str) -> None:
    run = linked.docker if tool == "docker" else linked.corten
    for ref in ("web", "/web"):
        refused = run("rm", "--link", ref)
        assert refused.code == 1
        assert "Conflict, cannot remove the default link name of the container" in refused.err
    assert "No such container: web/nope" in run("rm", "--link", "/web/nope").err
    assert run("rm", "--link", "/web/sql").out == "/web/sql\n"
    assert hosts(linked) == []
    assert linked.inspect("web")["HostConfig"]["Links"] is None
    assert linked.ok("ps", "--no-trunc", "--format", "{{.Names}}").split() == ["web", "db"]
    linked.ok("restart", "-t", "0", "web")
    assert hosts(linked) == []
    assert "SQL" not in linked.ok("exec", "web", "env")


@pytest.mark.parametrize("tool", ["docker", "corten"])
def test_refusals(daemon: Daemon, tool: str) -> None:
    run = daemon.docker if tool == "docker" else daemon.corten
    daemon.ok("run", "-d", "--name", "db", "busybox", *SLEEP)
    daemon.ok("run", "-d", "--name", "outside", "--network", "host", "busybox", *SLEEP)
    daemon.ok("run", "-d", "--name", "alone", "--network", "none", "busybox", *SLEEP)
    undefined = "can't be used with links. This would result in undefined behavior"
    for flags, words in (
        (("--link", "nosuch"), "could not get container for nosuch: No such container: nosuch"),
        (("--link", "a:b:c"), 'invalid argument "a:b:c" for "--link" flag: bad format for links: a:b:c'),
        (("--link", ""), 'invalid argument "" for "--link" flag: empty string specified for links'),
        (("--link", "db:.."), "bad format for links: db:.."),
        (("--link", "outside"), f"conflicting options: host type networking {undefined}"),
        (("--link", "alone"), "Cannot link to /alone, as it does not belong to the default network"),
        (("--network", "host", "--link", "db"), f"conflicting options: host type networking {undefined}"),
        (("--network", "container:db", "--link", "db"), f"conflicting options: container type network {undefined}"),
    ):
        done = run("run", "--rm", *flags, "busybox", "true")
        assert (done.code, words in done.err) == (125, True), f"{flags}: {done.code} {done.err}"
    assert daemon.ok("ps", "-a", "--format", "{{.Names}}").split() == ["alone", "outside", "db"]


def test_a_body_that_no_command_sends(daemon: Daemon) -> None:
    for text, words in (("a:b:c", "bad format for links: a:b:c"), ("", "empty string specified for links")):
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Links": [text]}}
        answer = daemon.curl("/containers/create", "POST", body)
        assert (answer.code, json.loads(answer.out)["message"]) == (400, words)


def test_two_daemons_lives(own_daemon: Daemon) -> None:
    """Links are on record: the daemon is killed, everything stopped, the target renamed, removed."""
    daemon = own_daemon
    flags = ("-d", "--restart", "always")
    daemon.ok("run", *flags, "--name", "db", "busybox", *SLEEP)
    daemon.ok("run", *flags, "--name", "web", "--link", "db:sql", "busybox", *SLEEP)
    daemon.ok("rename", "db", "db2")
    daemon.kill()
    daemon.start()
    assert daemon.inspect("web")["HostConfig"]["Links"] == ["/db2:/web/sql"]
    assert daemon.inspect("/web/sql")["Name"] == "/db2"
    # As after a power cut of the host: both start again, the one that is needed first.
    pids = [daemon.inspect(name)["State"]["Pid"] for name in ("web", "db2")]
    daemon.kill()
    daemon.host.run("kill", "-9", *map(str, pids))
    daemon.start()
    until(lambda: daemon.ok("ps", "-q", "--filter", "status=running").count("\n") == 1, what="both run again")
    ip = address(daemon, "db2")
    assert f"{ip}\tsql {daemon.inspect('db2')['Config']['Hostname']} db2" in hosts(daemon)
    daemon.ok("rm", "-f", "db2")
    daemon.stop()
    daemon.start()
    assert daemon.inspect("web")["HostConfig"]["Links"] == ["/db2:/web/sql"]
    refused = daemon.docker("restart", "-t", "0", "web")
    assert "Cannot link to a non running container: /db2 AS /web/sql" in refused.err
    daemon.ok("rm", "--link", "web/sql")
    daemon.ok("start", "web")

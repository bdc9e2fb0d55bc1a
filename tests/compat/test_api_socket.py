"""`--use-api-socket`: corten does what the docker command does, to the letter of config.json."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.compat.harness import Daemon, Outcome

TOOLS = (("docker",), (sys.executable, "-m", "corten.cli.main"))
SHOW = (
    "echo $DOCKER_CONFIG; cat /run/secrets/docker/config.json; ls -l /run/secrets/docker; "
    "stat -c %F /var/run/docker.sock"
)
FILED = {
    "auths": {
        "https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNz"},
        "b.example:5000": {"auth": "dTpw", "identitytoken": "tok"},
        "a.example": {},
    },
    "credHelpers": {"h.example": "known", "m.example": "unknown"},
    "psFormat": "{{.ID}}",
}
STORED = {"auths": {"lost.example": {"auth": "dTpw"}}, "credsStore": "known"}
HELPERS = {
    "known": """case $1 in
list) echo '{"s.example":"name"}';;
get) read s; echo "{\\"ServerURL\\":\\"$s\\",\\"Username\\":\\"name\\",\\"Secret\\":\\"word\\"}";;
esac""",
    "unknown": 'read s; echo "credentials not found in native keychain"; exit 1',
    "broken": "exit 1",
}


@pytest.fixture
def helpers(tmp_path: Path) -> str:
    """A PATH with the helpers in front."""
    for name, text in HELPERS.items():
        program = tmp_path / f"bin/docker-credential-{name}"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    return f"{tmp_path}/bin:{os.environ['PATH']}"


def run(daemon: Daemon, tool: tuple[str, ...], *args: str, **env: str) -> Outcome:
    return daemon.host.run(*tool, *args, env={**os.environ, "DOCKER_HOST": daemon.url, **env})


def configured(tmp_path: Path, content: object) -> str:
    (tmp_path / "config.json").write_text(json.dumps(content))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("content", "environment"),
    [(FILED, ""), (STORED, ""), ({}, ""), (FILED, '{"auths":{"z.example":{"auth":"dTpw"}}}'), (FILED, '{"auths":{}}')],
    ids=["filed", "stored", "nothing", "environment", "empty-environment"],
)
def test_what_is_in_the_container(
    daemon: Daemon, tmp_path: Path, helpers: str, content: object, environment: str
) -> None:
    env = {"DOCKER_CONFIG": configured(tmp_path, content), "PATH": helpers, "DOCKER_AUTH_CONFIG": environment}
    docker, corten = (
        run(daemon, tool, "run", "--rm", "--use-api-socket", "busybox", "sh", "-c", SHOW, **env) for tool in TOOLS
    )
    assert corten.out == docker.out
    assert corten.code == docker.code == 0
    assert corten.out.endswith("socket\n")
    if content:
        assert "-rw-------" in corten.out
        assert "lost.example" not in corten.out
        assert "psFormat" not in corten.out
    else:
        assert corten.out == "\nsocket\n"


def test_what_is_asked_for(daemon: Daemon, tmp_path: Path) -> None:
    """A configuration that the user names is left alone; other mounts and variables stay in front."""
    seen = []
    for tool in TOOLS:
        flags = ("--mount", "type=tmpfs,dst=/q", "-e", "A=b", "-e", "DOCKER_CONFIG=/x")
        done = run(daemon, tool, "create", "--name", "asks", "--use-api-socket", *flags, "busybox", "true",
                   DOCKER_CONFIG=configured(tmp_path, FILED))  # fmt: skip
        assert done.code == 0, done.err
        found = daemon.inspect("asks")
        seen.append((found["HostConfig"]["Mounts"], found["Config"]["Env"]))
        daemon.ok("rm", "asks")
    assert seen[0] == seen[1]
    assert [mount["Target"] for mount in seen[1][0]] == ["/q", "/var/run/docker.sock"]
    assert seen[1][1] == ["A=b", "DOCKER_CONFIG=/x"]


def test_what_cannot_be(daemon: Daemon, tmp_path: Path, helpers: str) -> None:
    filed = {"DOCKER_CONFIG": configured(tmp_path, {"auths": FILED["auths"]})}
    broken = tmp_path / "broken"
    broken.mkdir()
    cases: tuple[tuple[tuple[str, ...], dict[str, str], str], ...] = (
        (
            ("--read-only",),
            filed,
            "injecting docker config.json into container failed: copying config.json into container failed: "
            "Error response from daemon: container rootfs is marked read-only",
        ),
        ((), {"DOCKER_AUTH_CONFIG": "junk"}, "resolving credentials failed: "),
        (
            (),
            {"DOCKER_CONFIG": configured(broken, {"credsStore": "broken"}), "PATH": helpers},
            "resolving credentials failed: ",
        ),
        ((), {"DOCKER_HOST": "tcp://127.0.0.1:1"}, "docker endpoint tcp://127.0.0.1:1 incompatible"),
    )
    for flags, env, words in cases:
        for tool in TOOLS:
            if "DOCKER_HOST" in env and tool == ("docker",):
                continue  # it asks the daemon for its version first
            for verb, code in (("run", 125), ("create", 1)):
                done = run(daemon, tool, verb, *flags, "--use-api-socket", "busybox", "true", **env)
                assert (done.code, words in done.err) == (code, True), f"{tool} {verb} {env}: {done.err}"

"""Every image command of the docker that is installed is one of ours with all its flags, as its help has them."""

from __future__ import annotations

import re
import subprocess

import pytest

from corten.cli.main import load
from corten.cli.table import find
from tests import docker_client

# Words of `docker GROUP` that we have not: they come with the builder.
TO_COME = {"image": {"build"}, "manifest": set[str]()}
COMMANDS = [
    "commit",
    "history",
    "image history",
    "image import",
    "image inspect",
    "image load",
    "image ls",
    "image prune",
    "image pull",
    "image push",
    "image rm",
    "image save",
    "image tag",
    "images",
    "import",
    "load",
    "login",
    "logout",
    "manifest annotate",
    "manifest create",
    "manifest inspect",
    "manifest push",
    "manifest rm",
    "pull",
    "push",
    "rmi",
    "save",
    "search",
    "system df",
    "tag",
]
_FLAG = re.compile(r" {2,6}(?:-(\w), |    )--([a-z0-9-]+)(?: ([\w-]+))?(?: {2,}.*)?")


def told(command: str) -> str:
    done = subprocess.run(["docker", *command.split(), "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def flags_of(text: str) -> dict[str, tuple[str, bool]]:
    """Short form and whether it takes a value, of each flag."""
    found = [match for line in text.splitlines() if (match := _FLAG.fullmatch(line))]
    return {match[2]: (match[1] or "", match[3] is not None) for match in found}


def test_the_reading_of_docker_s_help() -> None:
    text = (
        "Usage:  docker x\n\nOptions:\n  -a, --all-tags             Words --not-one\n      --format string   More\n"
        "                        --neither\n  -q, --quiet\n      --host list\n"
    )
    assert flags_of(text) == {
        "all-tags": ("a", False),
        "format": ("", True),
        "quiet": ("q", False),
        "host": ("", True),
    }


@pytest.mark.parametrize("called", COMMANDS)
def test_a_command_has_dockers_flags_and_names(called: str) -> None:
    text = told(called)
    _, path, rest = find(called.split())
    assert path, "there is no such command"
    assert rest == []
    command = load(path)
    ours = {flag.name: (flag.short, flag.kind != "bool") for flag in command.flags}
    theirs = flags_of(text)
    assert theirs or called in ("tag", "image tag", "logout", "manifest rm")
    assert {name: ours.get(name) for name in theirs} == theirs
    aliases = text.partition("Aliases:\n")[2].partition("\n\n")[0]
    for alias in aliases.split(","):
        words = alias.split()[1:]
        assert not words or find(words)[1] == path
    if docker_client.major_version() >= 28:
        usage = re.search(r"Usage: +docker (.*)", text)
        assert usage is not None
        assert f"{called} {command.usage}".strip() == usage[1]


@pytest.mark.parametrize("group", TO_COME)
def test_a_group_has_dockers_commands(group: str) -> None:
    listed = told(group).partition("Commands:\n")[2].partition("\n\n")[0]
    words = {line.split()[0] for line in listed.splitlines()}
    assert words >= {"inspect", "rm"}
    assert {word for word in words if not find([group, word])[1]} == TO_COME[group]

"""What dockerd 20.10 was seen to print, line by line: for those who read it with a program.

Taken from transcripts of the docker command at a real dockerd, with patterns in the place of what differs from run to
run; both command lines have to say the same.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import pytest

from tests.compat.harness import Daemon, Outcome
from tests.compat.registry import Registry

ID = "[0-9a-f]{12}"
DIGEST = "sha256:[0-9a-f]{64}"
SIZE = r"\d+(\.\d+)?(B|kB|MB)"
AGO = r"(Less than a second|\d+ seconds?|About a minute|\d+ minutes?) ago"
BOX = "127.0.0.1:5000/test/box"
OLD = {**os.environ, "DOCKER_API_VERSION": "1.41"}

SETTLED = ["Pull complete", "Already exists"]
PROGRESS = ["Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting"]


@pytest.fixture
def registry(daemon: Daemon) -> Iterator[Registry]:
    with Registry(daemon) as registry:
        yield registry


@pytest.fixture(params=["docker", "corten"])
def client(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def call(daemon: Daemon, client: str, *words: str) -> Outcome:
    return (daemon.docker if client == "docker" else daemon.corten)(*words)


def shows(lines: list[str], *patterns: str) -> None:
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_pull(daemon: Daemon, client: str, registry: Registry) -> None:
    first = call(daemon, client, "pull", registry.image)
    begin, *layers, digest, status, name = first.lines
    shows([begin, digest, status, name], "1: Pulling from test/box", f"Digest: {DIGEST}",
          f"Status: Downloaded newer image for {BOX}:1", f"{BOX}:1")  # fmt: skip
    steps: dict[str, list[str]] = {}
    for line in layers:
        assert re.fullmatch(f"{ID}: .+", line), line
        steps.setdefault(line[:12], []).append(line[14:])
    assert steps
    for said in steps.values():
        assert said[0] in ("Pulling fs layer", "Already exists")
        assert said[-1] in SETTLED
        assert [step for step in PROGRESS if step in said] == [step for step in said if step not in SETTLED]
    again = call(daemon, client, "pull", registry.image)
    shows(again.lines, "1: Pulling from test/box", digest, f"Status: Image is up to date for {BOX}:1", f"{BOX}:1")
    shows(call(daemon, client, "pull", "-q", registry.image).lines, f"{BOX}:1")
    none = call(daemon, client, "pull", f"{BOX}:none")
    assert (none.code, none.out) == (1, "")
    assert none.err.splitlines()[0] == (
        f"Error response from daemon: manifest for {BOX}:none not found: manifest unknown: manifest unknown"
    )
    bad = call(daemon, client, "pull", "--platform", "a/b/c/d", registry.image)
    assert '"a/b/c/d": cannot parse platform specifier: invalid argument' in bad.err
    daemon.ok("rmi", registry.image)


def test_push_and_untag(daemon: Daemon, client: str, registry: Registry) -> None:
    new = f"{BOX}-{client}"
    daemon.ok("tag", "busybox", f"{new}:1")
    first = call(daemon, client, "push", f"{new}:1").lines
    shows(
        first,
        rf"The push refers to repository \[{new}\]",
        f"{ID}: Preparing",
        f"{ID}: (Pushed|Mounted from test/box)",
        rf"1: digest: {DIGEST} size: \d+",
    )
    digest = first[-1].split()[2]
    assert f"{new}@{digest}" in daemon.inspect(f"{new}:1")["RepoDigests"]
    again = call(daemon, client, "push", f"{new}:1").lines
    shows(again, re.escape(first[0]), f"{ID}: Preparing", f"{ID}: Layer already exists", re.escape(first[-1]))
    shows(call(daemon, client, "push", "-q", f"{new}:1").lines, f"{new}:1")
    none = call(daemon, client, "push", f"{new}:none")
    assert f"tag does not exist: {new}:none" in none.err
    assert none.code == 1
    removed = call(daemon, client, "rmi", f"{new}:1").lines
    shows(removed, f"Untagged: {new}:1", f"Untagged: {new}@{digest}")
    none = call(daemon, client, "push", f"{new}:1")
    assert f"An image does not exist locally with the tag: {new}" in none.err


def test_lists(daemon: Daemon, client: str) -> None:
    daemon.ok("tag", "busybox", "listed:1")
    shown = call(daemon, client, "images", "listed").lines
    shows(shown, r"REPOSITORY +TAG +IMAGE ID +CREATED +SIZE", f"listed +1 +{ID} +{AGO} +{SIZE}")
    shown = call(daemon, client, "images", "--digests", "--no-trunc", "listed").lines
    shows(shown, r"REPOSITORY +TAG +DIGEST +IMAGE ID +CREATED +SIZE", f"listed +1 +<none> +{DIGEST} +{AGO} +{SIZE}")
    shows(call(daemon, client, "images", "-q", "--no-trunc", "listed").lines, DIGEST)
    (row,) = map(json.loads, call(daemon, client, "images", "--format", "{{json .}}", "listed").lines)
    keys = "Containers CreatedAt CreatedSince Digest ID Repository SharedSize Size Tag UniqueSize".split()
    assert row.keys() - {"VirtualSize"} == set(keys)
    assert [row[key] for key in ("Containers", "Digest", "SharedSize", "UniqueSize")] == ["N/A", "<none>", "N/A", "N/A"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC", row["CreatedAt"])
    for option, word in (("bogus=1", "bogus"), ("dangling=maybe", r"dangling=\[maybe\]"), ("label!=x", "label!")):
        refused = call(daemon, client, "images", "--filter", option)
        assert re.search(f"invalid filter '{word}'", refused.err), refused.err
        assert refused.code == 1
    refused = call(daemon, client, "images", "--filter", "since=nothing")
    assert "No such image: nothing:latest" in refused.err
    daemon.ok("rmi", "listed:1")


def test_what_an_image_is_made_of(daemon: Daemon, client: str) -> None:
    daemon.ok("run", "--name", "made", "busybox", "sh", "-c", "echo one > /one")
    health = "HEALTHCHECK --interval=5s CMD true"
    daemon.ok("commit", "-m", "one more", "-a", "Ann <ann@example>", "-c", "LABEL k=v", "-c", health, "made", "made:1")
    head, *steps = call(daemon, client, "history", "made:1").lines
    assert re.fullmatch(r"IMAGE +CREATED +CREATED BY +SIZE +COMMENT", head)
    shows(steps, f"{ID} +{AGO} +sh -c echo one > /one +{SIZE} +one more", f"<missing> +{AGO} +{SIZE} +Imported from -")
    rows = [json.loads(line) for line in call(daemon, client, "history", "--format", "{{json .}}", "made:1").lines]
    assert rows[0].keys() == set("Comment CreatedAt CreatedBy CreatedSince ID Size".split())
    shows(call(daemon, client, "history", "-q", "made:1").lines, ID, "<missing>")

    (old,) = json.loads(daemon.host.run("docker", "-H", daemon.url, "image", "inspect", "made:1", env=OLD).out)
    keys = "Id RepoTags RepoDigests Parent Comment Created Container ContainerConfig DockerVersion Author Config"
    keys += " Architecture Os Size VirtualSize GraphDriver RootFS Metadata"
    assert old.keys() == set(keys.split())
    assert (old["Comment"], old["Author"], old["Os"]) == ("one more", "Ann <ann@example>", "linux")
    assert old["Config"]["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}
    assert old["RootFS"]["Type"] == "layers"
    (new,) = json.loads(call(daemon, client, "image", "inspect", "made:1").out)
    assert new["Comment"] == "one more"

    daemon.ok("rm", "made")
    removed = call(daemon, client, "rmi", "made:1").lines
    shows(removed, "Untagged: made:1", f"Deleted: {DIGEST}", f"Deleted: {DIGEST}")


def test_prune(daemon: Daemon, client: str) -> None:
    for text in ("one", "two"):
        daemon.ok("run", "--name", "made", "busybox", "sh", "-c", f"echo {text} > /one")
        daemon.ok("commit", "made", "made:1")
        daemon.ok("rm", "made")
    shown = call(daemon, client, "image", "prune", "-f").lines
    shows(shown, "Deleted Images:", f"deleted: {DIGEST}", f"deleted: {DIGEST}", "", f"Total reclaimed space: {SIZE}")
    assert call(daemon, client, "image", "prune", "-f").out == "Total reclaimed space: 0B\n"
    refused = call(daemon, client, "image", "prune", "-f", "--filter", "bogus=1")
    assert "invalid filter 'bogus'" in refused.err
    daemon.ok("rmi", "made:1")


def test_search(daemon: Daemon, client: str) -> None:
    for words, said in (
        (("--limit", "200", "x"), "limit 200 is outside the range of [1, 100]"),
        (("--filter", "bogus=1", "x"), "invalid filter 'bogus'"),
    ):
        refused = call(daemon, client, "search", *words)
        assert (refused.code, refused.out) == (1, "")
        assert said in refused.err

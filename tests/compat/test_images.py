"""Images that are here: listed, shown, named, saved, loaded and removed by the docker command and by ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import docker_client
from tests.compat.harness import BUSYBOX, Daemon, Outcome
from tests.compat.images import two_platforms
from tests.waiting import until

HERE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
THERE = "s390x"


@pytest.fixture
def place(daemon: Daemon, tmp_path: Path) -> Iterator[Path]:
    """The daemon has nothing but busybox:latest, before and after."""
    yield tmp_path
    others = [
        name for name in daemon.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split() if "busy" not in name
    ]
    if named := [name for name in others if "<none>" not in name]:
        daemon.ok("rmi", "-f", *named)
    daemon.ok("image", "prune", "-f")
    assert daemon.ok("images", "--format", "{{.Repository}}:{{.Tag}}") == "busybox:latest"


@pytest.fixture(params=["docker", "corten"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(daemon: Daemon, client: str, *args: str, **options: Any) -> Outcome:
    done: Outcome = getattr(daemon, client)(*args, **options)
    return done


def listed(daemon: Daemon, client: str, *args: str) -> list[str]:
    done = call(daemon, client, "images", "--format", "{{.Repository}}:{{.Tag}}", *args)
    assert done.code == 0, done.err
    return sorted(done.lines)


def test_filters(daemon: Daemon, place: Path, client: str) -> None:
    daemon.ok("tag", "busybox", "registry.example/team/app:1")
    daemon.ok("tag", "busybox", "other:2")
    two_platforms(place / "multi.tar", "docker.io/library/multi:1", (HERE, THERE))
    daemon.ok("load", "-i", str(place / "multi.tar"))
    assert listed(daemon, client, "oth*") == ["other:2"]
    assert listed(daemon, client, "-f", "reference=*/*/app") == ["registry.example/team/app:1"]
    assert listed(daemon, client, "-f", "reference=o*", "-f", "reference=m*:1") == ["multi:1", "other:2"]
    assert listed(daemon, client, "-f", "label=test=platforms") == ["multi:1"]
    assert listed(daemon, client, "-f", "label=none") == []
    assert listed(daemon, client, "-f", "before=other:2") == ["multi:1"]
    assert "multi:1" not in listed(daemon, client, "-f", "since=multi:1")
    assert listed(daemon, client, "-f", "until=2025-01-01T00:00:00Z") == ["multi:1"]
    assert listed(daemon, client, "-f", "until=2024-01-01") == []
    assert listed(daemon, client, "-f", "dangling=true") == []
    refused = call(daemon, client, "images", "-f", "color=red")
    assert refused.code == 1
    assert "invalid filter 'color'" in refused.err


def test_a_tree_of_platforms(daemon: Daemon, place: Path, client: str) -> None:
    two_platforms(place / "multi.tar", "docker.io/library/multi:1", (HERE, THERE), absent="riscv64")
    daemon.ok("load", "-i", str(place / "multi.tar"))
    done = call(daemon, client, "images", "--tree", "multi")
    assert done.code == 0, done.err
    rows = {line.split()[1]: line.split()[2:] for line in done.lines if "linux/" in line}
    assert list(rows) == [f"linux/{HERE}", f"linux/{THERE}", "linux/riscv64"]
    assert rows[f"linux/{THERE}"][1] != "0B"
    assert rows["linux/riscv64"][1:] == ["0B", "0B"]
    shown = call(daemon, client, "image", "inspect", "--platform", f"linux/{THERE}", "multi:1")
    assert json.loads(shown.out)[0]["Architecture"] == THERE
    assert call(daemon, client, "history", "-q", "--platform", f"linux/{THERE}", "multi:1").code == 0
    refused = call(daemon, client, "image", "inspect", "--platform", "linux/riscv64", "multi:1")
    assert "does not provide the specified platform (linux/riscv64)" in refused.err


def cells(text: str) -> list[list[str]]:
    """The rows of a tree, from its head on. docker puts colours into pipes."""
    plain = re.sub(r"\x1b\[\d+m", "", text)
    rows = plain[plain.index("IMAGE  ") :].splitlines()
    return [re.split(r" {2,}", row.strip()) for row in rows if row.strip()]


def level(rows: list[list[str]]) -> list[list[str]]:
    """Names of one image, which come in any order, apart from what stands behind the last of them."""
    return sorted([part for row in rows for part in (row[:1], row[1:])])


def ageless(told: Outcome) -> list[str]:
    """Its lines in order, without what the clock has to do with: one client is asked after the other."""
    return sorted(re.sub(r"(?:Less than a|About a|\d+) (?:second|minute)s? ago *", "ago ", line) for line in told.lines)


def test_trees_and_lists_as_docker_shows_them(daemon: Daemon, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if docker_client.major_version() < 28:
        pytest.skip("the docker command line is older than 28, and draws no tree or another one")
    monkeypatch.setenv("DOCKER_API_VERSION", daemon.ok("version", "--format", "{{.Client.DefaultAPIVersion}}"))
    other = "registry.example/team/other:2"
    for name, there in (("docker.io/library/multi:1", THERE), (other, "riscv64")):
        two_platforms(place / "multi.tar", name, (HERE, there))
        daemon.ok("load", "-i", str(place / "multi.tar"))
    daemon.ok("rmi", "--platform", "linux/riscv64", other)
    daemon.ok("create", "--name", "user", "busybox", "true")
    for args in (("--tree",), ("--tree", "-a"), ("--tree", "multi"), ("--tree", "-f", f"reference={other}")):
        drawn = cells(daemon.corten("images", *args).out)
        assert level(drawn) == level(cells(daemon.ok("images", *args)))
        platforms = {row[0].partition(" ")[2]: row[2:4] for row in drawn if "linux/" in row[0]}
        # Both names mean one image, in an index of its own each.
        assert set(platforms) >= {f"linux/{HERE}", f"linux/{THERE}", "linux/riscv64"}
        assert platforms["linux/riscv64"] == ["0B", "0B"]
    for line in ("images multi", "images --digests", "images --tree -q", "images --tree --format json"):
        theirs, ours = (call(daemon, client, *line.split()) for client in ("docker", "corten"))
        assert (ours.code, ageless(ours), ours.err) == (theirs.code, ageless(theirs), theirs.err)
    assert "<none>" not in daemon.corten("images", "--format", "{{.Repository}}").lines
    assert "Total reclaimed space: 0B" in daemon.ok("image", "prune", "-f")
    shown = daemon.ok("image", "inspect", "--platform", f"linux/{THERE}", "-f", "{{.Architecture}}", "multi:1")
    assert shown == THERE


def test_removal(daemon: Daemon, place: Path, client: str) -> None:
    two_platforms(place / "multi.tar", "docker.io/library/multi:1", (HERE, THERE))
    daemon.ok("load", "-i", str(place / "multi.tar"))
    daemon.ok("tag", "multi:1", "again:1")
    id = daemon.inspect("multi:1")["Id"]
    refused = call(daemon, client, "rmi", id)
    assert (
        f"conflict: unable to delete {id[7:19]} (must be forced) - image is referenced in multiple repo" in refused.err
    )
    assert call(daemon, client, "rmi", "again:1", "none:1").out == "Untagged: again:1\n"
    done = call(daemon, client, "rmi", "--platform", f"linux/{THERE}", "multi:1")
    assert done.out.startswith("Deleted: sha256:")
    assert daemon.ok("images", "-aq", "multi") == id[7:19]
    daemon.ok("create", "--name", "user", "multi:1", "true")
    used = call(daemon, client, "rmi", "multi:1")
    assert 'conflict: unable to remove repository reference "multi:1" (must force) - container' in used.err
    daemon.ok("rm", "user")
    assert call(daemon, client, "rmi", "--no-prune", id[:15]).out.startswith("Untagged: multi:1\nDeleted: sha256:")
    missing = call(daemon, client, "rmi", "multi:1")
    assert missing.code == 1
    assert "No such image: multi:1" in missing.err
    assert call(daemon, client, "rmi", "-f", "multi:1").code == 0


def test_prune(daemon: Daemon, place: Path, client: str) -> None:
    two_platforms(place / "multi.tar", "docker.io/library/multi:1", (HERE, THERE))
    daemon.ok("load", "-i", str(place / "multi.tar"))
    daemon.ok("create", "--name", "keeper", "busybox")
    assert "reclaimed space: 0B" in call(daemon, client, "image", "prune", "-f").out
    no = call(daemon, client, "image", "prune", "-af", "--filter", "label!=test")
    assert "reclaimed space: 0B" in no.out
    none = call(daemon, client, "image", "prune", "-af", "--filter", "until=2023-01-01")
    assert "reclaimed space: 0B" in none.out
    done = call(daemon, client, "image", "prune", "-af", "--filter", "label=test")
    assert "untagged: multi:1" in done.out
    assert "reclaimed space: 0B" not in done.out


def test_save_and_load(daemon: Daemon, place: Path, client: str) -> None:
    two_platforms(place / "multi.tar", "docker.io/library/multi:1", (HERE, THERE))
    daemon.ok("load", "-i", str(place / "multi.tar"))
    daemon.ok("tag", "busybox", "box:2")
    saved = place / "saved.tar"
    assert call(daemon, client, "save", "-o", str(saved), "multi:1", "box:2").code == 0
    with tarfile.open(saved) as tar:
        names = tar.getnames()
    assert {"oci-layout", "index.json", "manifest.json", "repositories"} <= set(names)
    daemon.ok("rmi", "multi:1", "box:2")
    for pack in ("gzip", "xz", "bzip2", "zstd"):
        if shutil.which(pack) is None:
            continue
        with open(place / "packed", "wb") as packed:
            subprocess.run([pack, "-c", str(saved)], stdout=packed, check=True)
        with open(place / "packed", "rb") as packed:
            done = call(daemon, client, "load", stdin=packed)
        assert done.lines == ["Loaded image: multi:1", "Loaded image: box:2"], done.err
        daemon.ok("rmi", "multi:1", "box:2")
    only = call(daemon, client, "load", "--platform", f"linux/{THERE}", "-i", str(place / "multi.tar"))
    assert only.code == 0, only.err
    assert daemon.inspect("multi:1")["Architecture"] == THERE


def test_other_tools_read_what_is_saved(daemon: Daemon, place: Path) -> None:
    daemon.ok("save", "-o", str(place / "saved.tar"), "busybox")
    for source in (f"docker-archive:{place}/saved.tar", f"oci-archive:{place}/saved.tar"):
        copied = subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "-q", source, f"oci:{place}/copy-{source[:3]}:x"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert copied.returncode == 0, copied.stderr
    subprocess.run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "-q",
            f"oci:{place}/copy-oci:x",
            f"docker-archive:{place}/back.tar:box:3",
        ],
        check=True,
    )
    assert daemon.ok("load", "-qi", str(place / "back.tar")) == "Loaded image: box:3"
    assert daemon.ok("run", "--rm", "box:3", "echo", "loaded") == "loaded"


def test_hostile_archives_are_refused(daemon: Daemon, place: Path, client: str) -> None:
    (place / "evil.tar").write_bytes(b"not a tar at all" * 100)
    with tarfile.open(place / "empty.tar", "w"):
        pass
    with tarfile.open(place / "climb.tar", "w") as tar:
        tar.add(place / "evil.tar", "../../../../tmp/corten-climbed")
    for name, words in (("evil.tar", "invalid archive"), ("empty.tar", "index.json"), ("climb.tar", "index.json")):
        done = call(daemon, client, "load", "-i", str(place / name))
        assert done.code == 1, name
        assert words in done.err
    assert not Path("/tmp/corten-climbed").exists()


def test_commit(daemon: Daemon, place: Path, client: str) -> None:
    script = (
        "echo hi > /root/x; rm /etc/notexec; rm -r /home/app; mkdir /home/app; echo n > /home/app/n; echo ready; cat"
    )
    daemon.ok("run", "-di", "--name", "work", "-e", "X=1", "-v", "/data", "busybox", "sh", "-c", script)
    until(lambda: "ready" in daemon.ok("logs", "work"), what="the container's changes")
    changes = ["-c", "ENV Y=2", "-c", 'CMD ["cat", "/root/x"]', "-m", "words", "-a", "somebody"]
    made = call(daemon, client, "commit", *changes, "work", "made:1")
    assert made.code == 0, made.err
    assert made.out.strip() == daemon.inspect("made:1")["Id"]
    assert daemon.inspect("work")["State"]["Status"] == "running"
    assert daemon.ok("run", "--rm", "made:1") == "hi"
    assert daemon.ok("run", "--rm", "made:1", "sh", "-c", "ls /home/app; ls /etc; echo $X$Y").split() == [
        *("n", "group", "hostname", "hosts", "passwd", "resolv.conf", "12")
    ]
    shown = daemon.inspect("made:1")
    assert (shown["Comment"], shown["Author"]) == ("words", "somebody")
    assert shown["Config"]["Volumes"] == {"/data": {}}
    assert shown["Parent"] == daemon.inspect("busybox")["Id"]
    top = daemon.ok("history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "made:1").splitlines()[0]
    assert top == f"sh -c {script}|words"

    def events() -> list[str]:
        window = ("--since", "1m", "--until", "0s", "--filter", "container=work", "--format", "{{.Action}}")
        return daemon.ok("events", *window).split()

    until(lambda: events()[-3:] == ["pause", "unpause", "commit"], what="the events of the commit")
    paused = call(daemon, client, "commit", "--pause=false" if client == "docker" else "--no-pause", "work")
    assert paused.out.startswith("sha256:")
    daemon.ok("save", "-o", str(place / "made.tar"), "made:1")
    daemon.ok("rmi", "made:1")
    daemon.ok("load", "-i", str(place / "made.tar"))
    assert daemon.ok("run", "--rm", "made:1") == "hi"
    assert call(daemon, client, "rmi", "-f", "busybox").out.strip() == "Untagged: busybox:latest"
    daemon.ok("tag", shown["Parent"], "busybox:latest")
    missing = call(daemon, client, "commit", "nothing", "x:1")
    assert "No such container: nothing" in missing.err
    bad = call(daemon, client, "commit", "-c", "RUN true", "work", "x:1")
    assert "RUN is not a valid change command" in bad.err


def test_import(daemon: Daemon, place: Path, client: str) -> None:
    (place / "file").write_text("imported\n")
    with tarfile.open(place / "root.tar", "w") as tar:
        tar.add(place / "file", "file")
    server = subprocess.Popen(
        daemon.host.inside("python3", "-m", "http.server", "-b", "127.0.0.1", "-d", str(place), "8099"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = "http://127.0.0.1:8099/root.tar"
        until(lambda: daemon.host.run(BUSYBOX, "wget", "-qO/dev/null", url).code == 0, what="the web server")
        flags = ["-c", "ENV A=b", "-m", "from the web", "--platform", "linux/arm64"]
        done = call(daemon, client, "import", *flags, url, "web:1")
        assert done.code == 0, done.err
        shown = daemon.inspect("web:1")
        assert (shown["Architecture"], shown["Comment"]) == ("arm64", "from the web")
        missing = call(daemon, client, "import", url + "x", "web:2")
        assert "404" in missing.err
    finally:
        server.kill()
        server.wait()
    with open(place / "root.tar", "rb") as archive:
        done = call(daemon, client, "import", "-c", 'CMD ["x"]', "-", "stdin:1", stdin=archive)
    assert daemon.inspect("stdin:1")["Id"] == done.lines[-1]


_INDEX = """
import http.server, json, sys
ENTRY = {"name": "team/box", "description": "words", "star_count": 5, "is_official": True, "is_automated": False}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"results": [ENTRY]} if self.path.startswith("/v1/search?q=box&") else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", 8098), Handler).serve_forever()
"""


def test_search(daemon: Daemon, client: str) -> None:
    server = subprocess.Popen(daemon.host.inside("python3", "-c", _INDEX), stderr=subprocess.DEVNULL)
    try:
        url = "http://127.0.0.1:8098/"
        until(lambda: daemon.host.run(BUSYBOX, "wget", "-qO/dev/null", url).code == 0, what="the index")
        format_ = "{{.Name}}|{{.Description}}|{{.StarCount}}|{{.IsOfficial}}"
        assert call(daemon, client, "search", "--format", format_, "127.0.0.1:8098/box").lines == [
            "team/box|words|5|[OK]"
        ]
        assert call(daemon, client, "search", "-f", "stars=6", "--format", format_, "127.0.0.1:8098/box").lines == []
        refused = call(daemon, client, "search", "--limit", "101", "127.0.0.1:8098/box")
        assert "limit 101 is outside the range of [1, 100]" in refused.err
    finally:
        server.kill()
        server.wait()

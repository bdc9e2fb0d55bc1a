"""Files into and out of containers, by the docker command line: cp, diff, export."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.compat.harness import Daemon
from tests.waiting import patience, until

MAKE = (
    "mkdir -p /dd/sub; echo hi > /dd/f; ln -s f /dd/l; ln /dd/f /dd/h; ln -s /dd /ld; mkfifo /dd/p; mknod /dd/n c 1 3;"
    " truncate -s 3M /dd/sparse; echo end >> /dd/sparse; chown 1234:1235 /dd/sub; chmod 4711 /dd/f;"
    " echo done; exec sleep 1000"
)
FORMS = ["running", "paused", "stopped", "created"]


@pytest.fixture
def box(daemon: Daemon) -> str:
    """A container with a tree, ready."""
    daemon.ok("run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", MAKE)
    until(lambda: "done" in daemon.ok("logs", "box"), what="the tree")
    return "box"


def into(daemon: Daemon, form: str, *options: str) -> str:
    """A container in a form, without files of its own."""
    name = f"to-{form}"
    daemon.ok("create", "--name", name, "--network", "none", *options, "busybox", "sleep", "1000")
    if form != "created":
        daemon.ok("start", name)
    if form == "paused":
        daemon.ok("pause", name)
    elif form == "stopped":
        daemon.ok("stop", "-t", "0", name)
    return name


def raw(daemon: Daemon, request: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request on a connection of its own."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience(30))
        sock.connect(str(daemon.socket))
        sock.sendall(f"{request} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = http.client.HTTPResponse(sock, method=request.split()[0])
        answer.begin()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def path_stat(headers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(headers["x-docker-container-path-stat"]))
    return found


def packed(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid, info.mode = len(content), 7, 8, 0o640
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_a_tree_comes_out_whole(daemon: Daemon, box: str, tmp_path: Path) -> None:
    daemon.ok("cp", "-a", f"{box}:/dd", str(tmp_path))
    out = tmp_path / "dd"
    assert (out / "f").read_text() == "hi\n"
    assert (out / "f").stat().st_mode & 0o7777 == 0o4711
    assert (out / "f").stat().st_ino == (out / "h").stat().st_ino
    assert os.readlink(out / "l") == "f"
    assert (out / "sparse").read_bytes() == bytes(3 << 20) + b"end\n"
    assert (out / "n").is_char_device()
    assert (out / "p").is_fifo()


@pytest.mark.parametrize(
    ("source", "target", "made"),
    [
        ("/dd", "new", "new/f"),
        ("/dd/.", "flat", "flat/f"),
        ("/dd/f", "file", "file"),
        ("/ld/", "through", "through/f"),
        ("/etc/../dd/./f", "up", "up"),
    ],
)
def test_names_of_what_comes_out(daemon: Daemon, box: str, tmp_path: Path, source: str, target: str, made: str) -> None:
    daemon.ok("cp", f"{box}:{source}", str(tmp_path / target))
    assert (tmp_path / made).read_text() == "hi\n"


def test_a_link_is_copied_as_one_unless_told_to_follow(daemon: Daemon, box: str, tmp_path: Path) -> None:
    daemon.ok("cp", f"{box}:/dd/l", str(tmp_path / "link"))
    assert os.readlink(tmp_path / "link") == "f"
    daemon.ok("cp", "-L", f"{box}:/dd/l", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "hi\n"


def test_to_stdout_as_a_tar(daemon: Daemon, box: str, tmp_path: Path) -> None:
    done = daemon.host.run("sh", "-c", f"docker -H {daemon.url} cp {box}:/dd - > {tmp_path}/out.tar")
    assert done.code == 0, done.err
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = tar.getnames()
        owner = (tar.getmember("dd/sub").uid, tar.getmember("dd/sub").gid)
    assert owner == (1234, 1235)
    assert names[0] == "dd"
    assert "dd/f" in names
    assert names == sorted(names)


@pytest.mark.parametrize("form", FORMS)
def test_both_ways_whatever_the_container_does(daemon: Daemon, tmp_path: Path, form: str) -> None:
    name = into(daemon, form, "-v", "/volume")
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_text("content\n")
    (tree / ("long" * 40)).write_text("long\n")
    os.chown(tree / "deep" / "file", 1234, 1235)
    for place in ("/tmp", "/volume"):
        daemon.ok("cp", "-q", str(tree), f"{name}:{place}")
        daemon.ok("cp", "-q", f"{name}:{place}/tree", str(tmp_path / f"back{place[1:]}"))
        back = tmp_path / f"back{place[1:]}"
        assert (back / "deep" / "file").read_text() == "content\n"
        assert (back / ("long" * 40)).read_text() == "long\n"
    if form == "paused":
        daemon.ok("unpause", name)
    if form in ("stopped", "created"):
        daemon.ok("start", name)
    shown = daemon.ok("exec", name, "stat", "-c", "%u:%g", "/tmp/tree/deep/file", "/volume/tree/deep/file")
    assert shown.split() == ["1234:1235", "1234:1235"]


def test_from_stdin_as_a_tar(daemon: Daemon, box: str) -> None:
    done = daemon.docker("cp", "-", f"{box}:/dd/f", input=packed(x=b"1").decode())
    assert 'destination "box:/dd/f" must be a directory' in done.err
    daemon.ok("cp", "-", f"{box}:/tmp", input=packed(x=b"one\n").decode())
    assert daemon.ok("exec", box, "cat", "/tmp/x") == "one"


def test_places_that_are_mounted(daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "file").write_text("from outside\n")
    options = ["-v", f"{folder}:/bound", "-v", f"{folder}:/locked:ro", "--tmpfs", "/memory"]
    daemon.ok("run", "-d", "--name", "box", "--network", "none", *options, "busybox", "sleep", "1000")
    for place in ("/bound", "/memory", "/dev/shm"):
        daemon.ok("cp", str(tmp_path / "file"), f"box:{place}/f")
        assert daemon.ok("exec", "box", "cat", f"{place}/f") == "from outside"
        daemon.ok("cp", f"box:{place}/f", str(tmp_path / "back"))
        assert (tmp_path / "back").read_text() == "from outside\n"
    assert (folder / "f").read_text() == "from outside\n"
    refused = daemon.docker("cp", str(tmp_path / "file"), "box:/locked/")
    assert (refused.code, "mounted volume is marked read-only" in refused.err) == (1, True)
    daemon.ok("cp", "box:/locked/f", str(tmp_path / "read"))


@pytest.mark.parametrize("form", ["running", "created"])
def test_a_read_only_root(daemon: Daemon, tmp_path: Path, form: str) -> None:
    name = into(daemon, form, "--read-only", "-v", "/volume")
    (tmp_path / "file").write_text("x\n")
    refused = daemon.docker("cp", str(tmp_path / "file"), f"{name}:/tmp/")
    assert (refused.code, "container rootfs is marked read-only" in refused.err) == (1, True)
    daemon.ok("cp", str(tmp_path / "file"), f"{name}:/volume/")
    daemon.ok("cp", f"{name}:/etc/passwd", str(tmp_path / "passwd"))
    assert "root" in (tmp_path / "passwd").read_text()


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("box:/nosuch", "HERE", "Could not find the file /nosuch in container box"),
        ("box:/proc/1/status", "HERE", "Could not find the file /proc/1/status in container box"),
        ("FILE", "box:/nodir/new", "Could not find the file /nodir in container box"),
        ("FILE", "box:/nodir/", "no such directory"),
        ("TREE", "box:/dd/f", "cannot copy directory"),
        ("box:/dd", "box:/tmp", "copying between containers is not supported"),
    ],
)
def test_refusals(daemon: Daemon, box: str, tmp_path: Path, source: str, target: str, words: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "tree").mkdir()
    names = {"HERE": tmp_path, "FILE": tmp_path / "file", "TREE": tmp_path / "tree"}
    done = daemon.docker("cp", str(names.get(source, source)), str(names.get(target, target)))
    assert done.code != 0
    assert words in done.err


def test_the_stat_header(daemon: Daemon, box: str) -> None:
    status, headers, _ = raw(daemon, f"HEAD /containers/{box}/archive?path=/dd/l")
    assert status == 200
    found = path_stat(headers)
    assert (found["name"], found["linkTarget"], found["mode"]) == ("l", "/dd/f", 1 << 27 | 0o777)
    found = path_stat(raw(daemon, f"HEAD /containers/{box}/archive?path=/dd/f")[1])
    assert (found["name"], found["size"], found["mode"], found["linkTarget"]) == ("f", 3, 1 << 23 | 0o711, "")
    assert path_stat(raw(daemon, f"HEAD /containers/{box}/archive?path=/dd/.")[1])["name"] == "."
    assert raw(daemon, f"HEAD /containers/{box}/archive?path=/nosuch")[0] == 404
    assert raw(daemon, f"GET /containers/{box}/archive")[0] == 400
    status, headers, body = raw(daemon, f"GET /containers/{box}/archive?path=/dd/f")
    assert (status, headers["content-type"], path_stat(headers)["name"]) == (200, "application/x-tar", "f")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert tar.getnames() == ["f"]


def test_what_put_answers(daemon: Daemon, box: str) -> None:
    base = f"PUT /containers/{box}/archive"
    assert raw(daemon, f"{base}?path=/nosuch", packed(x=b"1"))[0] == 404
    assert raw(daemon, f"{base}?path=/dd/f", packed(x=b"1"))[0] == 400
    assert raw(daemon, f"{base}?path=/tmp", b"this is no tar")[0] == 400
    status, _, body = raw(daemon, f"{base}?path=/dd&noOverwriteDirNonDir=1", packed(sub=b"1"))
    assert (status, b"cannot overwrite directory" in body) == (400, True)
    assert raw(daemon, f"{base}?path=/dd", packed(sub=b"now a file"))[0] == 200
    assert daemon.ok("exec", box, "cat", "/dd/sub") == "now a file"
    assert raw(daemon, f"{base}?path=/tmp", packed(x=bytes(5 << 20)))[0] == 200
    assert daemon.ok("exec", box, "stat", "-c", "%s %u:%g %a", "/tmp/x") == f"{5 << 20} 7:8 640"


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd"])
def test_archives_may_be_compressed(daemon: Daemon, box: str, program: str) -> None:
    if program == "zstd":
        import zstandard

        body = zstandard.ZstdCompressor().compress(packed(x=b"small\n"))
    else:
        body = subprocess.run([program], input=packed(x=b"small\n"), capture_output=True, check=True).stdout
    assert raw(daemon, f"PUT /containers/{box}/archive?path=/tmp", body)[0] == 200
    assert daemon.ok("exec", box, "cat", "/tmp/x") == "small"
    status, _, told = raw(daemon, f"PUT /containers/{box}/archive?path=/tmp", body[:-6])
    assert (status, b"unexpected EOF" in told) == (400, True)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("box:/dd/f/.", "-", "lstat /dd/f/.: not a directory"),
        ("box:/dd/f/x", "-", "lstat /dd/f/x: not a directory"),
        ("box:/loop/x", "-", "too many links in /loop/x"),
        ("FILE", "box:/etc/", "unpack /etc/hosts: device or resource busy"),
        ("FILE", "box:/taken", 'cannot overwrite directory "/taken/hosts" with non-directory "/taken"'),
    ],
)
def test_what_goes_wrong_is_told_with_its_path(
    daemon: Daemon, box: str, tmp_path: Path, source: str, target: str, words: str
) -> None:
    (tmp_path / "hosts").write_text("x")
    daemon.ok("exec", box, "sh", "-c", "ln -s loop /loop; mkdir -p /taken/hosts")
    done = daemon.docker("cp", source.replace("FILE", str(tmp_path / "hosts")), target)
    assert done.code == 1
    assert words in done.err


def test_copies_for_the_container_user(daemon: Daemon, tmp_path: Path) -> None:
    """Docker looks the name up on the host; here it is the container's own."""
    daemon.ok("run", "-d", "--name", "box", "-u", "app", "--network", "none", "busybox", "sleep", "1000")
    (tmp_path / "file").write_text("x")
    daemon.ok("cp", str(tmp_path / "file"), "box:/tmp/plain")
    daemon.ok("cp", "-a", str(tmp_path / "file"), "box:/tmp/own")
    assert daemon.ok("exec", "box", "stat", "-c", "%u:%g", "/tmp/plain", "/tmp/own").split() == ["0:0", "1000:1000"]


def test_diff(daemon: Daemon) -> None:
    script = (
        "rm /etc/notexec; echo x > /newfile; mkdir -p /opt/a; rm -r /home; mkdir /home; touch /home/b; chmod 700 /root"
    )
    daemon.ok("run", "--name", "box", "--network", "none", "busybox", "sh", "-c", script)
    told = ["C /etc", "D /etc/notexec", "C /home", "D /home/app", "A /home/b", "A /newfile", "A /opt", "A /opt/a"]
    assert daemon.ok("diff", "box").splitlines() == [*told, "C /root"]
    assert daemon.corten("diff", "box").lines == [*told, "C /root"]


@pytest.mark.parametrize("form", ["running", "stopped", "created"])
def test_export_and_import_again(daemon: Daemon, tmp_path: Path, form: str) -> None:
    name = into(daemon, form, "-v", "/volume")
    daemon.ok("cp", "-", f"{name}:/root", input=packed(kept=b"kept\n").decode())
    daemon.ok("export", "-o", str(tmp_path / "a.tar"), name)
    assert daemon.corten("export", "-o", str(tmp_path / "b.tar"), name).code == 0
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
    assert "bin/busybox" in names
    assert not any(name.startswith(("proc/", "sys/", "volume/")) for name in names)
    daemon.ok("import", str(tmp_path / "a.tar"), "again:latest")
    assert daemon.ok("run", "--rm", "--network", "none", "again", "/bin/cat", "/root/kept") == "kept"
    daemon.ok("rmi", "again")


def test_events(daemon: Daemon, box: str, tmp_path: Path) -> None:
    since = daemon.ok("info", "--format", "{{.SystemTime}}")
    daemon.ok("cp", f"{box}:/dd/f", str(tmp_path / "f"))
    daemon.ok("cp", str(tmp_path / "f"), f"{box}:/tmp/")
    daemon.ok("export", "-o", str(tmp_path / "x.tar"), box)
    until_ = daemon.ok("info", "--format", "{{.SystemTime}}")
    told = daemon.ok(
        "events", "--since", since, "--until", until_, "--filter", f"container={box}", "--format", "{{.Action}}"
    )
    assert told.splitlines() == ["archive-path", "extract-to-dir", "export"]


def test_a_client_that_goes_away_leaves_nothing(daemon: Daemon, box: str) -> None:
    def workers() -> int:
        found = 0
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                try:
                    parent = (process / "stat").read_text().rpartition(")")[2].split()
                    command = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                found += b"archiving.server" in command and parent[0] != "Z" and not _is_server(process, daemon)
        return found

    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(f"GET /containers/{box}/archive?path=/ HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        assert sock.recv(100)
        until(lambda: workers() == 1, what="a worker that waits for its reader")
    until(lambda: workers() == 0, what="its end")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(
            f"PUT /containers/{box}/archive?path=/tmp HTTP/1.1\r\nHost: d\r\nContent-Length: 9999\r\n\r\n".encode()
        )
        until(lambda: workers() == 1, what="a worker that waits for its writer")
    until(lambda: workers() == 0, what="its end")


def _is_server(process: Path, daemon: Daemon) -> bool:
    """The one that forks; other daemons' are theirs."""
    try:
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        return b"archiving.server" not in Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return True


def test_corten_cp_out(daemon: Daemon, box: str, tmp_path: Path) -> None:
    assert daemon.corten("cp", f"{box}:/dd", str(tmp_path)).err.startswith("Successfully copied ")
    assert (tmp_path / "dd/f").read_text() == "hi\n"
    assert (tmp_path / "dd/f").stat().st_ino == (tmp_path / "dd/h").stat().st_ino
    assert (tmp_path / "dd/sparse").read_bytes() == bytes(3 << 20) + b"end\n"
    assert daemon.corten("cp", "-q", f"{box}:/dd/.", str(tmp_path / "flat")).err == ""
    assert os.readlink(tmp_path / "flat/l") == "f"
    assert daemon.corten("cp", "-L", f"{box}:/dd/l", str(tmp_path / "followed")).code == 0
    assert (tmp_path / "followed").read_text() == "hi\n"
    assert daemon.corten("cp", f"{box}:/dd/f", str(tmp_path)).code == 0
    assert (tmp_path / "f").read_text() == "hi\n"
    shown = daemon.corten("cp", f"{box}:/dd/f", "-").out
    assert "hi\n" in shown


def test_corten_cp_in(daemon: Daemon, box: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/f").write_text("in\n")
    (tree / "sub/l").symlink_to("/etc/passwd")
    os.link(tree / "sub/f", tree / "h")
    assert daemon.corten("cp", str(tree), f"{box}:/tmp").code == 0
    assert daemon.corten("cp", f"{tree}/.", f"{box}:/new").code == 0
    assert daemon.corten("cp", str(tree / "sub/f"), f"{box}:/tmp/name").code == 0
    assert daemon.corten("cp", "-", f"{box}:/tmp", input=packed(x=b"piped\n").decode()).code == 0
    shown = daemon.ok("exec", box, "cat", "/tmp/tree/h", "/new/sub/f", "/tmp/name", "/tmp/x")
    assert shown.split() == ["in", "in", "in", "piped"]
    assert daemon.ok("exec", box, "readlink", "/tmp/tree/sub/l") == "/etc/passwd"


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("box:/nosuch", "HERE", "Could not find the file /nosuch in container box"),
        ("box:/dd", "HERE/no/dir", "invalid output path: directory"),
        ("FILE", "box:/nodir/new", "Could not find the file /nodir in container box"),
        ("FILE", "box:/nodir/", "no such directory"),
        ("HERE", "box:/dd/f", "cannot copy directory"),
        ("box:/dd", "box:/tmp", "copying between containers is not supported"),
        ("FILE", "HERE", "must specify at least one container source"),
    ],
)
def test_corten_cp_refuses(daemon: Daemon, box: str, tmp_path: Path, source: str, target: str, words: str) -> None:
    (tmp_path / "file").write_text("x")
    named = [text.replace("HERE", str(tmp_path)).replace("FILE", f"{tmp_path}/file") for text in (source, target)]
    done = daemon.corten("cp", *named)
    assert done.code != 0
    assert words in done.err


def test_docker_py(daemon: Daemon, box: str) -> None:
    import docker

    client = docker.DockerClient(base_url=daemon.url, version="auto")
    try:
        container = client.containers.get(box)
        chunks, found = container.get_archive("/dd/f")
        assert (found["name"], found["size"]) == ("f", 3)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            file = tar.extractfile("f")
            assert file is not None
            assert file.read() == b"hi\n"
        assert container.put_archive("/tmp", packed(x=b"from py\n"))
        assert container.put_archive("/tmp", io.BytesIO(packed(y=b"streamed\n")))
        assert container.exec_run(["cat", "/tmp/x", "/tmp/y"]).output == b"from py\nstreamed\n"
        assert {"Path": "/dd", "Kind": 1} in container.diff()
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
            assert "dd/f" in tar.getnames()
        with pytest.raises(docker.errors.NotFound, match="Could not find the file /nosuch"):
            container.get_archive("/nosuch")
    finally:
        client.close()


def test_use_api_socket_with_credentials(daemon: Daemon) -> None:
    """The docker command copies its credentials into the container that it has created."""
    config = daemon.host.place / "dc" / "config.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text(json.dumps({"auths": {"r.example": {"auth": base64.b64encode(b"me:right").decode()}}}))
    try:
        daemon.ok("run", "-d", "--name", "box", "--use-api-socket", "--network", "none", "busybox", "sleep", "1000")
        assert daemon.ok("exec", "box", "sh", "-c", "test -S /var/run/docker.sock && echo yes") == "yes"
        assert "r.example" in daemon.ok("exec", "box", "sh", "-c", "cat $DOCKER_CONFIG/config.json")
    finally:
        config.unlink()


def test_the_mark_of_a_container(daemon: Daemon, tmp_path: Path) -> None:
    """Programs look for it; it is nobody's change, and in an export as everything else."""
    daemon.ok("run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000")
    assert daemon.ok("exec", "box", "stat", "-c", "%F %s %a %u", "/.dockerenv") == "regular empty file 0 755 0"
    assert daemon.ok("diff", "box") == ""
    daemon.ok("export", "-o", str(tmp_path / "a.tar"), "box")
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert ".dockerenv" in tar.getnames()
    daemon.ok("commit", "box", "committed:latest")
    daemon.ok("save", "-o", str(tmp_path / "b.tar"), "committed")
    with tarfile.open(tmp_path / "b.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        with tarfile.open(fileobj=tar.extractfile(manifest[0]["Layers"][-1])) as layer:
            assert not any(name.endswith(".dockerenv") for name in layer.getnames())
    daemon.ok("rm", "-f", "box")
    assert daemon.ok("run", "--rm", "--network", "none", "committed", "ls", "/.dockerenv") == "/.dockerenv"
    daemon.ok("rmi", "committed")

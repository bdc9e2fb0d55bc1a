"""Bodies over sockets, tar headers, and paths: what the archive workers are made of."""

from __future__ import annotations

import io
import os
import shutil
import socket
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from corten.errors import InvalidArgument
from corten.storage.archiving.changes import Comparison
from corten.storage.archiving.conduit import Inlet, Outlet
from corten.storage.archiving.places import clean, owner, real_path
from corten.storage.archiving.tarwriter import TreeWriter, entry
from corten.storage.tarstream import DIRECTORY, REGULAR, TarReader
from corten.storage.walking import delete_tree


def through(framing: str, write: Callable[[socket.socket], None], prefix: bytes = b"") -> bytes:
    """What an Inlet makes of what `write` sends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def send() -> None:
            write(theirs)
            theirs.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            return b"".join(Inlet(ours.fileno(), framing, prefix).chunks())
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_chunks_in_any_pieces() -> None:
    def write(sock: socket.socket) -> None:
        for byte in b"\n5;x=y\r\nhello\r\nA\r\n, worlds!!\r\n0\r\n\r\n":
            sock.sendall(bytes([byte]))

    assert through("chunked", write, b"1\r\n-\r") == b"-hello, worlds!!"


@pytest.mark.parametrize("body", [b"5\r\nhel", b"5\r\nhelloX\r\n0\r\n\r\n", b"-1\r\n", b"\r\n", b"zz\r\n", b"1" * 5000])
def test_broken_chunks(body: bytes) -> None:
    with pytest.raises(InvalidArgument):
        through("chunked", lambda sock: sock.sendall(body))


def test_lengths_and_ends() -> None:
    assert through("3", lambda sock: sock.sendall(b"bcd"), b"a") == b"abc"
    assert through("raw", lambda sock: sock.sendall(b"bcd"), b"a") == b"abcd"
    assert through("0", lambda sock: None) == b""
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        through("9", lambda sock: sock.sendall(b"bcd"))


def test_what_an_outlet_writes_an_inlet_reads(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(range(256)) * 4096)
    fd = os.open(tmp_path / "big", os.O_RDONLY)

    def write(sock: socket.socket) -> None:
        outlet = Outlet(sock.fileno(), chunked=True)
        outlet.write(b"head")
        outlet.file(fd, 0, 1 << 20)
        outlet.file(fd, 1 << 20, 200_000)  # which is not there (any more)
        outlet.write(b"tail")
        outlet.close()

    got = through("chunked", write)
    os.close(fd)
    assert got == b"head" + (tmp_path / "big").read_bytes() + bytes(200_000) + b"tail"


def packed(root: Path, name: bytes) -> bytes:
    out = root.parent / "out"
    fd = os.open(root, os.O_RDONLY)
    target = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    writer = TreeWriter(Outlet(target, chunked=False))
    writer.tree(fd, name)
    writer.close()
    os.close(fd)
    os.close(target)
    return out.read_bytes()


def test_a_tree_as_others_read_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    deep = root / "/".join(["level"] * 250)
    deep.mkdir(parents=True)
    (deep / "end").write_text("deep\n")
    (root / ("x" * 200)).write_text("long\n")
    (root / "link").symlink_to("y" * 150)
    os.link(root / ("x" * 200), root / "zhard")
    with open(root / "sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"data")
        file.truncate(12 << 20)
    archive = packed(root, b"top")
    assert archive == packed(root, b"top")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {member.name: member for member in tar}
        assert members["top/link"].linkname == "y" * 150
        assert members["top/zhard"].linkname == "top/" + "x" * 200
        assert members["top/sparse"].size == 12 << 20
        sparse, end = tar.extractfile("top/sparse"), tar.extractfile("top/" + "level/" * 250 + "end")
        assert sparse is not None
        assert sparse.read() == bytes(8 << 20) + b"data" + bytes((4 << 20) - 4)
        assert end is not None
        assert end.read() == b"deep\n"
    assert len(archive) < 2 << 20
    reader = TarReader(iter([archive]))
    assert next(found.real_size for found in reader if found.name == b"top/sparse") == 12 << 20


def test_numbers_that_do_not_fit() -> None:
    further = {"st_mtime_ns": -5_000_000_000}
    status = os.stat_result((stat.S_IFREG | 0o4755, 0, 0, 1, 3_000_000, 4_000_000_000, 0, 0, -5, 0), further)
    block = entry(REGULAR, b"f", status, size=9 << 30)
    found = next(iter(TarReader(iter([block]))))
    assert (found.mode, found.uid, found.gid, found.size) == (0o4755, 3_000_000, 4_000_000_000, 9 << 30)
    assert found.mtime_ns == -5_000_000_000
    info = tarfile.TarInfo.frombuf(block[:512], "utf-8", "strict")
    assert (info.uid, info.gid, info.size) == (3_000_000, 4_000_000_000, 9 << 30)
    assert entry(DIRECTORY, b"d/", status)[156:157] == b"5"


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [("/a/../b/./c//", "/b/c"), ("", "/"), ("../..", "/"), ("a", "/a"), ("/..a/.b", "/..a/.b")],
)
def test_clean(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned


def test_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/abs").symlink_to("/d/rel")
    (tmp_path / "d/rel").symlink_to("../../../../d/../gone/x")
    (tmp_path / "loop").symlink_to("loop")
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        assert real_path(root, "/d/abs") == "/gone/x"
        assert real_path(root, "/none/d") == "/none/d"
        with pytest.raises(OSError, match="loop"):
            real_path(root, "/loop/x")
    finally:
        os.close(root)


def test_owner_by_the_container_own_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("broken\napp:x:7:8::/:\nbad:x:y:8::/:\n")
    (tmp_path / "etc/group").write_text("staff:x:50:\n")
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        assert owner(root, "app") == (7, 8)
        assert owner(root, "app:staff") == (7, 50)
        assert owner(root, "12:13") == (12, 13)
        assert owner(root, "12") == (12, 0)
        assert owner(root, "bad") is None
        assert owner(root, "app:nosuch") is None
    finally:
        os.close(root)


def test_changes_without_whiteouts(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for place in (upper, lower):
        (place / "same/deep").mkdir(parents=True)
        (place / "untouched").mkdir()
    (upper / "same/deep/new").write_text("x")
    (lower / "file").write_text("old")
    (upper / "file").write_text("new")
    (upper / "etc").mkdir()
    (upper / "etc/hosts").write_text("")
    for path in ("same/deep", "same", "untouched", "."):
        times = (1, 1)
        os.utime(upper / path, times)
        os.utime(lower / path, times)
    found: list[tuple[int, str]] = []
    fds = [os.open(place, os.O_RDONLY) for place in (upper, lower)]
    Comparison(lambda kind, path: found.append((kind, path)), frozenset({"etc/hosts"})).run(*fds)
    for fd in fds:
        os.close(fd)
    assert found == [(1, "/etc"), (0, "/file"), (0, "/same"), (0, "/same/deep"), (1, "/same/deep/new")]


def compare(upper: Path, lower: Path, stubs: frozenset[str] = frozenset(), *, whole: bool) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    fds = [os.open(place, os.O_RDONLY) for place in (upper, lower)]
    try:
        Comparison(lambda kind, path: found.append((kind, path)), stubs, whole=whole).run(*fds)
    finally:
        for fd in fds:
            os.close(fd)
    return found


def test_changes_between_whole_trees(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for name in ("a/b/same", "a/gone/in", "etc/conf", "kept/deep/file", "turns"):
        (lower / name).parent.mkdir(parents=True, exist_ok=True)
        (lower / name).write_text(name)
    for path in lower.rglob("*"):
        os.utime(path, (1, 1))
    shutil.copytree(lower, upper)
    (upper / "a/b/new").touch()
    shutil.rmtree(upper / "a/gone")
    (upper / "etc/hosts").touch()  # to mount on
    (upper / "kept/deep/file").write_text("changed, in place")
    (upper / "turns").unlink()
    (upper / "turns").mkdir()
    told = [(0, "/a"), (0, "/a/b"), (1, "/a/b/new"), (2, "/a/gone"), (0, "/kept"), (0, "/kept/deep")]
    told += [(0, "/kept/deep/file"), (0, "/turns")]
    assert compare(upper, lower, frozenset({"etc/hosts"}), whole=True) == told
    assert (0, "/etc") in compare(upper, lower, whole=True)
    assert compare(lower, lower, whole=True) == []


def deep(tree: Path, depth: int, files: dict[int, str]) -> None:
    """Directories in each other, all called d; `files` are names in those of some levels."""
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for level in range(1, depth + 1):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        if level in files:
            os.close(os.open(files[level], os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    os.close(fd)


@pytest.mark.parametrize("whole", [False, True])
def test_changes_far_down(tmp_path: Path, whole: bool) -> None:
    """Deeper than Python's stack or a process's descriptors would do."""
    depth = 1500
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    deep(upper, depth, {depth: "new"})
    deep(lower, depth, {700: "gone"})
    try:
        before = os.listdir("/proc/self/fd")
        found = compare(upper, lower, whole=whole)
        assert len(os.listdir("/proc/self/fd")) == len(before)
    finally:
        delete_tree(upper)
        delete_tree(lower)
    told = {(0, "/d" * level) for level in range(1, depth + 1)} | {(1, "/d" * depth + "/new")}
    assert set(found) == (told | {(2, "/d" * 700 + "/gone")} if whole else told)

"""A layer out of two whole trees: put on the first, it makes the second."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from corten.storage.apply import apply_layer
from corten.storage.treecopy import TreeCopier
from corten.storage.treediff import write_difference

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
MTIME = 1_600_000_000_123_456_789
STUBS = frozenset(("dev", "proc", "etc/hosts", "etc/resolv.conf"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """With one of each kind, all of them old."""
    base = tmp_path / "base"
    script = """
        mkdir -p etc/deep/er home/a usr keep/in; echo text > etc/conf; echo same > keep/in/file; echo x > home/a/f
        echo 1 > usr/one; ln usr/one usr/two; ln -s conf etc/link; mkfifo usr/pipe; mknod usr/null c 1 3
        echo gone > etc/deep/er/gone; echo f > usr/turns; mkdir usr/becomes; echo in > usr/becomes/in
    """
    base.mkdir()
    subprocess.run(["sh", "-ec", script], cwd=base, check=True)
    for path in [*base.rglob("*"), base]:
        os.utime(path, ns=(MTIME, MTIME), follow_symlinks=False)
    return base


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    TreeCopier(*fds).run()
    for fd in fds:
        os.close(fd)
    return target


def looks(root: Path) -> dict[str, Any]:
    """All that a layer has to keep, by path; of directories without their time, which unpacking into them changes."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content: object = status.st_rdev
        if kind == stat.S_IFREG:
            content = path.read_bytes()
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        time = 0 if kind == stat.S_IFDIR else status.st_mtime_ns
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, time, content, xattrs)
    return found


def difference(base: Path, tree: Path) -> tuple[list[str], bytes, int]:
    out = io.BytesIO()
    count = write_difference(str(base), str(tree), out, STUBS)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return [name for name in tar.getnames() if name != "."], out.getvalue(), count


def test_nothing_changed_is_nothing(tmp_path: Path, base: Path) -> None:
    assert difference(base, copied(base, tmp_path / "tree"))[::2] == ([], 0)


CHANGES = {
    "content": ("echo other > etc/conf", ["etc", "etc/conf"]),
    "the same size": ("echo txet > etc/conf", ["etc", "etc/conf"]),
    "mode": ("chmod 4755 keep/in/file", ["keep", "keep/in", "keep/in/file"]),
    "owner": ("chown 3:4 home/a/f", ["home", "home/a", "home/a/f"]),
    "a directory's mode": ("chmod 700 keep/in", ["keep", "keep/in"]),
    "a directory's time": ("touch keep/in", ["keep", "keep/in"]),
    "the root's mode": ("chmod 700 .", []),
    "deleted": ("rm etc/deep/er/gone", ["etc", "etc/deep", "etc/deep/er", "etc/deep/er/.wh.gone"]),
    "a tree deleted": ("rm -r etc/deep home", [".wh.home", "etc", "etc/.wh.deep"]),
    "new": ("mkdir -p new/er; echo n > new/er/f", ["new", "new/er", "new/er/f"]),
    "moved": ("mv home moved", [".wh.home", "moved", "moved/a", "moved/a/f"]),
    "a link's target": ("ln -sfn nowhere etc/link", ["etc", "etc/link"]),
    "a name more": ("ln usr/one usr/three", ["usr", "usr/three"]),
    "a name of two changed": ("echo 2 > usr/two", ["usr", "usr/one", "usr/two"]),
    "a file becomes a directory": ("rm usr/turns; mkdir usr/turns; echo i > usr/turns/i", None),
    "a directory becomes a file": ("rm -r usr/becomes; echo f > usr/becomes", ["usr", "usr/becomes"]),
    "a directory becomes a link": ("rm -r usr/becomes; ln -s /etc usr/becomes", ["usr", "usr/becomes"]),
    "another device": ("rm usr/null; mknod usr/null c 1 5", ["usr", "usr/null"]),
    "a directory made anew": ("rm -r usr/becomes; mkdir usr/becomes", ["usr", "usr/becomes", "usr/becomes/.wh.in"]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_layer_makes_the_one_tree_of_the_other(tmp_path: Path, base: Path, what: str) -> None:
    script, expected = CHANGES[what]
    tree = copied(base, tmp_path / "tree")
    subprocess.run(["sh", "-ec", script], cwd=tree, check=True)
    names, layer, count = difference(base, tree)
    if expected is not None:
        assert names == expected
    assert count == len(names)
    again = copied(base, tmp_path / "again")
    (tmp_path / "blob").write_bytes(layer)
    apply_layer(str(tmp_path / "blob"), str(again), delete=True)
    assert looks(again) == looks(tree)
    assert stat.S_IMODE(again.stat().st_mode) == stat.S_IMODE(tree.stat().st_mode)


def test_attributes(tmp_path: Path, base: Path) -> None:
    tree = copied(base, tmp_path / "tree")
    os.setxattr(tree / "keep/in/file", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(tree / "keep", "trusted.mine", b"y")
    names, layer, _ = difference(base, tree)
    assert names == ["keep", "keep/in", "keep/in/file"]
    again = copied(base, tmp_path / "again")
    (tmp_path / "blob").write_bytes(layer)
    apply_layer(str(tmp_path / "blob"), str(again), delete=True)
    assert looks(again) == looks(tree)


def test_what_the_runtime_makes_to_mount_on_is_nobodys_change(tmp_path: Path, base: Path) -> None:
    tree = copied(base, tmp_path / "tree")
    script = "mkdir dev proc; touch etc/hosts etc/resolv.conf"
    subprocess.run(["sh", "-ec", script], cwd=tree, check=True)
    assert difference(base, tree)[::2] == ([], 0)
    (tree / "etc/hosts").write_text("mine")
    (tree / "dev/mine").touch()
    assert difference(base, tree)[0] == ["dev", "dev/mine", "etc", "etc/hosts"]


def test_a_socket_is_left_out_and_hides_what_it_replaced(tmp_path: Path, base: Path) -> None:
    tree = copied(base, tmp_path / "tree")
    (tree / "etc/conf").unlink()
    for place in ("etc/conf", "etc/new"):
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(tree / place))
    assert difference(base, tree)[0] == ["etc", "etc/.wh.conf"]


def test_links_to_the_host_are_not_followed(tmp_path: Path, base: Path) -> None:
    tree = copied(base, tmp_path / "tree")
    subprocess.run(["sh", "-ec", "rm -r keep; ln -s /etc keep"], cwd=tree, check=True)
    assert difference(base, tree)[0] == ["keep"]

"""Layers that put links, files and whiteouts in each other's way become what a model of a file tree makes of them.
Nothing outside of their root changes, whatever they say.
"""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidArgument
from corten.storage.unpack import clean
from tests.fuzz.profile import fuzzed, in_order
from tests.unit.storage.tars import archive, directory, file, hard_link, member, symlink, unpack

Op = tuple[str, str, str]
_MAX_LINKS = 40


class Refused(Exception):
    """With the word of the kernel that it is about, which decides what becomes of it."""


@dataclass(eq=False)
class Node:
    kind: str
    text: str = ""
    children: dict[str, Node] = field(default_factory=dict)


class Tree:
    """A root directory, and the rules of unpacking in it, one after the other and without any file descriptor."""

    def __init__(self) -> None:
        self.root = Node("dir")

    def resolve(self, path: str) -> Node:
        """The directory that a path means, as seen from the root."""
        stack, links = [self.root], 0
        left = [part for part in path.split("/") if part not in ("", ".")][::-1]
        while left:
            part = left.pop()
            if part == "..":
                stack = stack[:-1] or [self.root]
                continue
            if (node := stack[-1].children.get(part)) is None:
                raise Refused("missing")
            if node.kind == "link":
                links += 1
                if links > _MAX_LINKS:
                    raise Refused("loop")
                if node.text.startswith("/"):
                    stack = [self.root]
                left += [part for part in node.text.split("/") if part not in ("", ".")][::-1]
            elif node.kind != "dir":
                raise Refused("not a directory")
            else:
                stack.append(node)
        return stack[-1]

    def parent(self, path: str) -> Node:
        """The directory at a path, made with all above it where it is not there."""
        try:
            return self.resolve(path)
        except Refused as refused:
            if str(refused) != "missing":
                raise
        parts = path.split("/")
        there = next(count for count in range(len(parts) - 1, -1, -1) if self._is_there(parts[:count]))
        node = self.resolve("/".join(parts[:there]))
        for part in parts[there:]:
            if part in node.children:
                raise Refused("a link to nothing")
            node.children[part] = node = Node("dir")
        return node

    def _is_there(self, parts: list[str]) -> bool:
        try:
            self.resolve("/".join(parts))
        except Refused as refused:
            if str(refused) != "missing":
                raise
            return False
        return True

    def remove(self, parent: Node, name: str) -> None:
        node = parent.children.pop(name, None)
        if node is not None and node.kind == "dir":
            for inner in list(node.children):
                self.remove(node, inner)


class Layer:
    """One layer on its way into a tree."""

    def __init__(self, tree: Tree, *, delete: bool) -> None:
        self.tree, self.delete = tree, delete
        self.written: set[str] = set()

    def one(self, op: Op) -> None:
        kind, name, text = op
        cleaned = clean(name.encode())
        if cleaned is None:
            raise Refused("outside")
        path = cleaned.decode()
        above, _, base = path.rpartition("/")
        if not base:
            if kind != "dir":
                raise Refused("the root")
        elif base.startswith(".wh."):
            self.whiteout(above, base)
        else:
            parent = self.tree.parent(above)
            self.written.add(path)
            self.make(kind, parent, above, base, path, text)

    def make(self, kind: str, parent: Node, above: str, base: str, path: str, text: str) -> None:
        there = parent.children.get(base)
        if kind == "hard":
            return self.hard_link(parent, above, base, path, text)
        if kind == "dir" and there is not None and there.kind == "dir":
            return None
        if there is not None:
            self.tree.remove(parent, base)
            parent = self.tree.parent(above)
        parent.children[base] = Node(kind, text)
        return None

    def hard_link(self, parent: Node, above: str, base: str, path: str, text: str) -> None:
        cleaned = clean(text.encode())
        if cleaned is None or cleaned.decode() == path:
            raise Refused("hard link")
        source_above, _, name = cleaned.decode().rpartition("/")
        source = self.tree.resolve(source_above)
        target = source.children.get(name)
        if target is None:
            raise Refused("hard link")
        if base in parent.children:
            self.tree.remove(parent, base)
            parent = self.tree.parent(above)
        if target.kind == "dir" or source.children.get(name) is not target:
            raise Refused("hard link")
        parent.children[base] = target

    def whiteout(self, above: str, base: str) -> None:
        if base == ".wh..wh..opq":
            self.tree.parent(above)
            if self.delete:
                self.empty(above)
            return
        if base.startswith(".wh..wh."):
            return
        name = base[4:]
        if name in ("", ".", ".."):
            raise Refused("whiteout")
        parent = self.tree.parent(above)
        if not self.delete:
            parent.children.setdefault(name, Node("white"))
        elif (f"{above}/{name}" if above else name) not in self.written:
            self.tree.remove(parent, name)

    def empty(self, above: str) -> None:
        for name in list(self.tree.parent(above).children):
            path = f"{above}/{name}" if above else name
            parent = self.tree.parent(above)
            if path not in self.written and not any(other.startswith(path + "/") for other in self.written):
                self.tree.remove(parent, name)
            elif name in parent.children and parent.children[name].kind == "dir":
                self.empty(path)


# What is compared


def shape(
    node: Node, at: str, seen: dict[int, str], found: dict[str, tuple[str, str, str]]
) -> dict[str, tuple[str, str, str]]:
    """By path: kind, content or target, and the first path by which the same file was met."""
    for name, inner in sorted(node.children.items()):
        path = f"{at}/{name}"
        found[path] = (inner.kind, inner.text, seen.setdefault(id(inner), path))
        shape(inner, path, seen, found)
    return found


def real(
    top: Path, at: str, seen: dict[int, str], found: dict[str, tuple[str, str, str]]
) -> dict[str, tuple[str, str, str]]:
    for entry in sorted(os.scandir(top), key=lambda entry: entry.name):
        status = entry.stat(follow_symlinks=False)
        path = f"{at}/{entry.name}"
        kind, text = {stat.S_IFDIR: ("dir", ""), stat.S_IFIFO: ("fifo", ""), stat.S_IFCHR: ("white", "")}.get(
            stat.S_IFMT(status.st_mode), ("file", "")
        )
        if entry.is_symlink():
            kind, text = "link", os.readlink(entry.path)
        elif kind == "file":
            text = Path(entry.path).read_text()
        found[path] = (kind, text, seen.setdefault(status.st_ino, path))
        if kind == "dir":
            real(Path(entry.path), path, seen, found)
    return found


def fingerprint(top: Path) -> list[tuple[object, ...]]:
    """Everything about what is there; the time of the last change among it, which nobody can set."""
    paths = sorted([top, *top.rglob("*")])
    stats = [(path, path.lstat()) for path in paths]
    return [(str(p), s.st_ino, s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_size, s.st_ctime_ns) for p, s in stats]


# Names that nobody has: should the confinement break, what is made or removed outside is nobody's.
A, B, C, D = "fuzz-a", "fuzz-b", "fuzz-c", "fuzz-d"
parts = st.sampled_from([A, A, B, C, D, "..", ".", ""])
names = st.lists(parts, min_size=1, max_size=4).map("/".join)
marks = st.sampled_from(
    [f".wh.{A}", f".wh.{B}", f".wh.{C}", ".wh..wh..opq", ".wh..wh.x", ".wh..", ".wh.", f".wh.{A}/{B}"]
)
absolute = ["/", f"/{A}", "{out}", "{out}/sub", "/proc/self/root{out}"]
climbing = ["../..", "../../..", f"{A}/..", f"{B}/../{C}", "../outside"]
targets = st.one_of(names.filter(bool), st.sampled_from(absolute + climbing))
ops = st.one_of(
    st.tuples(st.just("file"), names, st.sampled_from(["1", "2"])),
    st.tuples(st.just("dir"), names, st.just("")),
    st.tuples(st.just("link"), names, targets),
    st.tuples(st.just("link"), st.sampled_from([A, B, C, D]), targets),
    st.tuples(st.just("hard"), names, names | targets),
    st.tuples(st.just("fifo"), names, st.just("")),
    st.tuples(st.just("file"), st.tuples(names, marks).map("/".join), st.just("")),
)


def empties(ops: list[Op]) -> bool:
    return any(name.endswith("/.wh..wh..opq") for _, name, _ in ops)


def harmless(op: Op, out: str) -> bool:
    """Whether it leads to `out` at most. A mark that empties a directory, as root, comes with such ones only: this test
    must not be able to empty more than that, whatever becomes of the code under it.
    """
    _, name, text = op
    climbs = ".." in name.split("/") or ".." in text.split("/")
    return not climbs and (not text.startswith("/") or text.startswith(out))


def tar_of(ops: list[Op]) -> bytes:
    makers = {"dir": lambda name, _: directory(name), "link": symlink, "hard": hard_link}
    made: list[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]] = []
    for kind, name, text in ops:
        if kind == "file":
            made.append(file(name, text.encode()))
        else:
            made.append(makers[kind](name, text) if kind in makers else member(name, tarfile.FIFOTYPE))
    return archive(*made)


@given(st.lists(st.lists(ops, max_size=9), min_size=1, max_size=2), st.booleans())
@fuzzed(250)
def test_layers_that_stand_in_their_own_way(layers: list[list[Op]], delete: bool) -> None:
    with tempfile.TemporaryDirectory() as base:
        out = Path(base, "outside")
        (out / "sub").mkdir(parents=True)
        (out / "victim").write_text("safe")
        (out / "sub" / A).write_text("safe")
        before, opened = fingerprint(out), len(os.listdir("/proc/self/fd"))
        tree = Tree()
        made = [[(kind, name, text.replace("{out}", str(out))) for kind, name, text in ops] for ops in layers]
        if any(map(empties, made)):
            made = [[op for op in ops if harmless(op, str(out))] for ops in made]
        for said in made:
            layer = Layer(tree, delete=delete)
            refused = False
            try:
                for op in said:
                    layer.one(op)
            except Refused:
                refused = True
            error: InvalidArgument | None = None
            try:
                unpack(tar_of(said), Path(base), delete=delete)
            except InvalidArgument as caught:
                in_order(error := caught)
            assert (error is not None) == refused, error
            assert real(Path(base, "layer"), "", {}, {}) == shape(tree.root, "", {}, {})
            assert fingerprint(out) == before
            assert sorted(os.listdir(base)) == ["blob", "layer", "outside"]
            assert len(os.listdir("/proc/self/fd")) == opened

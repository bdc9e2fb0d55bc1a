"""What snapshotters share: rows in the metadata database, numbered directories, and what holds between the two.

A snapshot is a row and the directory `<root>/<id>`. The directory is made before the row and removed after it, so that
after a crash a directory without a row is rubbish and goes to the trash, and a row without a directory (a power cut
may lose a directory that was never synced) names an empty snapshot that nothing durable refers to, and goes too.

Rows are kept in memory as well, so that no reading call waits for the disk. Rows are written without an fsync of their
own where the caller's own record (the container's, the image's) is written durably afterwards: the database keeps the
order. A commit is durable itself.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from corten.errors import Conflict, DataCorrupt, InvalidArgument, NotFound
from corten.storage.database import Database
from corten.storage.faults import host
from corten.storage.syscalls import exchange, spread_below, syncfs
from corten.storage.trash import Trash
from corten.storage.types import MountPlan, Replacement, SnapshotInfo, SnapshotKind, Usage
from corten.storage.walking import StaleTree, walk

log = logging.getLogger(__name__)

_INSERT = "INSERT INTO snapshots (driver, id, key, parent, kind) VALUES (?, ?, ?, ?, ?)"
_FREEZE = (
    "UPDATE snapshots SET key = ?, kind = 'committed', size = ?, inodes = ?, parent = ? WHERE driver = ? AND id = ?"
)
_DELETE = "DELETE FROM snapshots WHERE driver = ? AND id = ?"


@dataclass(slots=True)
class Row:
    """A snapshot in memory. `ready` is False while it is being made."""

    id: int
    key: str
    parent: Row | None
    kind: SnapshotKind
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    children: int = 0
    ready: bool = True


class SnapshotterBase:
    """Everything of a Snapshotter but the making of the directory and the mounts: subclasses give `_populate`,
    `_plan` and `_writable`.
    """

    name = ""
    rebases = False

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root
        self._database = database
        self._rows: dict[str, Row] = {}
        self._reserved: set[str] = set()
        self._lock = threading.Lock()
        with host("open the snapshots"):
            root.mkdir(mode=0o710, parents=True, exist_ok=True)
            spread_below(os.fspath(root))
            self._trash = Trash(root / "trash")
            self._sync = GroupSync(root)
            self._next = 1
            self._load()

    def prepare(self, key: str, parent: str = "") -> Sequence[MountPlan]:
        return self._plan(self._create(key, parent, "active"))

    def view(self, key: str, parent: str) -> Sequence[MountPlan]:
        return self._plan(self._create(key, parent, "view"))

    def mounts(self, key: str) -> Sequence[MountPlan]:
        row = self._get(key)
        if row.kind == "committed":
            raise InvalidArgument(f"snapshot {key} is committed: mount a view of it")
        return self._plan(row)

    def commit(
        self, name: str, key: str, usage: Usage | None = None, *, parent: str = "", implied: Sequence[str] = ()
    ) -> None:
        with self._lock:
            row = self._get(key)
            above = self._commit_parent(row, parent)
            if row.kind != "active":
                raise Conflict(f"snapshot {key} is {row.kind}, only an active one can be committed")
            if name in self._rows or name in self._reserved:
                raise Conflict(f"snapshot {name} exists already")
            self._reserved.add(name)
            joined = above if above is not row.parent else None
            if joined is not None:
                joined.children += 1  # already: it must not go while this is being put on top of it
        try:
            with host("commit snapshot"):
                if joined is not None:
                    self._adopt(row, joined, implied)
                self._freeze(row)
                counted = usage or count_usage(self.layer_dir(key))
                self._sync()
            values = (name, counted.size, counted.inodes, above.id if above else None)
            self._database.write_blocking(lambda c: c.execute(_FREEZE, (*values, self.name, row.id)))
            with self._lock:
                del self._rows[key]
                row.key, row.kind, row.usage, row.parent = name, "committed", counted, above
                self._rows[name] = row
        except BaseException:
            if joined is not None:
                with self._lock:
                    joined.children -= 1
            raise
        finally:
            with self._lock:
                self._reserved.discard(name)

    def replacing(self, name: str, key: str, *, implied: Sequence[str] = ()) -> Replacement:
        with self._lock:
            damaged, row = self._committed(name), self._get(key)
            if row.kind != "active":
                raise Conflict(f"snapshot {key} is {row.kind}, only an active one can be put in the place of another")
        with host("replace snapshot"):
            if damaged.parent is not None and row.parent is None and self.rebases:
                self._adopt(row, damaged.parent, implied)
            # The damage may be that there is nothing. An empty directory in its place would pass for the layer after
            # a crash, so that the files get there by a rename; what is swapped out is removed with `key`.
            self._files(damaged).parent.mkdir(exist_ok=True)
            self._sync()

        def swap() -> None:
            with host("replace snapshot"):
                try:
                    exchange(os.fspath(self._files(damaged)), os.fspath(self._files(row)))
                except FileNotFoundError:
                    self._files(row).rename(self._files(damaged))

        def sync() -> None:
            with host("replace snapshot"):
                self._sync()

        return Replacement(swap, sync)

    def layer_dir(self, key: str) -> Path:
        return self._files(self._get(key))

    def info(self, key: str) -> SnapshotInfo:
        return _info(self._get(key))

    def usage(self, key: str) -> Usage:
        row = self._get(key)
        if row.kind != "active":
            return row.usage
        with host("count snapshot"):
            return count_usage(self._files(row))

    def remove(self, key: str) -> None:
        with self._lock:
            row = self._get(key)
            if row.children or not row.ready:
                raise Conflict(f"snapshot {key} is in use by {row.children} others")
            row.ready = False
        try:
            # Not synced: a row that comes back after a power cut has its directory back too, or is dropped at start.
            self._database.write_blocking(lambda c: c.execute(_DELETE, (self.name, row.id)), durable=False)
        except BaseException:
            row.ready = True
            raise
        with self._lock:
            del self._rows[key]
            if row.parent is not None:
                row.parent.children -= 1
        self._discard(str(row.id))

    def walk(self) -> Iterator[SnapshotInfo]:
        with self._lock:
            rows = list(self._rows.values())
        yield from (_info(row) for row in rows if row.ready)

    def settle(self) -> None:
        """Wait until what was removed is deleted."""
        self._trash.wait()

    def close(self) -> None:
        """Stop deleting what was removed; the next start goes on with it."""
        self._trash.close()

    # What a kind of snapshotter decides

    def _populate(self, row: Row) -> None:
        """Make the directory of a new snapshot. May leave half of it behind when it fails."""
        raise NotImplementedError

    def _plan(self, row: Row) -> tuple[MountPlan, ...]:
        raise NotImplementedError

    def _freeze(self, row: Row) -> None:
        """Before a commit: drop what only a writable snapshot needs."""

    def _adopt(self, row: Row, parent: Row, implied: Sequence[str]) -> None:
        """Before a commit on top of `parent`: give the implied directories their owners and modes."""
        raise NotImplementedError

    # Rows

    def _files(self, row: Row) -> Path:
        return self.root / str(row.id) / "fs"

    def _get(self, key: str) -> Row:
        row = self._rows.get(key)
        if row is None:
            raise NotFound("snapshot", key, f"snapshot {key} does not exist")
        return row

    def _commit_parent(self, row: Row, parent: str) -> Row | None:
        if not parent or (row.parent is not None and row.parent.key == parent):
            return row.parent
        if not self.rebases or row.parent is not None:
            raise InvalidArgument(f"snapshot {row.key} cannot be put on top of {parent}")
        return self._committed(parent)

    def _committed(self, key: str) -> Row:
        row = self._get(key)
        if row.kind != "committed" or not row.ready:
            raise Conflict(f"snapshot {key} is {row.kind} and cannot be a parent")
        return row

    def _create(self, key: str, parent: str, kind: SnapshotKind) -> Row:
        with self._lock:
            if key in self._rows or key in self._reserved:
                raise Conflict(f"snapshot {key} exists already")
            above = self._committed(parent) if parent else None
            row = Row(self._next, key, above, kind, ready=False)
            self._next += 1
            self._rows[key] = row
            if above is not None:
                above.children += 1
        try:
            with host("prepare snapshot"):
                self._populate(row)
            values = (self.name, row.id, key, above.id if above else None, kind)
            self._database.write_blocking(lambda c: c.execute(_INSERT, values), durable=False)
        except BaseException:
            with self._lock:
                del self._rows[key]
                if above is not None:
                    above.children -= 1
            self._discard(str(row.id))
            raise
        row.ready = True
        return row

    # Start-up

    def _load(self) -> None:
        query = "SELECT id, key, parent, kind, size, inodes FROM snapshots WHERE driver = ? ORDER BY id"
        found = self._database.read(lambda c: c.execute(query, (self.name,)).fetchall())
        by_id: dict[int, Row] = {}
        for id, key, _, kind, size, inodes in found:
            by_id[id] = self._rows[key] = Row(id, key, None, kind, Usage(size, inodes))
        for id, _, parent, *_ in found:
            if parent is not None:
                by_id[id].parent = by_id[parent]
                by_id[parent].children += 1
        names = os.listdir(self.root)
        present = {int(name) for name in names if name.isdecimal()}
        self._next = max([0, *by_id, *present]) + 1
        for name in names:
            # A number without a row, or a place that was only tried ("7.0.ab12"); never what is somebody else's.
            if name[0].isdecimal() and not (name.isdecimal() and int(name) in by_id):
                self._discard(name)
        for id in sorted(by_id.keys() - present, reverse=True):
            self._drop_lost(by_id[id])

    def _discard(self, name: str) -> None:
        """Delete a directory of ours that nothing refers to; never fails, as the next start would go on with it."""
        try:
            self._trash.throw(self.root / name)
        except OSError as error:
            # A full disk may refuse the rename, and must not keep what would make room on it.
            log.warning("snapshot %s cannot be moved away and is deleted in its place: %s", name, error)
            self._trash.delete(self.root / name)

    def _drop_lost(self, row: Row) -> None:
        if row.children:
            # Something was built on it: keep the row, so that what depends on it is reported and not made to vanish.
            log.error("the files of snapshot %s (%s) are missing", row.key, self.root / str(row.id))
            return
        log.warning("snapshot %s has no files and is dropped", row.key)
        self._database.write_blocking(lambda c: c.execute(_DELETE, (self.name, row.id)))
        del self._rows[row.key]
        if row.parent is not None:
            row.parent.children -= 1

    def _chain(self, row: Row | None) -> list[str]:
        """The files directories of `row` and its parents, topmost first."""
        found: list[str] = []
        while row is not None:
            found.append(f"{self.root}/{row.id}/fs")
            row = row.parent
        return found

    def _require(self, directory: str) -> os.stat_result:
        """`directory` must be there. Raises DataCorrupt."""
        try:
            return os.lstat(directory)
        except FileNotFoundError:
            raise DataCorrupt(f"the layer {directory} is missing; remove the image and pull it again") from None


class GroupSync:
    """syncfs of the file system of a directory; callers that come while one runs share the next."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._turn = threading.Condition()
        self._running = False
        self._begun = self._done = 0

    def __call__(self) -> None:
        with self._turn:
            needed = self._begun + 1  # one that has begun already may have missed what we wrote
            while self._running and self._done < needed:
                self._turn.wait()
            if self._done >= needed:
                return
            self._running = True
            self._begun += 1
            mine = self._begun
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                syncfs(fd)
            finally:
                os.close(fd)
        except BaseException:
            with self._turn:
                self._running = False
                self._turn.notify_all()
            raise
        with self._turn:
            self._running = False
            self._done = mine
            self._turn.notify_all()


def count_usage(root: Path) -> Usage:
    """What a tree takes on disk, hard links once. While somebody moves directories about in it, less than that."""
    seen: set[int] = set()
    first = os.lstat(root)
    size, inodes = first.st_blocks * 512, 1
    with suppress(StaleTree):
        for fd, name, _ in walk(root):
            try:
                status = os.lstat(name, dir_fd=fd)
            except FileNotFoundError:
                continue  # the container deleted it meanwhile
            if status.st_dev != first.st_dev or status.st_ino in seen:
                continue
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                seen.add(status.st_ino)
            size += status.st_blocks * 512
            inodes += 1
    return Usage(size, inodes)


def _info(row: Row) -> SnapshotInfo:
    return SnapshotInfo(row.key, row.parent.key if row.parent else "", row.kind, row.usage)

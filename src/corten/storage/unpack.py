"""Unpacking a layer into a directory, confined to it.

Every parent is opened with the directory as root (`openat2`, RESOLVE_IN_ROOT): a link in the archive may say what it
likes and is never followed out. The last component is created, never followed. Docker's rules decide what is refused:
names and hard link targets that climb out with `..`. Device nodes are made, symbolic links kept as they are.

`overlay` whiteouts become what overlayfs reads; `delete` ones remove what lower layers put there.
Imported by the layer workers: keep light.
"""

from __future__ import annotations

import errno
import os
import stat

from corten.errors import InvalidArgument, SystemFault, clip
from corten.storage.faults import words
from corten.storage.syscalls import open_in_root
from corten.storage.tarstream import (
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    TarReader,
)

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_OPAQUE_XATTR = "trusted.overlay.opaque"
# Written by an image these would send overlayfs to other places than the layer (trusted.overlay.redirect).
_RESERVED_XATTR = b"trusted.overlay."
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIR = os.O_PATH | os.O_DIRECTORY
_MAX_OPEN = 128
_UNIT = 4096
_NO_ID = 0xFFFFFFFF  # chown's "leave it", which would be root's
_MAX_NAMES = 128 << 20  # bytes of the names of directories that are kept until the end
_MAX_IMPLIED = 8 << 20  # the same of those that are told to the daemon
_MAX_TIME = 1 << 63  # nanoseconds; the calls that set times take no more
# Refusals of the host; every other errno is the archive's own doing (a name too long, a file where a parent should be).
_HOST_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EACCES,
    errno.EPERM,
}


class Unpacker:
    """Unpacks into the directory `root` (an fd, which stays the caller's). The process's umask must be 0."""

    whiteouts = True
    """Whether names that begin with `.wh.` take something away."""
    above = ""
    """What is put before names in messages, with a slash at its end."""
    reach = staticmethod(open_in_root)
    """Opens a path of the archive, below the descriptor of the root."""

    def __init__(self, root: int, *, delete: bool = False, max_size: int = 1 << 62) -> None:
        """`max_size` bytes of files at most, with their holes: some day somebody copies them, or makes an archive."""
        self._root = root
        self._size_left = self._max_size = max_size
        self._names = self._implied_names = 0
        self._delete = delete
        self._open: dict[bytes, int] = {}
        self._dir_times: dict[bytes, int] = {}
        self._setgid: set[int] = set()  # fds of directories that give their group to what is created in them
        self._written: set[bytes] = set()  # only for `delete`: what this layer itself has put there
        self._above_written: set[bytes] = set()  # and the directories on the way to it
        self.implied: dict[bytes, None] = {}
        self.size = 0
        self.inodes = 0
        self.replaced = False
        self._makers = {
            DIRECTORY: self._directory,
            SYMLINK: self._symlink,
            HARD_LINK: self._hard_link,
            CHAR: self._node,
            BLOCK_DEVICE: self._node,
            FIFO: self._node,
        }

    def run(self, reader: TarReader) -> None:
        """Unpack everything. Raises InvalidArgument for the archive's faults, SystemFault for the host's."""
        entry: Entry | None = None
        try:
            for entry in reader:
                self._one(entry, reader)
            entry = None
            self._set_times()
        except OSError as error:
            raise _translate(entry, error, self.above) from error
        except (ValueError, OverflowError) as error:  # a NUL inside a name, a number beyond what the call takes
            raise InvalidArgument(f"invalid entry {_show(entry.name if entry else b'')}: {error}") from None
        finally:
            self._close()

    def _one(self, entry: Entry, reader: TarReader) -> None:
        path = clean(entry.name)
        if path is None:
            raise InvalidArgument(f'"{_show(entry.name)}" is outside of "/"')
        if not (0 <= entry.uid < _NO_ID and 0 <= entry.gid < _NO_ID):
            raise InvalidArgument(f'invalid entry "{_show(entry.name)}": owner {entry.uid}:{entry.gid} is out of range')
        if not -_MAX_TIME <= entry.mtime_ns < _MAX_TIME:
            entry.mtime_ns = 0  # as Docker: a time that cannot be kept is none
        parent, _, base = path.rpartition(b"/")
        if not base:
            if entry.kind != DIRECTORY:
                raise InvalidArgument(f'invalid entry "{_show(entry.name)}": the root of a layer is a directory')
            self._top(entry)
            return
        if self.whiteouts and base.startswith(_WHITEOUT):
            self._whiteout(parent, base)
            return
        directory = self._directory_fd(parent)
        if self._delete:
            self._note_written(path, parent)
        if entry.kind == REGULAR:
            self._regular(entry, reader, directory, base)
        else:
            self._makers[entry.kind](entry, directory, base, path)

    def _top(self, entry: Entry) -> None:
        """The entry of the root itself."""
        self._attributes(self._root, b".", entry)
        self._dir_times[b""] = entry.mtime_ns

    def path_of(self, directory: int, base: bytes) -> bytes:
        """A path for the calls that take no directory fd. `directory` is trusted, `base` is one component."""
        return b"/proc/self/fd/%d/%s" % (directory, base)

    # Directories

    def _directory_fd(self, path: bytes) -> int:
        if not path:
            return self._root
        found = self._open.get(path)
        if found is not None:
            return found
        try:
            fd = self.reach(self._root, path, _DIR)
        except FileNotFoundError:
            fd = self._make_parents(path)
        if len(self._open) >= _MAX_OPEN:
            self._close()
        self._open[path] = fd
        if os.fstat(fd).st_mode & stat.S_ISGID:
            self._setgid.add(fd)
        return fd

    def _make_parents(self, path: bytes) -> int:
        """Directories that the archive has no entry for (yet). The last one's fd."""
        parts = path.split(b"/")
        fd, there = self._deepest(parts)
        try:
            for count in range(there + 1, len(parts) + 1):
                os.mkdir(parts[count - 1], 0o755, dir_fd=fd)
                self._imply(b"/".join(parts[:count]))
                # Made just now, so no link; looked up from above, as doing so from the root costs the depth each time.
                inner = os.open(parts[count - 1], _DIR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = inner
        except BaseException as error:
            os.close(fd)
            if isinstance(error, FileExistsError):  # a link to nothing
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
            raise
        return fd

    def _deepest(self, parts: list[bytes]) -> tuple[int, int]:
        """The fd of the deepest directory that is there on the way down `parts`, and how many of them lead to it."""
        fd, low, high = os.dup(self._root), 0, len(parts)
        try:
            while high - low > 1:
                middle = (low + high) // 2
                try:
                    inner = self.reach(self._root, b"/".join(parts[:middle]), _DIR)
                except FileNotFoundError:
                    high = middle
                    continue
                os.close(fd)
                fd, low = inner, middle
        except BaseException:
            os.close(fd)
            raise
        return fd, low

    def _imply(self, path: bytes) -> None:
        self.implied[path] = None
        self._implied_names += len(path)
        if self._implied_names > _MAX_IMPLIED:
            raise InvalidArgument("the layer has too many directories without an entry of their own")
        self._account(_UNIT)

    def _close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
        self._setgid.clear()

    def _set_times(self) -> None:
        """Of directories, last: creating something in one changes its time."""
        for path, mtime in self._dir_times.items():
            try:
                fd = self.reach(self._root, path or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError, OSError) as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # a later entry replaced it
                raise
            try:
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)

    # Kinds of entries

    def _regular(self, entry: Entry, reader: TarReader, directory: int, base: bytes) -> None:
        try:
            fd = os.open(base, _CREATE, entry.mode, dir_fd=directory)
        except FileExistsError:
            directory = self._clear(entry, directory, base)
            fd = os.open(base, _CREATE, entry.mode, dir_fd=directory)
        try:
            self._size_left -= entry.real_size or entry.size
            if self._size_left < 0:
                what = f"larger than {self._max_size} bytes unpacked, which is the daemon's limit (max-layer-size)"
                raise InvalidArgument(f"the layer is {what}")
            if entry.sparse is not None:
                _write_sparse(fd, entry, reader)
            else:
                for piece in reader.data():
                    written = os.write(fd, piece)
                    while written < len(piece):
                        written += os.write(fd, piece[written:])
            if entry.uid or entry.gid or directory in self._setgid:
                os.fchown(fd, entry.uid, entry.gid)
                if entry.mode & 0o6000:
                    os.fchmod(fd, entry.mode)  # chown takes the setuid and setgid bits away
            if entry.xattrs:
                _set_xattrs(fd, entry.xattrs)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self._account(entry.size)

    def _directory(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        opaque = False
        try:
            os.mkdir(base, 0o700, dir_fd=directory)
            self._account(_UNIT)
        except FileExistsError:
            status = os.lstat(base, dir_fd=directory)
            if not stat.S_ISDIR(status.st_mode):
                # A whiteout and then a directory of that name: nothing of the lower one may show through.
                opaque = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
                directory = self._clear(entry, directory, base)
                os.mkdir(base, 0o700, dir_fd=directory)
                self._account(_UNIT)
        self._attributes(directory, base, entry)
        if opaque and not self._delete:
            os.setxattr(self.path_of(directory, base), _OPAQUE_XATTR, b"y", follow_symlinks=False)
        if (cached := self._open.get(path)) is not None:
            self._setgid.discard(cached)
            if entry.mode & stat.S_ISGID:
                self._setgid.add(cached)
        self.implied.pop(path, None)
        if path not in self._dir_times:
            self._names += len(path)
            if self._names > _MAX_NAMES:
                raise InvalidArgument("the layer has too many directories with long names")
        self._dir_times[path] = entry.mtime_ns

    def _symlink(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        try:
            os.symlink(entry.link, base, dir_fd=directory)
        except FileExistsError:
            directory = self._clear(entry, directory, base)
            os.symlink(entry.link, base, dir_fd=directory)
        if entry.uid or entry.gid or directory in self._setgid:
            os.chown(base, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        if entry.xattrs:
            _set_xattrs(self.path_of(directory, base), entry.xattrs)
        os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)
        self._account(0)

    def _hard_link(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        target = clean(entry.link)
        if target is None:
            raise InvalidArgument(f'invalid hardlink "{_show(entry.name)}" -> "{_show(entry.link)}"')
        if target == path:
            raise InvalidArgument(f'invalid hardlink "{_show(entry.name)}" to itself')
        parent, _, name = target.rpartition(b"/")
        try:
            source = self.reach(self._root, parent, _DIR) if parent else os.dup(self._root)
        except (FileNotFoundError, NotADirectoryError):
            raise InvalidArgument(f"link {_show(entry.link)} {_show(entry.name)}: no such file or directory") from None
        try:
            if not self._link(source, name, directory, base):
                directory = self._clear(entry, directory, base)
                self._link(source, name, directory, base)
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise InvalidArgument(f"link {_show(entry.link)} {_show(entry.name)}: {words(error.errno or 0)}") from None
        finally:
            os.close(source)

    def _link(self, source: int, name: bytes, directory: int, base: bytes) -> bool:
        try:
            os.link(name, base, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            return False
        return True

    def _node(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        form = {CHAR: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}[entry.kind]
        device = 0 if entry.kind == FIFO else os.makedev(*entry.device)
        try:
            os.mknod(base, form | entry.mode, device, dir_fd=directory)
        except FileExistsError:
            directory = self._clear(entry, directory, base)
            os.mknod(base, form | entry.mode, device, dir_fd=directory)
        self._attributes(directory, base, entry)
        os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)
        self._account(0)

    def _attributes(self, directory: int, base: bytes, entry: Entry) -> None:
        """Owner, mode and xattrs of something that is certainly no link."""
        os.chown(base, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        os.chmod(base, entry.mode, dir_fd=directory)
        if entry.xattrs:
            _set_xattrs(self.path_of(directory, base), entry.xattrs)

    # Whiteouts and replacement

    def _note_written(self, path: bytes, parent: bytes) -> None:
        self._written.add(path)
        while parent and parent not in self._above_written:
            self._above_written.add(parent)
            parent = parent.rpartition(b"/")[0]

    def _whiteout(self, parent: bytes, base: bytes) -> None:
        if base == _OPAQUE:
            directory = self._directory_fd(parent)
            if self._delete:
                self._empty(parent)
            else:
                os.setxattr(self.path_of(directory, b"."), _OPAQUE_XATTR, b"y")
            return
        if base.startswith(b".wh..wh."):
            return  # aufs kept its own books in the layers of its time; they mean nothing
        name = base[len(_WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise InvalidArgument(f"invalid whiteout {_show(base)}")
        directory = self._directory_fd(parent)
        if self._delete:
            if (parent + b"/" + name if parent else name) not in self._written:
                self._remove(directory, name)
            return
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)
        except FileExistsError:
            return  # a whiteout concerns lower layers only, and this layer has put something there itself
        self._account(0)

    def _clear(self, entry: Entry, directory: int, base: bytes) -> int:
        """Make way for `entry`, as the last entry of a name wins. The parent's fd, which may be another one now."""
        self._remove(directory, base)
        path = clean(entry.name)
        return self._directory_fd(path.rpartition(b"/")[0]) if path else directory

    def _remove(self, directory: int, name: bytes) -> None:
        try:
            status = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            return
        self.replaced = True
        if stat.S_ISDIR(status.st_mode):
            _remove_tree(self.path_of(directory, name))
        else:
            os.unlink(name, dir_fd=directory)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
            self._close()  # cached parents may have led through it

    def _empty(self, top: bytes) -> None:
        """For `delete`: an opaque directory loses what this layer has not put there."""
        left = [top]
        while left:
            parent = left.pop()
            fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._directory_fd(parent))
            try:
                names = [os.fsencode(name) for name in os.listdir(fd)]
            finally:
                os.close(fd)
            for name in names:
                path = parent + b"/" + name if parent else name
                directory = self._directory_fd(parent)
                if path not in self._written and path not in self._above_written:
                    self._remove(directory, name)
                elif stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
                    left.append(path)

    def _account(self, size: int) -> None:
        self.size += -(-size // _UNIT) * _UNIT
        self.inodes += 1


def clean(name: bytes) -> bytes | None:
    """`name` relative to the root and without empty parts, `.` and `..`; None when it climbs out."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
        elif not name.startswith(b"/"):
            return None
    return b"/".join(parts)


def _set_xattrs(target: int | bytes, xattrs: dict[bytes, bytes]) -> None:
    for name, value in xattrs.items():
        if name.startswith(_RESERVED_XATTR):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            # As Docker: a file system, or a kind of file, that takes no such attribute does not fail the layer.
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def _write_sparse(fd: int, entry: Entry, reader: TarReader) -> None:
    segments = iter(entry.sparse or ())
    offset = room = 0
    for piece in reader.data():
        while piece:
            while not room:
                offset, room = next(segments)
            written = os.pwrite(fd, piece[:room], offset)
            piece = piece[written:]
            offset, room = offset + written, room - written
    os.ftruncate(fd, entry.real_size)


def _remove_tree(path: bytes) -> None:
    """Everything below `path`, and it. Links are removed, not followed. Of any depth: an image may say how deep."""
    from pathlib import Path

    from corten.storage.walking import delete_tree

    delete_tree(Path(os.fsdecode(path)))


def _show(name: bytes) -> str:
    return clip(name.decode("utf-8", "replace"), 300)


def _translate(entry: Entry | None, error: OSError, above: str) -> InvalidArgument | SystemFault:
    number = error.errno or 0
    what = f"/{above}{_show(entry.name).lstrip('/')}" if entry else "directory times"
    message = f"unpack {what}: {words(number)}"
    if number in _HOST_ERRORS:
        return SystemFault(message, step="unpack", errno=number)
    return InvalidArgument(message)

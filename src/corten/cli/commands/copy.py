"""`corten cp`."""

from __future__ import annotations

import os
import stat

from corten.cli.commands.archive import open_input, read_chunks
from corten.cli.context import Context, say_error
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.cli.streams import write_all
from corten.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Json = dict[str, Any]

_DIRECTORY, _LINK = 1 << 31, 1 << 27  # os.FileMode of Go


def _run(context: Context, options: Options) -> None:
    (from_container, source), (to_container, target) = (_split(text) for text in options.args)
    if from_container and to_container:
        raise CliError("copying between containers is not supported")
    if not from_container and not to_container:
        raise CliError("must specify at least one container source")
    if from_container:
        size = _copy_out(context, options, from_container, source, target)
        shown = target
    else:
        size = _copy_in(context, options, source, to_container, target)
        shown = f"{to_container}:{target}"
    if shown != "-" and not options["quiet"]:
        say_error(f"Successfully copied {human_size(size)} to {shown}")


def _split(text: str) -> tuple[str, str]:
    """Container ("" for a path here) and path."""
    container, colon, path = text.partition(":")
    if text.startswith("/") or not colon or container.startswith("."):
        return "", text
    return container, path


# Out of a container


def _copy_out(context: Context, options: Options, container: str, source: str, target: str) -> int:
    files = context.client.files
    path = _absolute(source)
    if options["follow-link"]:
        found = files.stat(container, path)
        if found is not None and found["mode"] & _LINK:
            path = found["linkTarget"]
    if target != "-" and not os.path.isdir(folder := os.path.dirname(target.rstrip("/")) or "."):
        raise CliError(f'invalid output path: directory "{os.path.abspath(folder)}" does not exist')
    found, chunks = files.read(container, path)
    if target == "-":
        for chunk in chunks:
            write_all(1, chunk)
        return 0
    is_directory = bool(found["mode"] & _DIRECTORY)
    name = os.path.basename(source.rstrip("/")) or found["name"]
    place = _place_here(target, name, is_directory=is_directory, content=source.endswith("/."))
    from corten.cli.unpacking import unpack

    return unpack(chunks, found["name"], place)


def _place_here(target: str, name: str, *, is_directory: bool, content: bool) -> str:
    """The path here that the copy gets. Raises CliError."""
    if os.path.isdir(target):
        return target if is_directory and (content or name in ("/", ".")) else os.path.join(target, name)
    if os.path.lexists(target.rstrip("/")):
        if is_directory:
            raise CliError("cannot copy directory")
        if target.endswith("/"):
            raise CliError("not a directory")
    elif target.endswith("/") and not is_directory:
        raise CliError("no such directory")
    return target.rstrip("/")


def _absolute(path: str) -> str:
    return path if path.startswith("/") else "/" + path


# Into a container


def _copy_in(context: Context, options: Options, source: str, container: str, target: str) -> int:
    files, path = context.client.files, _absolute(target)
    found = files.stat(container, path)
    if found is not None and found["mode"] & _LINK:
        path = found["linkTarget"]
        found = files.stat(container, path)
    is_directory = found is not None and bool(found["mode"] & _DIRECTORY)
    if source == "-":
        if not is_directory:
            raise CliError(f'destination "{container}:{target}" must be a directory')
        files.write(container, path, read_chunks(0), own_by_user=options["archive"])
        return 0
    try:
        status = os.stat(source) if options["follow-link"] or source.endswith(("/", "/.")) else os.lstat(source)
    except OSError as error:
        raise CliError(f"lstat {os.path.abspath(source)}: {(error.strerror or '').lower()}") from None
    directory, name = _place_there(path, source, status, exists=found is not None, is_directory=is_directory)
    counter = _Counter(_packed(source, status, name))
    files.write(container, directory, counter, own_by_user=options["archive"])
    return counter.size


def _place_there(
    path: str, source: str, status: os.stat_result, *, exists: bool, is_directory: bool
) -> tuple[str, str]:
    """The directory in the container to unpack in, and the name that the copy gets there. Raises CliError."""
    ours = stat.S_ISDIR(status.st_mode)
    if is_directory:
        content = ours and (source.endswith("/.") or source == ".")
        return path, "." if content else os.path.basename(os.path.abspath(source))
    if exists and ours:
        raise CliError("cannot copy directory")
    if path.endswith("/"):
        if exists:
            raise CliError("not a directory")
        if not ours:
            raise CliError("no such directory")
    above, _, name = path.rstrip("/").rpartition("/")
    return above or "/", name


class _Counter:
    """Passes an archive on; `size` is what has gone by."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size += len(chunk)
            yield chunk


def _packed(source: str, status: os.stat_result, name: str) -> Iterator[bytes]:
    """A tar of what is at `source`, called `name`, in pieces of a quarter of a megabyte or so."""
    import tarfile

    links: dict[tuple[int, int], str] = {}
    pending: list[bytes] = []
    size = 0
    for path, shown, found in _walk(source, name, status):
        info = _info(path, shown, found, links)
        if info is None:
            continue
        pending.append(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        size += len(pending[-1])
        if info.isreg() and info.size:
            for piece in _content(path, info.size):
                pending.append(piece)
                size += len(piece)
                if size >= 1 << 18:
                    yield b"".join(pending)
                    pending, size = [], 0
    yield b"".join([*pending, bytes(1024)])


def _walk(path: str, shown: str, status: os.stat_result) -> Iterator[tuple[str, str, os.stat_result]]:
    yield path, shown, status
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            yield from _walk(entry.path, f"{shown}/{entry.name}", entry.stat(follow_symlinks=False))


def _info(path: str, shown: str, status: os.stat_result, links: dict[tuple[int, int], str]) -> Any:
    """None for a socket, which an archive cannot hold."""
    import tarfile

    kinds = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    info = tarfile.TarInfo(shown + "/" if kind == tarfile.DIRTYPE else shown)
    info.type, info.mode = kind, stat.S_IMODE(status.st_mode)
    info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    if kind == tarfile.SYMTYPE:
        info.linkname = os.readlink(path)
        return info
    if kind != tarfile.DIRTYPE and status.st_nlink > 1:
        first = links.setdefault((status.st_dev, status.st_ino), shown)
        if first != shown:
            info.type, info.linkname = tarfile.LNKTYPE, first
            return info
    if kind == tarfile.REGTYPE:
        info.size = status.st_size
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return info


def _content(path: str, size: int) -> Iterator[bytes]:
    """`size` bytes of a file and what fills the last block; zeros for what it has lost meanwhile."""
    fd = open_input(path)
    try:
        left = size
        while left:
            piece = os.read(fd, min(left, 1 << 18)) or bytes(min(left, 1 << 18))
            left -= len(piece)
            yield piece
    finally:
        os.close(fd)
    if size % 512:
        yield bytes(-size % 512)


CP = Command(
    "container cp",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tcorten cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    _run,
    (
        Flag("archive", "a", "bool", "Give the copies to the user that the container runs as"),
        Flag("follow-link", "L", "bool", "Copy what a link at SRC_PATH leads to"),
        Flag("quiet", "q", "bool", "Do not say what was copied"),
    ),
    least=2,
    most=2,
)

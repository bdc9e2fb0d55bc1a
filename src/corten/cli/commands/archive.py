"""`corten load`, `save`, `import`."""

from __future__ import annotations

import os
import sys

from corten.cli import progress
from corten.cli.context import Context
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.cli.streams import write_all
from corten.cli.terminal import is_terminal
from corten.cli.values import comma_separated
from corten.client.session import raise_stream_errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CHUNK = 256 * 1024


def read_chunks(fd: int) -> Iterator[bytes]:
    """The bytes of `fd` to its end."""
    while chunk := os.read(fd, CHUNK):
        yield chunk


def open_input(path: str) -> int:
    """A readable fd of `path`. Raises CliError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or '').lower()}") from None


def write_file(path: str, chunks: Iterable[bytes]) -> None:
    """`chunks` in `path`, which appears when they are complete and keeps what it had when they are not."""
    temporary = f"{path}.{os.getpid()}.tmp"
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise CliError(f"invalid output path: stat {folder}: no such file or directory")
    if os.path.exists(path) and not os.path.isfile(path):
        # A pipe or a device cannot be replaced, only written to.
        fd = os.open(path, os.O_WRONLY)
        for chunk in chunks:
            write_all(fd, chunk)
        os.close(fd)
        return
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def write_out(path: str, chunks: Iterable[bytes]) -> None:
    """`chunks` in `path`, or on stdout when that is no terminal."""
    if path:
        write_file(path, chunks)
        return
    for chunk in chunks:
        write_all(1, chunk)


def refuse_terminal(output: str) -> None:
    if not output and is_terminal(1):
        raise CliError("cowardly refusing to save to a terminal. Use the -o flag or redirect")


def load_tar(context: Context, tar: Iterable[bytes], *, quiet: bool, platforms: Sequence[str] = ()) -> None:
    """Loads a tar of images and shows what the daemon says of it."""
    response = context.client.archives.load(tar, quiet=quiet or not is_terminal(1), platforms=platforms)
    if "json" in response.head.headers.get("content-type", ""):
        progress.show(raise_stream_errors(response.lines()), sys.stdout, terminal=is_terminal(1))
        return
    for chunk in response.chunks():
        write_all(1, chunk)


def _load(context: Context, options: Options) -> None:
    if not options["input"] and is_terminal(0):
        raise CliError("requested load from stdin, but stdin is empty")
    fd = open_input(options["input"]) if options["input"] else 0
    load_tar(context, read_chunks(fd), quiet=options["quiet"], platforms=comma_separated(options["platform"]))


def _save(context: Context, options: Options) -> None:
    refuse_terminal(options["output"])
    try:
        write_out(
            options["output"],
            context.client.archives.save(options.args, platforms=comma_separated(options["platform"])),
        )
    except CliError as error:
        raise CliError(f"failed to save image: {error}") from None


def _import(context: Context, options: Options) -> None:
    source, name = options.args[0], options.args[1] if len(options.args) > 1 else ""
    archives, message, changes = context.client.archives, options["message"], options["change"]
    if source.startswith(("http://", "https://", "ftp://")):
        messages = archives.import_from(
            source, name=name, message=message, changes=changes, platform=options["platform"]
        )
    else:
        fd = 0 if source == "-" else open_input(source)
        messages = archives.import_tar(
            read_chunks(fd), name=name, message=message, changes=changes, platform=options["platform"]
        )
    progress.show(messages, sys.stdout, terminal=is_terminal(1))


LOAD = Command(
    "image load",
    "[OPTIONS]",
    _load,
    (
        Flag("input", "i", "string", "Read from a tar file, instead of STDIN"),
        Flag("platform", "", "list*", "Load only the given platforms", says="strings"),
        Flag("quiet", "q", "bool", "Suppress the load output"),
    ),
    most=0,
)
SAVE = Command(
    "image save",
    "[OPTIONS] IMAGE [IMAGE...]",
    _save,
    (
        Flag("output", "o", "string", "Write to a file, instead of STDOUT"),
        Flag("platform", "", "list*", "Save only the given platforms", says="strings"),
    ),
    least=1,
)
IMPORT = Command(
    "image import",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    _import,
    (
        Flag("change", "c", "list*", "Apply a Dockerfile instruction to the image"),
        Flag("message", "m", "string", "Set a comment for the image"),
        Flag("platform", "", "string", "Platform of the image"),
    ),
    least=1,
    most=2,
)

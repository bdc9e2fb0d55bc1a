"""Changing config.json: what others keep in it stays as it is, and nobody but its owner can read it."""

from __future__ import annotations

import json
import os

from corten.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]


def path_in(config_dir: str) -> str:
    return os.path.join(config_dir, "config.json")


def change(config_dir: str, edit: Callable[[Json], None]) -> None:
    """Let `edit` work on the file's content, then put the new file in the place of the old at one stroke.

    Raises CliError for a file that is not understood, which is left alone, and OSError.
    """
    os.makedirs(config_dir, mode=0o700, exist_ok=True)
    # A link, to a file that is kept with others of its kind, stays one.
    path = os.path.realpath(path_in(config_dir))
    content, owner = _read(path)
    edit(content)
    temporary = f"{path}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(content, file, indent="\t")
            file.flush()
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(fd, *owner)
            os.fsync(fd)
        os.rename(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _read(path: str) -> tuple[Json, tuple[int, int] | None]:
    """Content and owner (uid, gid), which is None for a file that is not there."""
    try:
        with open(path, encoding="utf-8") as file:
            stat = os.fstat(file.fileno())
            text = file.read()
    except FileNotFoundError:
        return {}, None
    try:
        content = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise CliError(f"{path} is not JSON ({error}): it is left as it is") from None
    if not isinstance(content, dict):
        raise CliError(f"{path} does not hold an object: it is left as it is")
    return content, (stat.st_uid, stat.st_gid)

"""Users and groups as the container's own /etc/passwd and /etc/group have them."""

from __future__ import annotations

import errno

from corten.linux.inroot import read_file
from corten.runtime.child.errors import ChildFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Identity = tuple[int, int, list[int], str]
    """uid, gid, supplementary groups, home directory."""

_STEP = "resolve user"
_MAX_ID = 2147483647
_MAX_FILE = 4 << 20


def resolve(root_fd: int, user: str, groups: Sequence[str]) -> Identity:
    """`user` is "name|uid[:group|gid]"; `groups` are further names or numbers. Raises ChildFailed in Docker's words."""
    return resolve_text(
        user, groups, read_file(root_fd, "/etc/passwd", _MAX_FILE), read_file(root_fd, "/etc/group", _MAX_FILE)
    )


def home_of(root_fd: int, uid: int) -> str:
    """The home directory of a uid, "/" when it has none."""
    for fields in _records(read_file(root_fd, "/etc/passwd", _MAX_FILE), 6):
        if _number(fields[2]) == uid:
            return fields[5] or "/"
    return "/"


def resolve_text(user: str, groups: Sequence[str], passwd: bytes, group: bytes) -> Identity:
    """`resolve` on the texts of the two files.

    A number needs no entry. With a group given, the groups that list the user as a member are not joined. A name that
    looks like a number but is in the file is that entry's.
    """
    name, _, group_name = user.partition(":")
    uid, gid, home, login = _find_user(name, passwd)
    members = [_number(fields[2]) for fields in _records(group, 4) if login and login in fields[3].split(",")]
    supplementary = [found for found in members if found is not None]
    if group_name:
        gid, supplementary = _find_group(group_name, group), []
    for extra in groups:
        number = _find_group(extra, group)
        if number not in supplementary:
            supplementary.append(number)
    return uid, gid, supplementary, home


def _find_user(name: str, passwd: bytes) -> tuple[int, int, str, str]:
    """uid, gid, home and login name; the last is "" for a number without an entry."""
    wanted = _number(name or "0")
    for fields in _records(passwd, 6):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            continue
        if fields[0] == name or uid == wanted:
            _check_range(uid, gid)
            return uid, gid, fields[5] or "/", fields[0]
    if wanted is None:
        raise ChildFailed(_STEP, errno.ENOENT, f"unable to find user {name}: no matching entries in passwd file")
    _check_range(wanted, 0)
    return wanted, 0, "/", ""


def _find_group(name: str, group: bytes) -> int:
    wanted = _number(name)
    for fields in _records(group, 3):
        gid = _number(fields[2])
        if gid is not None and (fields[0] == name or gid == wanted):
            _check_range(0, gid)
            return gid
    if wanted is None:
        raise ChildFailed(_STEP, errno.ENOENT, f"unable to find group {name}: no matching entries in group file")
    _check_range(0, wanted)
    return wanted


def _records(text: bytes, least: int) -> Iterator[list[str]]:
    for line in text.decode("utf-8", "replace").splitlines():
        fields = line.strip().split(":")
        if len(fields) >= least and not line.startswith("#"):
            yield fields


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _check_range(uid: int, gid: int) -> None:
    if uid > _MAX_ID or gid > _MAX_ID:
        raise ChildFailed(_STEP, errno.ERANGE, f"uids and gids must be in range 0-{_MAX_ID}")

"""`--userns-remap`: from a user's name to ranges of subordinate ids, in Docker's forms and with Docker's words.

/etc/subuid and /etc/subgid have a line for each range: owner (a name or a uid), first id, how many (subuid(5)).
"""

from __future__ import annotations

import grp
import logging
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from corten.engine.remap import Mapping, Remap
from corten.errors import InvalidArgument, SystemFault, clip

log = logging.getLogger(__name__)

DEFAULT = "default"
DEFAULT_USER = "dockremap"
FIRST_ID = 100_000
RANGE = 65_536
SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")
_ID_LIMIT = 2**32 - 1  # (uid_t)-1 is no id
_MAX_RANGES = 340  # user_namespaces(7)


def resolve(value: str) -> Remap | None:
    """What `--userns-remap=value` comes to; None for "" and for root, who cannot be remapped to himself.

    "default" makes the user and group `dockremap`, and their ranges, where they are missing. Raises InvalidArgument or
    SystemFault.
    """
    if not value:
        return None
    user, group = _accounts(value)
    if user.pw_name == "root":
        log.warning("user namespaces: root cannot be remapped with itself; user namespaces are OFF")
        return None
    if value.partition(":")[0] == DEFAULT:
        _ensure_ranges(user.pw_name)
    owner = (user.pw_name, str(user.pw_uid))
    uids = read_ranges(SUBUID, owner)
    # Docker looks for the user's name in both files, its older versions for the group's in the second.
    gids = read_ranges(SUBGID, owner) or read_ranges(SUBGID, (group.gr_name, str(group.gr_gid)))
    for path, kind, found in ((SUBUID, "subuid", uids), (SUBGID, "subgid", gids)):
        if not found:
            raise InvalidArgument(
                f'Can\'t create ID mappings: no {kind} ranges found for user "{user.pw_name}" in {path}'
            )
    log.info("user namespaces: ID ranges will be mapped to subuid/subgid ranges of: %s", user.pw_name)
    return Remap(user.pw_name, mappings(uids), mappings(gids))


def _accounts(value: str) -> tuple[pwd.struct_passwd, grp.struct_group]:
    name, separator, group = value.partition(":")
    if ":" in group or not name or (separator and not group):
        raise InvalidArgument(f'Invalid user/group specification in --userns-remap: "{clip(value, 80)}"')
    user = _user(name)
    if not separator:
        # Without a group: the one of the same name, or of the same number.
        group = name if _is_number(name) else user.pw_name
    return user, _group(group)


def _user(name: str) -> pwd.struct_passwd:
    try:
        if _is_number(name):
            return pwd.getpwuid(int(name))
        return pwd.getpwnam(DEFAULT_USER if name == DEFAULT else name)
    except (KeyError, OverflowError):
        if name == DEFAULT:
            _make_user(DEFAULT_USER)
            return pwd.getpwnam(DEFAULT_USER)
        if _is_number(name):
            raise InvalidArgument(f"Uid {clip(name, 20)} has no entry in /etc/passwd") from None
        raise InvalidArgument(f'Error during uid lookup for "{clip(name, 40)}": no such user') from None


def _group(name: str) -> grp.struct_group:
    try:
        return grp.getgrgid(int(name)) if _is_number(name) else grp.getgrnam(name)
    except (KeyError, OverflowError):
        if _is_number(name):
            raise InvalidArgument(f"Gid {clip(name, 20)} has no entry in /etc/group") from None
        raise InvalidArgument(f'Error during gid lookup for "{clip(name, 40)}": no such group') from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def read_ranges(path: Path, owners: Sequence[str]) -> list[tuple[int, int]]:
    """(first id, how many) of each range that belongs to one of `owners`, in the file's order; [] without the file.

    Lines of others are passed over, broken ones too. Raises InvalidArgument, with file and line, for a broken range of
    these owners, one that has the host's root in it, and two that overlap.
    """
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SystemFault(f"cannot read {path}: {error.strerror}", errno=error.errno or 0) from None
    found: list[tuple[int, int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.strip().split(":")
        if line.strip().startswith("#") or fields[0] not in owners:
            continue
        found.append(_range(fields, f"{path}, line {number}: {clip(line.strip(), 80)}"))
        first, count = found[-1]
        if any(first < other + size and other < first + count for other, size in found[:-1]):
            raise InvalidArgument(f"{path}, line {number}: the range overlaps an earlier one of {fields[0]}")
    if len(found) > _MAX_RANGES:
        raise InvalidArgument(f"{path}: the kernel takes at most {_MAX_RANGES} ranges, {owners[0]} has {len(found)}")
    return found


def _range(fields: Sequence[str], where: str) -> tuple[int, int]:
    if len(fields) != 3 or not all(map(_is_number, fields[1:])):
        raise InvalidArgument(f"{where}: must be NAME:FIRST:COUNT")
    first, count = int(fields[1]), int(fields[2])
    if first < 1:
        raise InvalidArgument(f"{where}: the host's root must not be in a range of subordinate ids")
    if count < 1 or first + count > _ID_LIMIT:
        raise InvalidArgument(f"{where}: the range is empty or ends above {_ID_LIMIT - 1}")
    return first, count


def mappings(ranges: Sequence[tuple[int, int]]) -> tuple[Mapping, ...]:
    """Ids inside count on from 0 through all the ranges."""
    inside, found = 0, []
    for first, count in ranges:
        found.append((inside, first, count))
        inside += count
    if inside < RANGE:
        log.warning("the remapped ids end at %d: images with files of higher ids will not fit", inside - 1)
    return tuple(found)


def free_start(text: str) -> int:
    """Where a new range can begin: 100000, or behind what lies there. Broken lines take no room."""
    start = FIRST_ID
    taken = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and all(map(_is_number, fields[1:])):
            taken.append((int(fields[1]), int(fields[2])))
    for first, count in sorted(taken):
        if first < start + RANGE and start < first + count:
            start = first + count
    return start


def _make_user(name: str) -> None:
    """A system account without a home or a shell, and its group."""
    _run("user", name, ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/bin/false", name])
    log.info("made the user and group %s", name)


def _ensure_ranges(name: str) -> None:
    uid = str(pwd.getpwnam(name).pw_uid)
    for path, option in ((SUBUID, "--add-subuids"), (SUBGID, "--add-subgids")):
        if not read_ranges(path, (name, uid)):
            start = free_start(path.read_text(errors="replace") if path.exists() else "")
            _run("subordinate id", name, ["usermod", option, f"{start}-{start + RANGE - 1}", name])


def _run(what: str, name: str, command: Sequence[str]) -> None:
    failed = f'Error during "{name}" {what} creation'
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        hint = f"make the user {name} and its lines in {SUBUID} and {SUBGID} by hand"
        raise SystemFault(f"{failed}: {command[0]}: {error.strerror}; {hint}", errno=error.errno or 0) from None
    if done.returncode:
        raise SystemFault(f"{failed}: {clip(done.stderr.strip() or f'{command[0]} has failed', 200)}")

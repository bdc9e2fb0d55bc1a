"""`--userns-remap` from its words to ranges, with account files that are right and ones that are not."""

from __future__ import annotations

import grp
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from corten.daemon import subids
from corten.engine.remap import Remap
from corten.errors import InvalidArgument, SystemFault


class Accounts:
    """Account databases and the two files of ranges, in place of the host's; commands are carried out on them."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.users = {"root": 0, "app": 1000, "bare": 1001}
        self.groups = {"root": 0, "app": 1000, "staff": 50}
        self.subuid, self.subgid = place / "subuid", place / "subgid"
        self.subuid.write_text("app:100000:65536\n")
        self.subgid.write_text("app:200000:65536\n")
        self.commands: list[list[str]] = []
        self.refusal: Exception | str = ""
        monkeypatch.setattr(subids, "SUBUID", self.subuid)
        monkeypatch.setattr(subids, "SUBGID", self.subgid)
        monkeypatch.setattr(pwd, "getpwnam", lambda name: self.user(name, self.users[name]))
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: self.user(_named(self.users, uid), uid))
        monkeypatch.setattr(grp, "getgrnam", lambda name: self.group(name, self.groups[name]))
        monkeypatch.setattr(grp, "getgrgid", lambda gid: self.group(_named(self.groups, gid), gid))
        monkeypatch.setattr(subprocess, "run", self.run)

    def user(self, name: str, uid: int) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/false"))

    def group(self, name: str, gid: int) -> grp.struct_group:
        return grp.struct_group((name, "x", gid, []))

    def run(self, command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(list(command))
        if isinstance(self.refusal, Exception):
            raise self.refusal
        if self.refusal:
            return subprocess.CompletedProcess(command, 1, "", self.refusal)
        if command[0] == "useradd":
            self.users[command[-1]] = self.groups[command[-1]] = 998
        else:
            first, last = map(int, command[2].split("-"))
            path = self.subuid if command[1] == "--add-subuids" else self.subgid
            old = path.read_text() if path.exists() else ""
            path.write_text(f"{old}{command[3]}:{first}:{last - first + 1}\n")
        return subprocess.CompletedProcess(command, 0, "", "")


def _named(table: dict[str, int], number: int) -> str:
    for name, known in table.items():
        if known == number:
            return name
    raise KeyError(number)


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    return Accounts(tmp_path, monkeypatch)


APP = Remap("app", ((0, 100000, 65536),), ((0, 200000, 65536),))


@pytest.mark.parametrize("value", ["app", "app:app", "app:staff", "1000", "1000:1000", "1000:50", "app:50"])
def test_every_form_names_the_same_user(accounts: Accounts, value: str) -> None:
    assert subids.resolve(value) == APP
    assert APP.root == (100000, 200000)
    assert accounts.commands == []


@pytest.mark.parametrize("value", ["", "root", "root:root", "0", "0:0"])
def test_nothing_and_root_are_not_remapped(accounts: Accounts, value: str) -> None:
    assert subids.resolve(value) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a:b:c", 'Invalid user/group specification in --userns-remap: "a:b:c"'),
        (":app", "Invalid user/group specification"),
        ("app:", "Invalid user/group specification"),
        ("nobodyhere", 'Error during uid lookup for "nobodyhere"'),
        ("app:nogroup", 'Error during gid lookup for "nogroup"'),
        ("bare", 'Error during gid lookup for "bare"'),
        ("77", "Uid 77 has no entry in /etc/passwd"),
        ("1001", "Gid 1001 has no entry in /etc/group"),
        ("1000:77", "Gid 77 has no entry in /etc/group"),
        ("99999999999999999999", "Uid 99999999999999999999 has no entry"),
        ("bare:app", 'no subuid ranges found for user "bare"'),
    ],
)
def test_who_is_not_there_is_named(accounts: Accounts, value: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        subids.resolve(value)
    assert message in caught.value.message


def test_several_ranges_count_on_inside(accounts: Accounts) -> None:
    accounts.subuid.write_text("other:1:5\napp:300000:1000\n\n# app:1:1\n1000:100000:65536\n")
    remap = subids.resolve("app")
    assert remap is not None
    assert remap.uids == ((0, 300000, 1000), (1000, 100000, 65536))
    assert remap.key == "0:300000:1000,1000:100000:65536/0:200000:65536"


def test_the_groups_own_ranges_serve_where_the_user_has_none(accounts: Accounts) -> None:
    accounts.subgid.write_text("staff:400000:65536\n")
    remap = subids.resolve("app:staff")
    assert remap is not None
    assert remap.gids == ((0, 400000, 65536),)
    with pytest.raises(InvalidArgument, match='no subgid ranges found for user "app"'):
        subids.resolve("app")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("app:100000", "line 2: app:100000: must be NAME:FIRST:COUNT"),
        ("app", "must be NAME:FIRST:COUNT"),
        ("app:1e5:65536", "must be NAME:FIRST:COUNT"),
        ("app:-1:65536", "must be NAME:FIRST:COUNT"),
        ("app:100000:65536:1", "must be NAME:FIRST:COUNT"),
        ("app: 100000:65536", "must be NAME:FIRST:COUNT"),
        ("app:0:65536", "the host's root must not be in a range"),
        ("app:100000:0", "the range is empty or ends above"),
        ("app:4294900000:67296", "the range is empty or ends above 4294967294"),
        ("app:50001:50000\napp:100000:65536", "line 3: the range overlaps an earlier one of app"),
    ],
)
def test_broken_ranges_are_refused_with_file_and_line(accounts: Accounts, line: str, message: str) -> None:
    accounts.subuid.write_text(f"this line is somebody else's\n{line}\n")
    with pytest.raises(InvalidArgument) as caught:
        subids.resolve("app")
    assert str(accounts.subuid) in caught.value.message
    assert message in caught.value.message


def test_the_kernels_limit_of_ranges(accounts: Accounts) -> None:
    accounts.subuid.write_text("".join(f"app:{100000 + index * 10}:10\n" for index in range(341)))
    with pytest.raises(InvalidArgument, match="at most 340 ranges, app has 341"):
        subids.resolve("app")


def test_files_that_are_missing_or_not_text(accounts: Accounts) -> None:
    accounts.subuid.unlink()
    with pytest.raises(InvalidArgument, match="no subuid ranges"):
        subids.resolve("app")
    accounts.subuid.write_bytes(b"\xff\xfe\x00:1:1\napp:100000:65536\n")
    assert subids.resolve("app") == APP
    accounts.subuid.unlink()
    accounts.subuid.mkdir()
    with pytest.raises(SystemFault, match="cannot read"):
        subids.resolve("app")


def test_default_makes_the_user_and_free_ranges_once(accounts: Accounts) -> None:
    accounts.subgid.unlink()
    remap = subids.resolve("default")
    assert remap == Remap("dockremap", ((0, 165536, 65536),), ((0, 100000, 65536),))
    assert [command[0] for command in accounts.commands] == ["useradd", "usermod", "usermod"]
    assert subids.resolve("default") == remap
    assert len(accounts.commands) == 3


def test_default_that_cannot_be_made_says_why(accounts: Accounts) -> None:
    accounts.refusal = "useradd: cannot lock /etc/passwd; try again later."
    with pytest.raises(SystemFault, match='Error during "dockremap" user creation: useradd: cannot lock'):
        subids.resolve("default")
    accounts.refusal = FileNotFoundError(2, "No such file or directory")
    with pytest.raises(SystemFault, match="by hand"):
        subids.resolve("default")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", 100000),
        ("a:100000:65536\n", 165536),
        ("a:231072:65536\nb:100000:65536\n", 165536),
        ("b:165536:65536\na:100000:65536\n", 231072),
        ("a:150000:10\n", 150010),
        ("a:1:1000\nbroken\na:x:1\n", 100000),
    ],
)
def test_a_new_range_lies_where_nobodys_is(text: str, start: int) -> None:
    assert subids.free_start(text) == start

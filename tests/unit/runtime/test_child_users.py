"""/etc/passwd and /etc/group, as an image may have them."""

from __future__ import annotations

import pytest

from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.users import resolve_text

PASSWD = b"""# comment:x:9:9::/c:
root:x:0:0:root:/root:/bin/sh
broken line
short:x:5
bad:x:abc:1::/bad:/bin/sh
web:x:1000:1001:Web:/srv:/bin/sh
42:x:43:44::/named:/bin/sh
nohome:x:50:50:::
"""
GROUP = b"""root:x:0:
web:x:1001:
wheel:x:10:root,web
staff:x:20:web
odd:x:zz:web
77:x:78:
"""


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", (), (0, 0, [10], "/root")),
        ("root", (), (0, 0, [10], "/root")),
        ("web", (), (1000, 1001, [10, 20], "/srv")),
        ("1000", (), (1000, 1001, [10, 20], "/srv")),
        ("web:staff", (), (1000, 20, [], "/srv")),
        ("web:5", (), (1000, 5, [], "/srv")),
        ("9999", (), (9999, 0, [], "/")),
        ("42", (), (43, 44, [], "/named")),
        ("nohome", (), (50, 50, [], "/")),
        ("web", ("wheel", "staff", "6"), (1000, 1001, [10, 20, 6], "/srv")),
        ("9999", ("77",), (9999, 0, [78], "/")),
    ],
)
def test_resolved(user: str, groups: tuple[str, ...], expected: tuple[int, int, list[int], str]) -> None:
    assert resolve_text(user, groups, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    ("user", "groups", "words"),
    [
        ("foo", (), "unable to find user foo: no matching entries in passwd file"),
        ("bad", (), "unable to find user bad: no matching entries in passwd file"),
        ("web:foo", (), "unable to find group foo: no matching entries in group file"),
        ("web", ("foo",), "unable to find group foo: no matching entries in group file"),
        ("2147483648", (), "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", (), "uids and gids must be in range 0-2147483647"),
        ("-1", (), "unable to find user -1: no matching entries in passwd file"),
    ],
)
def test_refused(user: str, groups: tuple[str, ...], words: str) -> None:
    with pytest.raises(ChildFailed) as caught:
        resolve_text(user, groups, PASSWD, GROUP)
    assert caught.value.detail == words
    assert caught.value.exit_code == 128


def test_no_files_at_all() -> None:
    assert resolve_text("", (), b"", b"") == (0, 0, [], "/")
    assert resolve_text("7:8", (), b"", b"") == (7, 8, [], "/")
    assert resolve_text("0", (), b"\xff\xfe\0:::::::\n" * 3, b"\xff") == (0, 0, [], "/")

"""Go's path.Match."""

from __future__ import annotations

import pytest

from corten.api.docker.patterns import path_pattern
from corten.errors import InvalidArgument


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a*", "abc", True),
        ("a*", "a/b", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[!a]x", "!x", True),
        ("[c-a]x", "bx", False),
        ("[^c-a]x", "bx", True),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        (r"[\]]", "]", True),
        ("a.c", "abc", False),
        ("*/*", "a/b", True),
        ("", "", True),
    ],
)
def test_matching(pattern: str, text: str, matches: bool) -> None:
    assert (path_pattern(pattern).fullmatch(text) is not None) == matches


@pytest.mark.parametrize("pattern", ["[", "[]", "[]a]", "[a", "[-]", "[a-]", "a\\", "[\\", "[^"])
def test_what_is_malformed(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        path_pattern(pattern)

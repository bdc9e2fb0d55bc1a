"""Which of the repositories that an index finds a client wants to see."""

from __future__ import annotations

import pytest

from corten.api.docker.search_filters import search_test
from corten.engine.models import Filters
from corten.errors import InvalidArgument

ENTRIES = [
    {"name": "busybox", "description": "small", "star_count": 30, "is_official": True, "is_automated": False},
    {"name": "me/busybox", "description": "", "star_count": 3, "is_official": False, "is_automated": True},
]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["busybox", "me/busybox"]),
        ({"is-official": ["true"]}, ["busybox"]),
        ({"is-automated": ["1"]}, ["me/busybox"]),
        ({"stars": ["4"]}, ["busybox"]),
        ({"is-official": ["0"], "stars": ["3"]}, ["me/busybox"]),
    ],
)
def test_search(filters: Filters, names: list[str]) -> None:
    assert [entry["name"] for entry in filter(search_test(filters), ENTRIES)] == names


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"color": ["red"]}, "invalid filter 'color'"),
        ({"stars": ["many"]}, r"invalid filter 'stars=\[many\]'"),
        ({"is-official": ["maybe"]}, r"invalid filter 'is-official=\[maybe\]'"),
    ],
)
def test_a_search_that_makes_no_sense(filters: Filters, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        search_test(filters)

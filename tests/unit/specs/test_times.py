"""Points in time, lengths of time, and filters by label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.specs.filters import label_test
from corten.specs.times import SECOND, format_duration, format_time, parse_duration, parse_moment, parse_time

NOW = 1_700_000_000 * SECOND


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_times_are_written_and_read(ns: int) -> None:
    assert parse_time(format_time(ns)) == ns


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01T00:00:00Z", "0001-01-01T00:00:00Z", "2024-01-01"])
def test_times_that_say_nothing(text: str) -> None:
    assert parse_time(text) == 0


def test_times_with_a_zone() -> None:
    assert parse_time("1970-01-01T02:00:00+02:00") == 0
    assert parse_time("1970-01-01T00:00:00.5-01:00") == 3600 * 10**9 + 500_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("1m30s", 90 * SECOND),
        ("-1.5h", -5400 * SECOND),
        ("+2us", 2000),
        ("3µs.5ms", 503_000),
        ("2540400h10m10.123456789s", 9_145_440_610_123_456_789),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "invalid"), ("5", "missing unit"), (".s", "invalid"), ("1h 2m", "invalid"), ("٣s", "invalid")],
)
def test_durations_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000.25", NOW + SECOND // 4),
        ("0", 0),
        ("10m", NOW - 600 * SECOND),
        ("250ms", NOW - SECOND // 4),
        ("-1h", NOW + 3600 * SECOND),
        ("2023-11-14", NOW - 80_000 * SECOND),
        ("2023-11-14T22:13:20.5", NOW + SECOND // 2),
        ("2023-11-15T00:13:20+02:00", NOW),
    ],
)
def test_moments(text: str, ns: int) -> None:
    assert parse_moment(text, NOW) == ns


@pytest.mark.parametrize("text", ["", "yesterday", "1.2.3", "10x", "2006-13-01"])
def test_moments_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        parse_moment(text, NOW)


def test_labels() -> None:
    labels = {"a": "1", "b": ""}
    for values, without, passes in [
        ([], [], True),
        (["a", "b="], [], True),
        (["a=2"], [], False),
        (["a"], ["b"], False),
        ([], ["a=2", "c"], True),
    ]:
        assert label_test(values, without)(labels) is passes


@pytest.mark.parametrize(
    "text",
    ["0s", "1ns", "999ns", "1.5µs", "500ms", "1.000001ms", "1s", "1.5s", "30s", "1m0s", "1m30.25s", "2h0m0s", "-1m0s"],
)
def test_durations_are_written_as_go_does(text: str) -> None:
    assert format_duration(parse_duration(text)) == text

"""Numbers, sizes, durations and times, in and out."""

from __future__ import annotations

import time

import pytest

from corten.cli import units, values
from corten.cli.errors import CliError
from corten.cli.times import local_stamp, unix_time
from corten.cli.values import KINDS


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("bytes", "512", 512),
        ("bytes", "64m", 64 << 20),
        ("bytes", "1.5G", 3 << 29),
        ("bytes", "2GiB", 2 << 30),
        ("bytes", "1 kb", 1024),
        ("swap", "-1", -1),
        ("duration", "1m30s", 90_000_000_000),
        ("duration", "1.5h", 5_400_000_000_000),
        ("duration", "-3s", -3_000_000_000),
        ("duration", "0", 0),
        ("duration", "100ms", 100_000_000),
        ("decimal", "1.5", 1_500_000_000),
        ("decimal", "0.001", 1_000_000),
        ("int", "0x10", 16),
        ("int", "-010", -8),
        ("filter", "Label=a=b", ("label", "a=b")),
        ("host", "a=1.2.3.4", "a:1.2.3.4"),
        ("host", "a:[::1]", "a:::1"),
        ("host", "a:host-gateway", "a:host-gateway"),
    ],
)
def test_reads(kind: str, text: str, value: object) -> None:
    assert KINDS[kind](text) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("bytes", "x", "invalid size: 'x'"),
        ("bytes", "-1", "invalid size: '-1'"),
        ("duration", "5", 'time: missing unit in duration "5"'),
        ("duration", "5x", 'time: invalid duration "5x"'),
        ("duration", "", 'time: invalid duration ""'),
        ("decimal", "x", "failed to parse x as a rational number"),
        ("decimal", "0.0000000001", "value is too precise"),
        ("int", "x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("int", "9223372036854775808", 'strconv.ParseInt: parsing "9223372036854775808": value out of range'),
        ("uint16", "70000", 'strconv.ParseUint: parsing "70000": value out of range'),
        ("filter", "x", "bad format of filter (expected name=value)"),
        ("host", "foo", 'bad format for add-host: "foo"'),
        ("ip", "x", "IP address is not correctly formatted: x"),
        ("stream", "foo", "valid streams are STDIN, STDOUT and STDERR"),
        ("label", "=x", "invalid label '=x': empty name"),
        ("env", "=3", "invalid environment variable: =3"),
    ],
)
def test_refuses(kind: str, text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        KINDS[kind](text)
    assert str(caught.value) == message


def test_filters_are_grouped() -> None:
    assert values.filters([("name", "a"), ("label", "x"), ("name", "b")]) == {"name": ["a", "b"], "label": ["x"]}


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 4, "0B"),
        (999, 4, "999B"),
        (1000, 4, "1kB"),
        (1984172, 4, "1.984MB"),
        (1984172, 3, "1.98MB"),
        (123456789012, 3, "123GB"),
        (999999, 3, "1e+03kB"),
    ],
)
def test_human_sizes(value: int, digits: int, text: str) -> None:
    assert units.human_size(value, digits) == text


@pytest.mark.parametrize(("value", "text"), [(1179648, "1.125MiB"), (25275878932, "23.54GiB"), (1023, "1023B")])
def test_binary_sizes(value: int, text: str) -> None:
    assert units.binary_size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1.9, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (731 * 86400, "2 years"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert units.human_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 5, "日本…"), ("日本語", 6, "日本語"), ("ab", 0, "")],
)
def test_ellipsis(text: str, width: int, cut: str) -> None:
    assert units.ellipsis(text, width) == cut


def test_times_that_users_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert unix_time("2026-11-24T06:22:16.5Z", "since") == "1795501336.500000000"
        assert unix_time("2026-11-24T06:22:16+01:00", "since") == "1795497736.000000000"
        assert unix_time("2026-11-24T07:22", "since") == "1795501320.000000000"
        assert unix_time("2026-11-24", "since") == "1795474800.000000000"
        assert unix_time("1795501336.5", "since") == "1795501336.5"
        assert unix_time("", "since") == ""
        assert local_stamp(1795501336000000001) == "2026-11-24T07:22:16.000000001+01:00"
        assert units.local_time(1795501336) == "2026-11-24 07:22:16 +0100 CET"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_relative_times_count_back_from_now() -> None:
    assert abs(float(unix_time("10m", "since")) - (time.time() - 600)) < 5


def test_a_time_that_is_none_names_its_flag() -> None:
    with pytest.raises(CliError, match='invalid value for "since": failed to parse value as time or duration: "xx"'):
        unix_time("xx", "since")


def test_rfc3339() -> None:
    assert units.parse_rfc3339_ns("2026-11-24T06:22:16.893465492Z") == 1795501336893465492
    assert units.parse_rfc3339_ns("2026-11-24T07:22:16+01:00") == 1795501336000000000
    assert units.parse_rfc3339("0001-01-01T00:00:00Z") == 0

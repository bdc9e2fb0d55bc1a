"""Flags as pflag reads them, its complaints included."""

from __future__ import annotations

import pytest

from corten.cli.errors import ArgumentError, UsageError
from corten.cli.flags import Command, Flag, check_count, parse

FLAGS = (
    Flag("interactive", "i", "bool"),
    Flag("tty", "t", "bool"),
    Flag("publish", "p", "list*"),
    Flag("memory", "m", "bytes"),
    Flag("name", "", "string"),
    Flag("sig-proxy", "", "bool", default=True),
)


@pytest.mark.parametrize(
    ("argv", "values", "args"),
    [
        (["-it", "img", "sh", "-c", "x"], {"interactive": True, "tty": True}, ["img", "sh", "-c", "x"]),
        (["-p80:80", "-p", "1:2", "--publish=3:4"], {"publish": ["80:80", "1:2", "3:4"]}, []),
        (["-p=80"], {"publish": ["80"]}, []),
        (["-itp", "80", "x"], {"interactive": True, "publish": ["80"]}, ["x"]),
        (["--sig-proxy=false", "x"], {"sig-proxy": False}, ["x"]),
        (["--name", "-x", "img"], {"name": "-x"}, ["img"]),
        (["--", "-x"], {}, ["-x"]),
        (["-m", "1.5g"], {"memory": 1610612736}, []),
        (["-", "-i"], {"interactive": False}, ["-", "-i"]),
        (["--name="], {"name": ""}, []),
    ],
)
def test_reads(argv: list[str], values: dict[str, object], args: list[str]) -> None:
    options = parse(FLAGS, argv, pass_through=True)
    assert {name: options[name] for name in values} == values
    assert options.args == args


def test_flags_may_follow_arguments_where_nothing_passes_through() -> None:
    options = parse(FLAGS, ["a", "-i", "b"])
    assert (options["interactive"], options.args) == (True, ["a", "b"])


def test_what_was_given_is_told_from_defaults() -> None:
    options = parse(FLAGS, ["--name", ""])
    assert options.optional("name") == ""
    assert options.optional("memory") is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-iz"], "unknown shorthand flag: 'z' in -iz"),
        (["--name"], "flag needs an argument: --name"),
        (["-p"], "flag needs an argument: 'p' in -p"),
        (["-m", "x"], 'invalid argument "x" for "-m, --memory" flag: invalid size: \'x\''),
        (
            ["--tty=maybe"],
            'invalid argument "maybe" for "-t, --tty" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (["--=x"], "bad flag syntax: --=x"),
    ],
)
def test_complains(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(FLAGS, argv)
    assert (str(caught.value), caught.value.code) == (message, 125)


@pytest.mark.parametrize(
    ("least", "most", "count", "message"),
    [
        (1, None, 0, "requires at least 1 argument"),
        (2, None, 1, "requires at least 2 arguments"),
        (1, 1, 2, "requires 1 argument"),
        (2, 2, 1, "requires 2 arguments"),
        (0, 0, 1, "accepts no arguments"),
        (0, 1, 2, "requires at most 1 argument"),
    ],
)
def test_counts_arguments(least: int, most: int | None, count: int, message: str) -> None:
    command = Command("container x", "", lambda *_: None, least=least, most=most)
    with pytest.raises(ArgumentError) as caught:
        check_count(command, ["a"] * count, "corten x")
    assert (str(caught.value), caught.value.code) == (f"'corten x' {message}", 1)

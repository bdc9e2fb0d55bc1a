"""The command line of corten-runtime, as tables and Go's flag syntax have it; sizes and durations on it."""

from __future__ import annotations

import pytest

from corten.errors import InvalidArgument
from corten.runtime.oci import commands, options
from corten.runtime.oci.events import duration
from corten.runtime.oci.updating import from_flags, size
from corten.specs.oci_runtime import CPU, BlockIO, Memory, Pids, Resources


def test_every_command_that_is_told_of_is_there() -> None:
    assert set(options.COMMANDS) == set(commands.COMMANDS)
    for name in options.COMMANDS:
        assert name in options.help_text("")
        for names, _, about in options.COMMANDS[name][2]:
            assert about in options.help_text(name), names


def test_flags_in_all_their_spellings() -> None:
    words = ["--root", "/r", "-log=/l", "--debug", "run", "-b", "/b", "id", "--detach", "--preserve-fds=0x2"]
    name, general, own = options.parse(words)
    assert (name, general.text("root"), general.text("log"), general.has("debug")) == ("run", "/r", "/l", True)
    assert (own.text("bundle"), own.args, own.has("detach"), own.number("preserve-fds")) == ("/b", ["id"], True, 2)
    assert options.parse(["run", "--detach=false", "id"])[2].has("detach") is False
    assert options.parse(["update", "--memory-swap", "-1", "id"])[2].text("memory-swap") == "-1"
    assert options.parse(["state", "--", "-id"])[2].args == ["-id"]
    assert options.parse([])[0] == ""


def test_what_follows_the_id_is_the_programs() -> None:
    own = options.parse(["exec", "-e", "A=1", "--env=B=2", "id", "ls", "-l", "--tty"])[2]
    assert (own.many("env"), own.args, own.has("tty")) == (["A=1", "B=2"], ["id", "ls", "-l", "--tty"], False)
    assert options.parse(["ps", "--format", "json", "id", "-o", "pid"])[2].args == ["id", "-o", "pid"]
    assert options.parse(["checkpoint", "--image-path", "/x", "id"])[2].args == ["--image-path", "/x", "id"]


@pytest.mark.parametrize(
    "words",
    [["nothing"], ["--nothing"], ["run"], ["run", "a", "b"], ["run", "-b"], ["run", "---bundle", "x", "a"],
     ["run", "--detach=perhaps", "a"], ["run", "--preserve-fds", "two", "a"], ["list", "a"]],
)  # fmt: skip
def test_command_lines_that_are_none(words: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        options.parse(words)


def test_limits_out_of_flags() -> None:
    words = "--memory 1.5g --memory-swap -1 --cpu-share 512 --cpuset-cpus 0-1 --pids-limit -1 --blkio-weight 300 id"
    assert from_flags(options.parse(["update", *words.split()])[2]) == Resources(
        memory=Memory(limit=3 << 29, swap=-1),
        cpu=CPU(shares=512, cpus="0-1"),
        pids=Pids(limit=-1),
        block_io=BlockIO(weight=300),
    )
    assert from_flags(options.parse(["update", "id"])[2]) == Resources()


def test_sizes_and_durations() -> None:
    assert [size("m", text) for text in ("0", "1024", "512M", "1k", "2GiB", "1.5kb", "-1")] == [
        0, 1024, 512 << 20, 1024, 2 << 30, 1536, -1,
    ]  # fmt: skip
    for text in ("", "M", "-2", "1x", "lots", "nan", "inf"):
        with pytest.raises(InvalidArgument, match="--m"):
            size("m", text)
    assert [duration(text) for text in ("5s", "1m30s", "250ms", "1.5h")] == [5, 90, 0.25, 5400]
    for text in ("", "5", "s", "-1s", "0s", "5s ", "5 s"):
        with pytest.raises(InvalidArgument, match="--interval"):
            duration(text)

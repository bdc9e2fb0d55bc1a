"""The command line of `corten-runtime`: tables of flags with runc's names, read as Go's flag package reads them.

Go takes `-name` for `--name`, `--name=value` beside `--name value`, and `--switch=false`; callers of runc use all of
these. Flags may stand behind a command's arguments too, but for `exec` and `ps`, where those are a program's.
"""

from __future__ import annotations

from corten.errors import InvalidArgument, clip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

SWITCH, TEXT, NUMBER, MANY = "switch", "text", "number", "many"

Flag = tuple[str, str, str]
"""Names ("bundle b"), kind, and a word about it."""

GLOBAL: Final[tuple[Flag, ...]] = (
    ("root", TEXT, "directory of the containers' state"),
    ("log", TEXT, "file that errors and warnings are appended to"),
    ("log-format", TEXT, "text or json"),
    ("debug", SWITCH, "log what is done, too"),
    ("systemd-cgroup", SWITCH, "cgroups by systemd, cgroupsPath as slice:prefix:name"),
    ("rootless", TEXT, "true, false or auto"),
    ("criu", TEXT, "passed over, as runc does it"),
    ("version v", SWITCH, "print the version"),
    ("help h", SWITCH, "print this"),
)

_BUNDLE: Flag = ("bundle b", TEXT, "directory with config.json; the working directory by default")
_STREAMS: tuple[Flag, ...] = (
    ("console-socket", TEXT, "unix socket that gets the terminal's master"),
    ("pidfd-socket", TEXT, "unix socket that gets a pidfd of the first process"),
    ("pid-file", TEXT, "file for the pid of the first process"),
    ("preserve-fds", NUMBER, "how many descriptors beyond stdio (and $LISTEN_FDS) the process gets"),
)
_CREATE: tuple[Flag, ...] = (
    _BUNDLE,
    *_STREAMS,
    ("no-pivot", SWITCH, "move the root with MS_MOVE and chroot: for a host on a ramdisk"),
    ("no-new-keyring", SWITCH, "stay with the caller's session keyring"),
)
_FORMAT: Flag = ("format f", TEXT, "table or json")

COMMANDS: Final[dict[str, tuple[str, str, tuple[Flag, ...]]]] = {
    # name: arguments, what it does, flags. An argument in brackets may be missing, three dots take all that follow.
    "create": ("ID", "create a container", _CREATE),
    "run": (
        "ID",
        "create and start a container, and wait for its end",
        (
            *_CREATE,
            ("detach d", SWITCH, "do not wait"),
            ("keep", SWITCH, "do not delete the container when it has ended"),
            ("no-subreaper", SWITCH, "do not become the parent of what the container leaves behind"),
        ),
    ),
    "start": ("ID", "run the program of a created container", ()),
    "state": ("ID", "print the state of a container", ()),
    "exec": (
        "ID [COMMAND] ...",
        "run a further program in a container",
        (
            *_STREAMS,
            ("cwd", TEXT, "working directory"),
            ("env e", MANY, "NAME=VALUE"),
            ("tty t", SWITCH, "on a terminal"),
            ("user u", TEXT, "UID[:GID], or names that the container has"),
            ("additional-gids g", MANY, "further groups, by number"),
            ("process p", TEXT, "file with the process as JSON"),
            ("detach d", SWITCH, "do not wait"),
            ("process-label", TEXT, "SELinux label"),
            ("apparmor", TEXT, "AppArmor profile"),
            ("no-new-privs", SWITCH, "no privileges by execve"),
            ("cap c", MANY, "further capability"),
            ("cgroup", MANY, "[CONTROLLER,...:]PATH of an existing group below the container's"),
            ("ignore-paused", SWITCH, "in a paused container, too"),
        ),
    ),
    "kill": ("ID [SIGNAL]", "signal the first process of a container", (("all a", SWITCH, "all its processes"),)),
    "delete": (
        "ID",
        "remove what is left of a container",
        (("force f", SWITCH, "end it if it runs; no error if there is none"),),
    ),
    "pause": ("ID", "stop all processes of a container", ()),
    "resume": ("ID", "let them go on", ()),
    "ps": ("ID [OPTION] ...", "list the processes of a container", (_FORMAT,)),
    "list": ("", "list the containers", (_FORMAT, ("quiet q", SWITCH, "print ids only"))),
    "events": (
        "ID",
        "print the counters of a container again and again, and its OOM events",
        (("interval", TEXT, 'time between two, such as "5s"'), ("stats", SWITCH, "print them once")),
    ),
    "update": (
        "ID",
        "change the limits of a container",
        (
            ("resources r", TEXT, 'file with the limits as JSON, "-" for stdin; other flags are then passed over'),
            ("blkio-weight", NUMBER, "10 to 1000"),
            ("cpu-period", NUMBER, "microseconds"),
            ("cpu-quota", NUMBER, "microseconds in a period"),
            ("cpu-burst", NUMBER, "microseconds"),
            ("cpu-share", NUMBER, "relative weight"),
            ("cpu-rt-period", NUMBER, "microseconds"),
            ("cpu-rt-runtime", NUMBER, "microseconds in a period"),
            ("cpuset-cpus", TEXT, "such as 0-2,7"),
            ("cpuset-mems", TEXT, "such as 0,1"),
            ("cpu-idle", NUMBER, "0 or 1"),
            ("memory", TEXT, 'bytes, or such as "512M"'),
            ("memory-reservation", TEXT, "the same"),
            ("memory-swap", TEXT, "the same, of memory and swap together; -1 for no limit"),
            ("kernel-memory", TEXT, "passed over, as the kernel has given it up"),
            ("kernel-memory-tcp", TEXT, "the same unit, for the buffers of TCP; cgroup v1"),
            ("pids-limit", NUMBER, "how many processes; -1 for no limit"),
            ("l3-cache-schema", TEXT, "Intel RDT"),
            ("mem-bw-schema", TEXT, "Intel RDT"),
        ),
    ),
    "spec": ("", "write a config.json to begin with", (_BUNDLE, ("rootless", SWITCH, "for a user who is not root"))),
    "features": ("", "print what the runtime can do", ()),
    "checkpoint": ("...", "not implemented", ()),
    "restore": ("...", "not implemented", ()),
}


class Options:
    """What a command line says. `args` are the words that are no flags."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self.args: list[str] = []
        self._kinds = {name: (names.split()[0], kind) for names, kind, _ in flags for name in names.split()}
        self._values: dict[str, list[str]] = {}

    def text(self, name: str, default: str = "") -> str:
        """The last of a flag's values."""
        return self._values.get(name, [default])[-1]

    def many(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def has(self, name: str) -> bool:
        """Whether a switch is on."""
        return self.text(name) == "true"

    def given(self, name: str) -> bool:
        return name in self._values

    def number(self, name: str, default: int = 0) -> int:
        return int(self.text(name, str(default)), 0)

    def read(self, words: Sequence[str], *, mixed: bool) -> None:
        """Take in `words`; without `mixed` the first that is no flag ends them. Raises InvalidArgument."""
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.args += rest
                return
            if word[:1] != "-" or word == "-":
                self.args.append(word)
                if not mixed:
                    self.args += rest
                    return
                continue
            self._take(word, rest)

    def _take(self, word: str, rest: list[str]) -> None:
        spelt, separator, value = word.lstrip("-").partition("=")
        if spelt not in self._kinds or word.startswith("---"):
            raise InvalidArgument(f"flag provided but not defined: {clip(word, 60)}")
        name, kind = self._kinds[spelt]
        if kind == SWITCH:
            value = _truth(spelt, value) if separator else "true"
        elif not separator:
            if not rest:
                raise InvalidArgument(f"flag needs an argument: {word}")
            value = rest.pop(0)
        if kind == NUMBER:
            _check_number(spelt, value)
        self._values.setdefault(name, []).append(value)


def parse(words: Sequence[str]) -> tuple[str, Options, Options]:
    """The command's name ("" for none), the global flags and its own. Raises InvalidArgument."""
    general = Options(GLOBAL)
    general.read(words, mixed=False)
    if not general.args:
        return "", general, Options(())
    name, *rest = general.args
    if name not in COMMANDS:
        raise InvalidArgument(f"unknown command {clip(name, 60)!r}; --help lists what there is")
    pattern, _, flags = COMMANDS[name]
    own = Options((*flags, ("help h", SWITCH, "print this")))
    if pattern == "...":
        own.args = rest
        return name, general, own
    own.read(rest, mixed=name not in ("exec", "ps"))
    if not own.has("help"):
        _check_arguments(name, pattern, own.args)
    return name, general, own


def _check_arguments(name: str, pattern: str, args: list[str]) -> None:
    wanted = pattern.split()
    least = sum(1 for word in wanted if word[0] not in "[.")
    if len(args) < least:
        raise InvalidArgument(f"{name}: needs {least} argument: the container's id")
    if wanted[-1:] != ["..."] and len(args) > len(wanted):
        raise InvalidArgument(f"{name}: takes no argument {clip(args[len(wanted)], 60)!r}")


def _truth(name: str, value: str) -> str:
    if value.lower() in ("true", "t", "1"):
        return "true"
    if value.lower() in ("false", "f", "0"):
        return "false"
    raise InvalidArgument(f"invalid boolean value {clip(value, 40)!r} for --{name}")


def _check_number(name: str, value: str) -> None:
    try:
        int(value, 0)
    except ValueError:
        raise InvalidArgument(f"invalid value {clip(value, 40)!r} for --{name}: not a number") from None


def help_text(name: str) -> str:
    """The usage of a command, or with "" of the program."""
    if name:
        pattern, about, flags = COMMANDS[name]
        lines = [f"corten-runtime {name} - {about}", "", f"Usage: corten-runtime [GLOBAL OPTIONS] {name} "]
        lines[-1] = (lines[-1] + ("[OPTIONS] " if flags else "") + pattern).rstrip()
    else:
        flags = GLOBAL
        lines = ["corten-runtime - an OCI runtime", "", "Usage: corten-runtime [GLOBAL OPTIONS] COMMAND ...", ""]
        lines += ["Commands:", *(f"  {command:<12} {about}" for command, (_, about, _) in COMMANDS.items())]
    if flags:
        lines += ["", "Options:" if name else "Global options:", *map(_help_line, flags)]
    return "\n".join(lines) + "\n"


def _help_line(flag: Flag) -> str:
    names, kind, about = flag
    spelt = ", ".join(f"--{name}" if len(name) > 1 else f"-{name}" for name in names.split())
    return f"  {spelt + ('' if kind == SWITCH else ' VALUE'):<32} {about}"

"""What may come next on a command line, from the tables of commands and flags and from the daemon's own names.

The scripts for the shells (`SCRIPTS`) know nothing themselves: they call `corten __complete -- WORD...` with the words
up to the cursor, the last of them the one that is being typed, and offer the lines that it prints, each a candidate
and, behind a tab, what it is. A last line `:files` says that a file may stand there too.
"""

from __future__ import annotations

from corten.cli.flags import Command, Flag
from corten.cli.table import GROUPS, at_the_top, find, in_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corten.client.client import Client

    Candidates = list[tuple[str, str]]

FILES = ":files"
_STATES = {
    "running": ("attach", "exec", "kill", "pause", "stop", "top", "stats", "port"),
    "paused": ("unpause",),
    "": ("commit", "cp", "diff", "export", "inspect", "logs", "rename", "restart", "rm", "start", "update", "wait"),
}
_IMAGES = ("run", "create", "history", "push", "rm", "save", "tag", "inspect")
_VALUES: dict[str, tuple[str, ...]] = {
    "restart": ("no", "always", "on-failure", "unless-stopped"),
    "pull": ("always", "missing", "never"),
    "log-driver": ("json-file", "local", "none", "syslog", "journald"),
    "health-on-failure": ("none", "restart", "stop", "kill"),
    "log-level": ("debug", "info", "warn", "error", "fatal"),
    "format": ("json", "table"),
    "ipc": ("private", "shareable", "host", "none"),
    "pid": ("host",),
    "userns": ("host",),
    "uts": ("host",),
    "cgroupns": ("private", "host"),
}


def complete(
    words: Sequence[str], globals_: tuple[Flag, ...], load: Callable[[str], Command], client: Callable[[], Client]
) -> list[str]:
    """The lines for `words`. `load` gives a command of the table; `client` the daemon's, which may not answer."""
    *before, current = words or [""]
    rest, pending = _arguments(globals_, before, stop=True)
    if pending is not None:
        return _lines(_of_flag(pending, client), current)
    _, path, arguments = find(rest)
    if not path:
        return _lines(_commands(rest, current, globals_), current)
    command = load(path)
    given, pending = _arguments(command.flags, arguments, stop=command.pass_through)
    if pending is not None:
        return _lines(_of_flag(pending, client), current)
    if current.startswith("-") and not (command.pass_through and given):
        return _lines(_flags(command.flags), current)
    return _lines(_of_argument(path, given, client), current)


def _arguments(flags: tuple[Flag, ...], words: Sequence[str], *, stop: bool) -> tuple[list[str], Flag | None]:
    """The words that are no flags, all from the first on with `stop`; and the flag that waits for its value."""
    known = {f"--{flag.name}": flag for flag in flags} | {f"-{flag.short}": flag for flag in flags if flag.short}
    found: list[str] = []
    pending: Flag | None = None
    for index, word in enumerate(words):
        if pending is not None:
            pending = None
        elif word.startswith("-") and word != "-":
            flag = known.get(word) or (known.get(f"-{word[-1]}") if not word.startswith("--") else None)
            if flag is not None and flag.kind != "bool":
                pending = flag
        elif stop:
            return list(words[index:]), None
        else:
            found.append(word)
    return found, pending


def _commands(rest: Sequence[str], current: str, globals_: tuple[Flag, ...]) -> Candidates:
    if current.startswith("-"):
        return _flags(globals_)
    if not rest:
        return sorted((at_the_top() | GROUPS).items())
    if len(rest) == 1 and rest[0] in GROUPS:
        return list(in_group(rest[0]).items())
    return []


def _flags(flags: tuple[Flag, ...]) -> Candidates:
    return [(f"--{flag.name}", flag.help) for flag in flags if flag.help]


def _of_flag(flag: Flag, client: Callable[[], Client]) -> Candidates:
    if flag.name in ("network", "net"):
        return _networks(client())
    if flag.name == "volumes-from":
        return _containers(client(), "")
    values = _VALUES.get(flag.name)
    return [(value, "") for value in values] if values else [(FILES, "")]


def _of_argument(path: str, given: Sequence[str], client: Callable[[], Client]) -> Candidates:
    group, _, name = path.rpartition(" ")
    found: Candidates = []
    if group in ("container", ""):
        for state, names in _STATES.items():
            if name in names and not (name == "exec" and given):
                found += _containers(client(), state)
    of_image = name in _IMAGES and (group == "image" or name in ("run", "create", "inspect"))
    if of_image and not (name in ("run", "create") and given):
        found += _images(client())
    if group == "volume" or path == "inspect":
        found += _volumes(client())
    if group == "network" or path == "inspect":
        found += _networks(client())
    return found or [(FILES, "")]


def _containers(client: Client, state: str) -> Candidates:
    rows = client.containers.list(all=True, filters={"status": [state]} if state else None)
    return [
        (name.lstrip("/"), f"{row['Image']}, {row['Status']}")
        for row in rows
        for name in row["Names"]
        if name.rfind("/") == 0  # not what others that link to it call it
    ]


def _images(client: Client) -> Candidates:
    names = [name for row in client.images.list() for name in row.get("RepoTags") or ()]
    return [(name, "") for name in names] + [(name.removesuffix(":latest"), "") for name in names if ":latest" in name]


def _networks(client: Client) -> Candidates:
    return [(row["Name"], row["Driver"]) for row in client.networks.list()]


def _volumes(client: Client) -> Candidates:
    return [(row["Name"], row["Driver"]) for row in client.volumes.list()]


def _lines(candidates: Candidates, current: str) -> list[str]:
    files = [FILES] if (FILES, "") in candidates else []
    fitting = [(value, what) for value, what in candidates if value.startswith(current) and value != FILES]
    return [f"{value}\t{what}" if what else value for value, what in fitting] + files


_BASH = r"""# bash completion of corten, made by `corten completion bash`
_corten() {
    local IFS=$'\n' line words cur prev cword
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n =: cur prev words cword
    else
        words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]}
    fi
    COMPREPLY=()
    while read -r line; do
        if [[ $line == :files ]]; then
            compopt -o filenames 2>/dev/null
            COMPREPLY+=($(compgen -f -- "$cur"))
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done < <("${words[0]}" __complete -- "${words[@]:1:cword}" 2>/dev/null)
    declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
}
complete -F _corten corten
"""
_ZSH = r"""#compdef corten
# zsh completion of corten, made by `corten completion zsh`
_corten() {
    local line files
    local -a found
    for line in "${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            files=1
        elif [[ -n $line ]]; then
            found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        fi
    done
    (( ${#found} )) && _describe corten found
    [[ -n $files ]] && _files
    return 0
}
if [[ ${funcstack[1]} == _corten ]]; then
    _corten
else
    compdef _corten corten
fi
"""
_FISH = r"""# fish completion of corten, made by `corten completion fish`
function __corten_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete -- $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c corten -f -a '(__corten_complete)'
"""
SCRIPTS = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}

"""Links between containers in words: the flag, the variables and the lines of /etc/hosts that they make. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from corten.engine.containers import ports
from corten.errors import InvalidArgument, clip

_NOT_PASSED_ON = ("HOME", "PATH")


def parse(text: str) -> tuple[str, str]:
    """`name`, `name:alias`, or `/name:/container/alias` as inspect shows it, to name and alias ("" for none).

    Raises InvalidArgument, in Docker's words, also for an alias that would be more than a name in /etc/hosts.
    """
    if not text:
        raise InvalidArgument("empty string specified for links")
    name, separator, alias = text.partition(":")
    parts = [part for part in (alias if separator else name).split("/") if part]
    if ":" in alias or not text.isprintable() or not {".", ".."}.isdisjoint(parts):
        raise InvalidArgument(f"bad format for links: {clip(text, 200)}")
    if separator and name.startswith("/"):
        parts = parts[-1:]
    return name.removeprefix("/"), "/".join(parts)


def short(alias: str) -> str:
    """What an alias is in /etc/hosts and in the names of variables."""
    return alias.rpartition("/")[2]


def names_in_hosts(alias: str, hostname: str, name: str) -> str:
    names = f"{short(alias)} {hostname}"
    return names if short(alias) == name else f"{names} {name}"


def readdress(hosts: str, alias: str, hostname: str, address: str) -> str:
    """/etc/hosts with the linked container at another address; with "" for that, without it. Other lines stay."""
    known = f"{short(alias)} {hostname}"
    lines = []
    for line in hosts.splitlines(keepends=True):
        _, separator, names = line.partition("\t")
        if separator and (names.rstrip("\n") == known or names.startswith(known + " ")):
            line = f"{address}\t{names}" if address else ""
        lines.append(line)
    return "".join(lines)


def variables(full_name: str, address: str, exposed: Iterable[str], env: Sequence[str]) -> list[str]:
    """What the linking container is told of the linked one. `full_name` is "/web/db", `exposed` and `env` are of the
    linked one's configuration.
    """
    prefix = short(full_name).upper().replace("-", "_")
    known = sorted(_port(text) for entry in exposed for text in ports.expand_exposed(entry))
    out = []
    if known:
        out.append(f"{prefix}_PORT={_url(address, known[0])}")
    out += _ranges(prefix, address, known)
    for port in known:
        name = _name(prefix, port)
        out += [f"{name}={_url(address, port)}", f"{name}_ADDR={address}", f"{name}_PORT={port[0]}"]
        out.append(f"{name}_PROTO={port[2]}")
    out.append(f"{prefix}_NAME={full_name}")
    for entry in env:
        variable, separator, _ = entry.partition("=")
        if separator and variable not in _NOT_PASSED_ON:
            out.append(f"{prefix}_ENV_{entry}")
    return out


# A port as (number, whether it is other than TCP, protocol), so that of two with one number TCP comes first.
_Port = tuple[int, bool, str]


def _port(text: str) -> _Port:
    number, _, protocol = text.partition("/")
    return int(number), protocol != "tcp", protocol


def _name(prefix: str, port: _Port) -> str:
    return f"{prefix}_PORT_{port[0]}_{port[2].upper()}"


def _url(address: str, port: _Port) -> str:
    return f"{port[2]}://{address}:{port[0]}"


def _ranges(prefix: str, address: str, known: Sequence[_Port]) -> list[str]:
    """The first and the last of three ports or more in a row. Docker counts one number with two protocols as two."""
    out, index = [], 0
    while index < len(known):
        last = index
        while last + 1 < len(known) and known[last + 1][0] <= known[index][0] + last + 1 - index:
            last += 1
        if last <= index + 1:
            index += 1
            continue
        first, end, name = known[index], known[last], _name(prefix, known[index])
        out += [f"{name}_START={_url(address, first)}", f"{name}_ADDR={address}", f"{name}_PROTO={first[2]}"]
        out += [f"{name}_PORT_START={first[0]}", f"{name}_END={_url(address, end)}", f"{name}_PORT_END={end[0]}"]
        index = last + 1
    return out

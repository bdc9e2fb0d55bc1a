"""`docker import --change`: a few Dockerfile instructions, each changing an image's run configuration.

Strict where a Dockerfile is lenient: an instruction that cannot be understood is refused by its name. No variables are
expanded, as there is nothing to take them from.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from corten.errors import InvalidArgument, clip
from corten.specs.container import HealthConfig
from corten.specs.oci_image import RunConfig
from corten.specs.times import parse_duration

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_SHELL = ["/bin/sh", "-c"]


def apply(changes: Sequence[str], config: RunConfig) -> None:
    """Carry out `changes` on `config`, in order. Raises InvalidArgument that names the instruction at fault."""
    for change in changes:
        for line in change.replace("\\\n", "").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                _apply_one(line.strip(), config)


def _apply_one(line: str, config: RunConfig) -> None:
    word, _, rest = line.partition(" ")
    name, rest = word.upper(), rest.strip()
    handler = _INSTRUCTIONS.get(name)
    if handler is None:
        known = name in ("FROM", "RUN", "COPY", "ADD", "ARG", "MAINTAINER", "SHELL")
        fault = f"{name} is not a valid change command" if known else f"unknown instruction: {clip(word, 64)}"
        raise InvalidArgument(fault)
    if not rest:
        raise InvalidArgument(f"{name} requires at least one argument")
    handler(config, rest)


def _words(name: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}") from None


def _json_list(name: str, text: str) -> list[str] | None:
    """The exec form, `["a", "b"]`; None for anything else, which is the shell form."""
    if not text.startswith("["):
        return None
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _command(name: str, text: str, config: RunConfig) -> list[str]:
    parsed = _json_list(name, text)
    return parsed if parsed is not None else [*(config.shell or _SHELL), text]


def _pairs(name: str, text: str) -> dict[str, str]:
    """`a=b c="d e"`, or the old form `a b c` for one name."""
    words = _words(name, text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value:
            raise InvalidArgument(f"{name} must have two arguments")
        return {key: value.strip()}
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"Syntax error - can't find = in {clip(word, 64)!r}. Must be of the form: name=value")
        pairs[key] = value
    return pairs


def _cmd(config: RunConfig, text: str) -> None:
    config.cmd = _command("CMD", text, config)


def _entrypoint(config: RunConfig, text: str) -> None:
    config.entrypoint = _command("ENTRYPOINT", text, config) or None


def _env(config: RunConfig, text: str) -> None:
    kept = dict(entry.partition("=")[::2] for entry in config.env or [])
    config.env = [f"{key}={value}" for key, value in {**kept, **_pairs("ENV", text)}.items()]


def _label(config: RunConfig, text: str) -> None:
    config.labels = {**(config.labels or {}), **_pairs("LABEL", text)}


def _expose(config: RunConfig, text: str) -> None:
    ports: dict[str, dict[str, Any]] = dict(config.exposed_ports or {})
    for word in _words("EXPOSE", text):
        match = _PORT.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last <= 65535:
            raise InvalidArgument(f"invalid containerPort: {clip(word, 64)}")
        protocol = (match[3] or "tcp").lower()
        ports.update({f"{port}/{protocol}": {} for port in range(first, last + 1)})
    config.exposed_ports = ports


def _workdir(config: RunConfig, text: str) -> None:
    base = "" if text.startswith("/") else (config.working_dir or "/")
    parts: list[str] = []
    for part in f"{base}/{text}".split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    config.working_dir = "/" + "/".join(parts)


def _user(config: RunConfig, text: str) -> None:
    if len(text.split()) != 1:
        raise InvalidArgument("USER requires exactly one argument")
    config.user = text


def _volume(config: RunConfig, text: str) -> None:
    paths = _json_list("VOLUME", text) or _words("VOLUME", text)
    if not all(paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    config.volumes = {**(config.volumes or {}), **{path: {} for path in paths}}


def _stopsignal(config: RunConfig, text: str) -> None:
    if not re.fullmatch(r"\d{1,2}|(?:SIG)?[A-Za-z]+[A-Za-z0-9]*(?:[+-]\d+)?", text):
        raise InvalidArgument(f"invalid signal: {clip(text, 64)}")
    config.stop_signal = text


def _onbuild(config: RunConfig, text: str) -> None:
    word = text.split()[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        fault = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed" if word == "ONBUILD" else ""
        raise InvalidArgument(fault or f"{word} isn't allowed as an ONBUILD trigger")
    config.on_build = [*(config.on_build or []), text]


def _healthcheck(config: RunConfig, text: str) -> None:
    if text.upper() == "NONE":
        config.healthcheck = HealthConfig(test=["NONE"])
        return
    health = HealthConfig()
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        text = text.lstrip()
        _health_option(health, option)
    word, _, command = text.partition(" ")
    if word.upper() != "CMD" or not command.strip():
        raise InvalidArgument(f"Unknown type {clip(word, 32)!r} in HEALTHCHECK (try CMD)")
    parsed = _json_list("HEALTHCHECK", command.strip())
    health.test = ["CMD", *parsed] if parsed is not None else ["CMD-SHELL", command.strip()]
    config.healthcheck = health


def _health_option(health: HealthConfig, option: str) -> None:
    name, _, value = option[2:].partition("=")
    durations = ("interval", "timeout", "start-period", "start-interval")
    if name in durations:
        setattr(health, name.replace("-", "_"), _duration(name, value))
    elif name == "retries" and value.isdigit():
        health.retries = int(value)
    else:
        raise InvalidArgument(f"HEALTHCHECK: unknown or bad flag: {clip(option, 64)}")


def _duration(name: str, text: str) -> int:
    """A duration as Go writes it, in nanoseconds."""
    try:
        length = parse_duration(text)
    except ValueError:
        length = -1
    if length < 0:
        raise InvalidArgument(f"HEALTHCHECK: invalid duration for --{name}: {clip(text, 64)}")
    return length


_INSTRUCTIONS: dict[str, Callable[[RunConfig, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}

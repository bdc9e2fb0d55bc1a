"""Single options with a grammar of their own: limits, devices, security, health, environment. `run` says them wrong
with exit code 125, hence the code in each CliError; the flag kinds raise ValueError."""

from __future__ import annotations

import os

from corten.cli.errors import CliError
from corten.cli.values import KINDS, integer, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.cli.flags import Options

_ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
_SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced".split()
)


def ulimit(text: str) -> dict[str, Any]:
    """NAME=SOFT[:HARD]."""
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = values.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {values}, can only have up to two, `soft[:hard]`")
    soft = integer(parts[0])
    hard = integer(parts[1]) if len(parts) == 2 else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Soft": soft, "Hard": hard}


def sysctl(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not (name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return name, value


def device(text: str) -> dict[str, str]:
    """HOST[:CONTAINER[:MODE]], the second part a mode when it looks like one."""
    parts = text.split(":")
    mode = "rwm"
    if len(parts) > 3:
        raise CliError(f"bad format for path: {text}", 125)
    if len(parts) == 3:
        mode = parts[2]
    elif len(parts) == 2 and _is_mode(parts[1]):
        mode = parts.pop()
    if not _is_mode(mode):
        raise CliError(f"bad mode specified: {mode}", 125)
    inside = parts[1] if len(parts) > 1 and parts[1] else parts[0]
    return {"PathOnHost": parts[0], "PathInContainer": inside, "CgroupPermissions": mode}


def _is_mode(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def devices(specs: list[str]) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Device nodes, and requests for devices named as the Container Device Interface does (vendor.com/class=name)."""
    named = [spec for spec in specs if not spec.startswith("/") and "=" in spec and "/" in spec.partition("=")[0]]
    nodes = [device(spec) for spec in specs if spec not in named]
    return nodes, [
        {"Driver": "cdi", "Count": 0, "DeviceIDs": named, "Capabilities": [], "Options": {}}
    ] if named else []


def capabilities(names: list[str]) -> list[str]:
    """With the kernel's names, each once, sorted."""
    return sorted({_capability(name) for name in names})


def _capability(name: str) -> str:
    upper = name.strip().upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def gpus(specs: list[str]) -> list[dict[str, Any]]:
    """all, a count, or count=…,device=…,driver=…,capabilities=…,options=…"""
    import csv

    requests = []
    for spec in specs:
        request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": None, "Options": {}}
        for field in next(csv.reader([spec]), []):
            key, equals, value = field.partition("=")
            if not equals:
                key, value = "count", field
            if key == "count":
                request["Count"] = _gpu_count(value)
            elif key == "device":
                request["DeviceIDs"] = value.split(",")
            elif key == "driver":
                request["Driver"] = value
            elif key == "capabilities":
                request["Capabilities"] = [sorted({*value.split(","), "gpu"})]
            elif key == "options":
                request["Options"] = as_map(value.split(","))
            else:
                raise CliError(f"unexpected key '{key}' in '{field}'", 125)
        if not request["Count"] and request["DeviceIDs"] is None:
            request["Count"] = 1
        request["Capabilities"] = request["Capabilities"] or [["gpu"]]
        requests.append(request)
    return requests


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise CliError(f'invalid count ({text}): value must be either "all" or an integer', 125) from None


def weights(specs: list[str]) -> list[dict[str, Any]]:
    """PATH:WEIGHT of --blkio-weight-device."""
    result = []
    for spec in specs:
        path, weight = _device_value(spec)
        if not weight.isdigit() or not (weight == "0" or 10 <= int(weight) <= 1000):
            raise CliError(f"invalid weight for device: {spec}", 125)
        result.append({"Path": path, "Weight": int(weight)})
    return result


def rates(specs: list[str], *, bytes_: bool) -> list[dict[str, Any]]:
    """PATH:RATE, the rate a size when `bytes_`."""
    result = []
    for spec in specs:
        path, rate = _device_value(spec)
        try:
            value = size(rate) if bytes_ else int(rate)
        except ValueError:
            raise CliError(
                f"invalid rate for device: {spec}. The correct format is <device-path>:<number>", 125
            ) from None
        result.append({"Path": path, "Rate": value})
    return result


def _device_value(spec: str) -> tuple[str, str]:
    path, colon, value = spec.partition(":")
    if not colon:
        raise CliError(f"bad format: {spec}", 125)
    if not path.startswith("/dev/"):
        raise CliError(f"bad format for device path: {spec}", 125)
    return path, value


def restart_policy(text: str) -> dict[str, Any]:
    name, colon, count = text.partition(":")
    if not colon:
        return {"Name": name, "MaximumRetryCount": 0}
    if not name:
        raise CliError("invalid restart policy format: no policy provided before colon", 125)
    try:
        return {"Name": name, "MaximumRetryCount": int(count)}
    except ValueError:
        raise CliError("invalid restart policy format: maximum retry count must be an integer", 125) from None


def security_options(specs: list[str]) -> tuple[list[str], bool]:
    """The options, a seccomp profile's file read and put in its place; and whether systempaths=unconfined was one."""
    result, unconfined = [], False
    for spec in specs:
        name, separator, value = spec.partition("=") if "=" in spec else spec.partition(":")
        if not separator and spec != "no-new-privileges":
            raise CliError(f'Invalid --security-opt: "{spec}"', 125)
        if spec == "systempaths=unconfined":
            unconfined = True
            continue
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            spec = f"seccomp={_seccomp(value)}"
        result.append(spec)
    return result, unconfined


def _seccomp(path: str) -> str:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CliError(f"opening seccomp profile ({path}) failed: open {path}: {reason}", 125) from None
    try:
        return json.dumps(json.loads(text), separators=(",", ":"))
    except ValueError as error:
        raise CliError(f"compacting json for seccomp profile ({path}) failed: {error}", 125) from None


def health(options: Options) -> dict[str, Any] | None:
    """The Healthcheck that the options ask for; None leaves the image's."""
    names = ("health-cmd", "health-interval", "health-timeout", "health-start-period", "health-start-interval")
    given = any(options[name] for name in (*names, "health-retries", "health-on-failure"))
    if options["no-healthcheck"]:
        if given:
            raise CliError("--no-healthcheck conflicts with --health-* options", 125)
        return {"Test": ["NONE"]}
    for name in (*names[1:], "health-retries"):
        if options[name] < 0:
            raise CliError(f"--{name} cannot be negative", 125)
    if not given:
        return None
    on_failure = {"OnFailure": options["health-on-failure"]} if options["health-on-failure"] else {}
    return on_failure | {
        "Test": ["CMD-SHELL", options["health-cmd"]] if options["health-cmd"] else None,
        "Interval": options["health-interval"],
        "Timeout": options["health-timeout"],
        "StartPeriod": options["health-start-period"],
        "StartInterval": options["health-start-interval"],
        "Retries": options["health-retries"],
    }


def read_lines(path: str) -> list[str]:
    """Lines of an env or label file: comments and empty ones dropped, leading white space too."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.rstrip("\n").lstrip() for line in file]
    except UnicodeDecodeError:
        raise CliError(f"env file {path} contains invalid utf8 bytes", 125) from None
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or '').lower()}", 125) from None
    return [line for line in lines if line and not line.startswith("#")]


def environment(files: list[str], given: list[str]) -> list[str]:
    """Variables in order, files first; a name alone takes its value from here, or unsets it in the image's."""
    result = []
    for path in files:
        for line in read_lines(path):
            name, equals, value = line.partition("=")
            if any(character.isspace() for character in name) or not name:
                what = f"variable '{name}' contains whitespaces" if name else f"no variable name on line '{line}'"
                raise CliError(f"invalid env file ({path}): {what}", 125)
            if equals:
                result.append(f"{name}={value}")
            elif name in os.environ:
                result.append(f"{name}={os.environ[name]}")
    for item in given:
        known = "=" in item or item not in os.environ
        result.append(item if known else f"{item}={os.environ[item]}")
    return result


def labels(files: list[str], given: list[str]) -> dict[str, str]:
    found = {}
    for item in [line for path in files for line in read_lines(path)] + given:
        name, _, value = item.partition("=")
        found[name] = value
    return found


def as_map(pairs: list[str]) -> dict[str, str]:
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in pairs}


def mount_kind(text: str) -> dict[str, Any]:
    from corten.cli.spec.mounts import mount

    return mount(text)


KINDS.update({"ulimit": ulimit, "sysctl": sysctl, "mount": mount_kind})

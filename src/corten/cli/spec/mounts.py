"""`-v` and `--mount`."""

from __future__ import annotations

import os

from corten.cli.errors import CliError
from corten.cli.values import boolean, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Mount = dict[str, Any]


def volumes(specs: list[str]) -> tuple[list[str], list[str]]:
    """Binds, and the targets of anonymous volumes. A source that begins with a dot is made absolute here."""
    binds, anonymous = [], []
    for spec in specs:
        source, colon, rest = spec.partition(":")
        if not colon:
            if not spec:
                raise CliError("invalid empty volume spec", 125)
            anonymous.append(spec)
            continue
        if not source or not rest:
            raise CliError(f"invalid spec: {spec}: empty section between colons", 125)
        if source.startswith("."):
            source = os.path.abspath(source)
        binds.append(f"{source}:{rest}")
    return binds, anonymous


def mount(text: str) -> Mount:
    """One `--mount`, in the API's form. Raises ValueError."""
    result: Mount = {"Type": "volume"}
    groups: set[str] = set()
    for field in _split(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals:
            if key not in _BARE:
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        setter = _KEYS.get(key)
        if setter is None:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
        try:
            setter(result, value)
        except ValueError as error:
            raise ValueError(f"invalid value for {key}: {value} ({error})") from None
        if "-" in key and key.split("-")[0] in ("bind", "volume", "tmpfs", "image"):
            groups.add(key.split("-")[0])
    if not result.get("Target"):
        raise ValueError("target is required")
    for group in sorted(groups):
        if group != result["Type"]:
            raise ValueError(f"cannot mix '{group}-*' options with mount type '{result['Type']}'")
    return result


def _split(text: str) -> list[str]:
    import csv

    rows = list(csv.reader([text]))
    if not rows or not text:
        raise ValueError("value is empty")
    return rows[0]


def _source(result: Mount, value: str) -> None:
    result["Source"] = os.path.abspath(value) if value.startswith(".") else value


def _inside(group: str, key: str, value: Any) -> Any:
    def set_(result: Mount, text: str) -> None:
        result.setdefault(group, {})[key] = value(text)

    return set_


def _top(key: str, value: Any) -> Any:
    def set_(result: Mount, text: str) -> None:
        result[key] = value(text)

    return set_


def _label(result: Mount, text: str) -> None:
    key, _, value = text.partition("=")
    result.setdefault("VolumeOptions", {}).setdefault("Labels", {})[key] = value


def _driver(result: Mount, text: str) -> None:
    result.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = text


def _option(result: Mount, text: str) -> None:
    key, _, value = text.partition("=")
    driver = result.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
    driver.setdefault("Options", {})[key] = value


def _mode(text: str) -> int:
    return int(text, 8)


def _recursive(result: Mount, text: str) -> None:
    options = result.setdefault("BindOptions", {})
    if text == "enabled":
        return
    if text == "disabled":
        options["NonRecursive"] = True
    elif text == "writable":
        options["ReadOnlyNonRecursive"] = True
    elif text == "readonly":
        options["ReadOnlyForceRecursive"] = True
    else:
        raise ValueError('must be "enabled", "disabled", "writable", or "readonly"')


_BARE = frozenset(("readonly", "ro", "rw", "volume-nocopy", "bind-nonrecursive", "bind-create-src"))
_KEYS: dict[str, Any] = {
    "type": lambda result, value: result.__setitem__("Type", value.lower()),
    "source": _source,
    "src": _source,
    "target": _top("Target", str),
    "dst": _top("Target", str),
    "destination": _top("Target", str),
    "readonly": _top("ReadOnly", boolean),
    "ro": _top("ReadOnly", boolean),
    "rw": _top("ReadOnly", lambda text: not boolean(text)),
    "consistency": _top("Consistency", str.lower),
    "bind-propagation": _inside("BindOptions", "Propagation", str.lower),
    "bind-nonrecursive": _inside("BindOptions", "NonRecursive", boolean),
    "bind-create-src": _inside("BindOptions", "CreateMountpoint", boolean),
    "bind-recursive": _recursive,
    "volume-nocopy": _inside("VolumeOptions", "NoCopy", boolean),
    "volume-subpath": _inside("VolumeOptions", "Subpath", str),
    "volume-label": _label,
    "volume-driver": _driver,
    "volume-opt": _option,
    "image-subpath": _inside("ImageOptions", "Subpath", str),
    "tmpfs-size": _inside("TmpfsOptions", "SizeBytes", size),
    "tmpfs-mode": _inside("TmpfsOptions", "Mode", _mode),
}

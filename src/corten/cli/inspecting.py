"""Output of inspect: indented JSON, or a template over what the daemon sent.

Docker runs a template over its own structures first and over the plain JSON when that fails, so both ways of writing
one work. Here the first pass is over a view of the JSON in which objects print as Go's structures do (`typed`).
"""

from __future__ import annotations

import json

from corten.cli.errors import CliError
from corten.specs.gotemplate.values import NIL, GoStruct, NamedKeyMap, escape_html

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.specs.gotemplate import Template

# Objects under these keys are maps in Go; all others are structures.
_MAPS = frozenset(
    "Labels Networks Options Sysctls Tmpfs Volumes DriverOpts Annotations StorageOpt Data Containers LogConfig.Config "
    "Platforms AuxiliaryAddresses IPAM.Options".split()
)
_PORT_MAPS = frozenset(("Ports", "PortBindings", "ExposedPorts"))
_NULL_MAPS = _MAPS | _PORT_MAPS
_NULL_POINTERS = frozenset(
    ("Init", "StopTimeout", "IPAMConfig", "Healthcheck", "Health", "OomKillDisable", "PidsLimit")
)
# Fields that Go leaves out of the JSON when they are empty, but has; a nil pointer, or the empty value.
_OMITTED: dict[str, Any] = {
    "Health": None,
    "Healthcheck": None,
    "StopSignal": "",
    "StopTimeout": None,
    "Shell": [],
    "SizeRw": None,
    "SizeRootFs": None,
    "Annotations": {},
    "Init": None,
    "Tmpfs": {},
    "Sysctls": {},
    "StorageOpt": {},
    "MacAddress": "",
    "NetworkDisabled": False,
    "ArgsEscaped": False,
    "ExposedPorts": {},
    "Runtime": "",
    "Parent": "",
    "Comment": "",
    "Author": "",
    "Variant": "",
    "Name": "",
    "Driver": "",
    "Status": "",
}


def write(found: list[Any], format_: str) -> str:
    """What inspect prints for `found`. Raises CliError; a template that does not parse has exit code 64."""
    if not format_:
        return indented(found)
    if format_ == "json":
        return escape_html(json.dumps(found, ensure_ascii=False, separators=(",", ":"))) + "\n"
    from corten.specs.gotemplate import TemplateError, parse

    try:
        template = parse(format_)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}", 64) from None
    return "".join(_execute(template, item) + "\n" for item in found)


def indented(found: Any) -> str:
    """JSON with four spaces, and Go's escapes."""
    return escape_html(json.dumps(found, ensure_ascii=False, indent=4)) + "\n"


def _execute(template: Template, item: Any) -> str:
    from corten.specs.gotemplate import ExecError

    try:
        return template.execute(typed(item), strict=True)
    except ExecError:
        pass
    try:
        return template.execute(item, strict=True)
    except ExecError as error:
        raise CliError(f"\ntemplate parsing error: {error}") from None


class _Structure(GoStruct):
    """Has the fields that its JSON left out, too."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in _OMITTED

    def __missing__(self, name: str) -> Any:
        value = _OMITTED[name]
        return NIL if value is None else value


class _List(list["Any"]):
    """A slice; `raw` is what `json` prints, null for a nil one."""

    raw: Any


class _Map(dict[str, "Any"]):
    raw: Any


class _PortMap(NamedKeyMap):
    raw: Any


def typed(value: Any, key: str = "", parent: str = "") -> Any:
    """A view of JSON in which Go's structures, maps and nil pointers can be told apart."""
    if value is None and key in _NULL_POINTERS:
        return NIL
    result: Any
    if isinstance(value, dict) or (value is None and key in _NULL_MAPS):
        members = {name: typed(member, name, key) for name, member in (value or {}).items()}
        if key in _PORT_MAPS:
            result = _PortMap(members)
        elif key in _MAPS or f"{parent}.{key}" in _MAPS:
            result = _Map(members)
        else:
            result = _Structure(members)
    elif isinstance(value, list) or value is None:
        result = _List(typed(member, "", key) for member in value or ())
    else:
        return value
    result.raw = value
    return result

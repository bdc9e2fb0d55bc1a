"""From a driver and its options to what the shim's writer takes. Runs in the daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corten.logs.jsonfile import escape
from corten.logs.options import ATTRIBUTES, parse
from corten.logs.types import LogFacts

if TYPE_CHECKING:
    from corten.logs.writer import Settings


def prepare(driver: str, path: Path | None, facts: LogFacts) -> Settings:
    """`path` is the live file of what the driver keeps, or of its cache. Raises InvalidArgument."""
    chosen = parse(driver, facts.options)
    more: dict[str, Any] = {}
    if chosen.buffer >= 0:
        more["buffer"] = chosen.buffer
    if driver == "json-file":
        if any(name in facts.options for name in ATTRIBUTES) and (extra := _extra(facts)):
            more["attributes"] = extra
    elif driver in _REMOTE:
        more["remote"] = _REMOTE[driver](facts)
    files = chosen.files
    if files is None:
        return (driver, "", 0, 1, more)
    if files.compress:
        more["compress"] = True
    return (driver, str(path or ""), files.max_size, files.max_files, more)


def _extra(facts: LogFacts) -> bytes:
    """The "attrs" of json-file, a JSON object as Go writes it; nothing when there are none."""
    from corten.logs.attributes import attributes, tag

    found = attributes(facts)
    if text := tag(facts, ""):
        found["tag"] = text
    if not found:
        return b""
    pairs = (b'"%b":"%b"' % (_inside(name), _inside(found[name])) for name in sorted(found))
    return b"{" + b",".join(pairs) + b"}"


def _inside(text: str) -> bytes:
    return escape(text.encode("utf-8", "surrogateescape"), b"\\n")


def _syslog(facts: LogFacts) -> dict[str, Any]:
    from corten.logs.attributes import DEFAULT_TAG, tag
    from corten.logs.syslogopts import remote

    return remote(facts.options, tag(facts, DEFAULT_TAG))


def _journald(facts: LogFacts) -> dict[str, Any]:
    from corten.logs.attributes import DEFAULT_TAG, attributes, tag
    from corten.logs.journald import SOCKET, sanitized

    name = tag(facts, DEFAULT_TAG)
    fields = {
        "CONTAINER_ID": facts.id[:12],
        "CONTAINER_ID_FULL": facts.id,
        "CONTAINER_NAME": facts.name,
        "CONTAINER_TAG": name,
        "IMAGE_NAME": facts.image_name,
        "SYSLOG_IDENTIFIER": name,
        **{key: value for key, value in attributes(facts, sanitized).items() if key},
    }
    return {"socket": SOCKET, "fields": fields}


_REMOTE: dict[str, Callable[[LogFacts], dict[str, Any]]] = {"syslog": _syslog, "journald": _journald}

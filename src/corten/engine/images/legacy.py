"""Archives from before manifest.json: a directory for each layer, with the description of the image that it was the
top of, chained by `parent`; and `repositories`, which says what these are called.
"""

from __future__ import annotations

from typing import Any

import msgspec

from corten.errors import InvalidArgument, clip
from corten.specs import platform as platforms
from corten.specs import wire

MAX_CHAIN = 1024


class _Step(msgspec.Struct):
    """`<id>/json`, as far as it is of use; `config` and `container_config` are what an image's config has today."""

    id: str = ""
    parent: str = ""
    created: str | None = None
    author: str = ""
    comment: str = ""
    architecture: str = ""
    os: str = ""
    config: dict[str, Any] | None = None
    container_config: dict[str, Any] | None = None


def names(documents: dict[str, bytes]) -> dict[str, list[str]]:
    """By the id of a top layer the names for it. Raises InvalidArgument."""
    listed = _decode("repositories", documents["repositories"], dict[str, dict[str, str]])
    found: dict[str, list[str]] = {}
    for repository, tags in listed.items():
        for tag, id in tags.items():
            found.setdefault(id, []).append(f"{repository}:{tag}")
    return found


def chain(documents: dict[str, bytes], top: str) -> list[_Step]:
    """The steps from the lowest to `top`. Raises InvalidArgument for a chain with a gap or without an end."""
    steps: list[_Step] = []
    id = top
    while id:
        name = f"{id}/json"
        if name not in documents:
            raise InvalidArgument(f"invalid archive: {clip(name, 128)} is missing")
        step = _decode(name, documents[name], _Step)
        step.id = id
        steps.append(step)
        if len(steps) > MAX_CHAIN:
            raise InvalidArgument("invalid archive: its layers are chained without an end")
        id = step.parent
    if not steps:
        raise InvalidArgument("invalid archive: repositories names an image without an id")
    return steps[::-1]


def config(steps: list[_Step], diff_ids: list[str]) -> bytes:
    """The config of the image that the last of `steps` describes."""
    top, here = steps[-1], platforms.host()
    document = {
        "created": top.created,
        "author": top.author,
        "architecture": top.architecture or here.architecture,
        "os": top.os or here.os,
        "config": top.config or {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [_history(step) for step in steps],
    }
    return msgspec.json.encode({key: value for key, value in document.items() if value not in (None, "")})


def _history(step: _Step) -> dict[str, Any]:
    command = (step.container_config or {}).get("Cmd")
    words = " ".join(word for word in command if isinstance(word, str)) if isinstance(command, list) else ""
    found = {"created": step.created, "created_by": words, "author": step.author, "comment": step.comment}
    return {key: value for key, value in found.items() if value}


def _decode(name: str, data: bytes, kind: Any) -> Any:
    return wire.read(data, kind, f"archive: {clip(name, 128)}")

"""`corten images --tree`: each image with the platforms that it has, here or only at its registry."""

from __future__ import annotations

import sys

from corten.cli.context import say, say_error
from corten.cli.units import human_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]
    Line = tuple[str, str, str, str, str]

_HEADER = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
_GAP = "   "
_BRANCH = "\N{BOX DRAWINGS LIGHT VERTICAL AND RIGHT}\N{BOX DRAWINGS LIGHT HORIZONTAL} "
_LAST = "\N{BOX DRAWINGS LIGHT UP AND RIGHT}\N{BOX DRAWINGS LIGHT HORIZONTAL} "


def write_tree(images: list[Row], *, truncate: bool) -> None:
    """One block for each of `images`, as `Images.list(manifests=True)` has them."""
    blocks = [block for image in images if (block := _block(image, truncate=truncate))]
    lines = [line for block in blocks for line in block]
    widths = [max(len(line[at]) for line in [_HEADER, *lines]) for at in range(4)]
    say_error("WARNING: This is an experimental feature. The output may change and shouldn't be depended on.")
    say("Info: U is in use\n")
    say(_GAP.join([*(head.ljust(width) for head, width in zip(_HEADER, widths, strict=False)), _HEADER[4]]).rstrip())
    for at, block in enumerate(blocks):
        if at and (len(block) > 1 or len(blocks[at - 1]) > 1):
            say("")
        for line in block:
            _say_line(line, widths)
    sys.stdout.flush()


def _say_line(line: Line, widths: list[int]) -> None:
    cells = (line[0].ljust(widths[0]), line[1].ljust(widths[1]), line[2].rjust(widths[2]), line[3].rjust(widths[3]))
    say(_GAP.join([*cells, line[4]]).rstrip())


def _block(image: Row, *, truncate: bool) -> list[Line]:
    """The lines of an image; none for one without a name."""
    names = image.get("RepoTags") or []
    if not names:
        return []
    children = [entry for entry in image.get("Manifests") or [] if entry.get("Kind") == "image"]
    content = sum(entry["Size"]["Content"] for entry in children)
    in_use = any((entry.get("ImageData") or {}).get("Containers") for entry in children)
    lines: list[Line] = [(name, "", "", "", "") for name in names[:-1]]
    id = short_id(image["Id"]) if truncate else image["Id"]
    lines.append((names[-1], id, human_size(image["Size"], 3), human_size(content, 3), "U" if in_use else ""))
    for at, entry in enumerate(children):
        lines.append(_child(_LAST if at == len(children) - 1 else _BRANCH, entry, truncate=truncate))
    return lines


def _child(branch: str, entry: Row, *, truncate: bool) -> Line:
    data = entry.get("ImageData") or {}
    platform = data.get("Platform") or {}
    words = "/".join(platform[key] for key in ("os", "architecture", "variant") if platform.get(key))
    id = short_id(entry["ID"]) if truncate else entry["ID"]
    size = entry["Size"]
    used = "U" if data.get("Containers") else ""
    return f"{branch}{words or '<unknown>'}", id, human_size(size["Total"], 3), human_size(size["Content"], 3), used

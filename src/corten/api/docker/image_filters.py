"""The filters of `GET /images/json`."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING

from corten.api.docker.encode_image import familiar
from corten.api.docker.labels import label_test
from corten.api.docker.params import check_filters, filter_flag, parse_time
from corten.engine.models import Filters, Image
from corten.errors import InvalidArgument, clip

if TYPE_CHECKING:
    from corten.api.docker.backends import ImageBackend

ImageTest = Callable[[Image, dict[str, str]], bool]
KNOWN = frozenset(("before", "dangling", "label", "reference", "since", "until"))


def image_test(filters: Filters, images: ImageBackend, now_ns: int) -> ImageTest:
    """A function that says whether an image with these labels passes. Raises InvalidArgument for an unknown filter."""
    check_filters(filters, KNOWN)
    dangling = filter_flag(filters, "dangling")
    labelled = label_test(filters.get("label", []))
    newest, oldest = _window(filters, images, now_ns)
    patterns = filters.get("reference", [])

    def test(image: Image, labels: dict[str, str]) -> bool:
        return (
            (dangling is None or (not image.names) == dangling)
            and (newest is None or image.created_ns < newest)
            and (oldest is None or image.created_ns > oldest)
            and (not patterns or any(_matches(name, patterns) for name in (*image.names, *image.digests)))
            and labelled(labels)
        )

    return test


def _window(filters: Filters, images: ImageBackend, now_ns: int) -> tuple[int | None, int | None]:
    """Exclusive bounds of the time of creation: below the first, above the second."""
    upper = [images.get(value).created_ns for value in filters.get("before", ())]
    for value in filters.get("until", ()):
        moment = parse_time(value, now_ns)
        if not moment:
            raise InvalidArgument(f"invalid filter 'until={clip(value)}'")
        upper.append(moment)
    lower = [images.get(value).created_ns for value in filters.get("since", ())]
    return min(upper, default=None), max(lower, default=None)


def _matches(name: str, patterns: list[str]) -> bool:
    """As Go's path.Match on the familiar form, with and without its tag: a star stays within one part of the path."""
    full = familiar(name)
    head, slash, last = full.rpartition("/")
    bare = head + slash + last.partition("@")[0].partition(":")[0]
    return any(_path_match(text, pattern) for pattern in patterns for text in (full, bare))


def _path_match(text: str, pattern: str) -> bool:
    parts, wanted = text.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))

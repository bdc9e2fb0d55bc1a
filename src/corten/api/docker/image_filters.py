"""The filters of `GET /images/json`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from corten.api.docker.params import check_filters, filter_flag, parse_time
from corten.api.docker.patterns import path_pattern
from corten.engine.models import Filters, Image
from corten.errors import InvalidArgument, clip
from corten.specs import reference
from corten.specs.filters import label_test

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
            _dangles(image, dangling)
            and (newest is None or image.created_ns < newest)
            and (oldest is None or image.created_ns > oldest)
            and (not patterns or any(chosen_names(image, patterns)))
            and labelled(labels)
        )

    return test


def _dangles(image: Image, wanted: bool | None) -> bool:
    """An image that only a digest names counts as dangling and as not."""
    if wanted is None:
        return True
    return not image.names if wanted else bool(image.names or image.digests)


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


def chosen_names(image: Image, patterns: list[str]) -> tuple[list[str], list[str]]:
    """Of an image's tags and digests those that a `reference` filter means; all without one.

    A name is matched in its familiar form, with and without its tag. A digest comes along with a tag of its
    repository, as it says what that tag stands for.
    """
    if not patterns:
        return image.names, image.digests
    tests = [path_pattern(pattern) for pattern in patterns]
    names = [name for name in image.names if _matches(name, tests)]
    repositories = {name.rpartition(":")[0] for name in names}
    digests = [d for d in image.digests if d.partition("@")[0] in repositories or _matches(d, tests)]
    return names, digests


def _matches(name: str, patterns: list[re.Pattern[str]]) -> bool:
    parsed = reference.parse(name, default_tag=False)
    forms = (parsed.familiar, parsed.familiar_name)
    return any(pattern.fullmatch(form) for pattern in patterns for form in forms)

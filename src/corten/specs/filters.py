"""Filters by label, the same for everything that has labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

Labels = Mapping[str, str]


def label_test(values: Iterable[str], without: Iterable[str] = ()) -> Callable[[Labels], bool]:
    """Whether labels have all of `values` and none of `without`: "key" (present) or "key=value" (equal)."""
    wanted = [value.partition("=") for value in values]
    refused = [value.partition("=") for value in without]

    def test(labels: Labels) -> bool:
        return all(_has(labels, *part) for part in wanted) and not any(_has(labels, *part) for part in refused)

    return test


def _has(labels: Labels, key: str, equals: str, value: str) -> bool:
    return key in labels and (not equals or labels[key] == value)

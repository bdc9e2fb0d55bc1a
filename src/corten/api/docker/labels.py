"""Label filters, the same for everything that has labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def label_test(values: list[str]) -> Callable[[Mapping[str, str]], bool]:
    """All of "key" (present) and "key=value" (equal) must hold."""
    wanted = [value.partition("=") for value in values]

    def test(labels: Mapping[str, str]) -> bool:
        return all(key in labels and (not equals or labels[key] == value) for key, equals, value in wanted)

    return test

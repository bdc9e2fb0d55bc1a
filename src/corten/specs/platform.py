"""Platforms: operating system, architecture, variant; their spellings, and which of several serves a host best."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from corten.errors import InvalidArgument, clip

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
}
"""What machines and people say, and Go's name and variant for it."""

_KNOWN_ARCHITECTURES = frozenset(
    {"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le"}
    | {"riscv64", "s390x", "wasm"}
)
_KNOWN_SYSTEMS = frozenset(
    {"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "js", "linux", "netbsd", "openbsd", "plan9"}
    | {"solaris", "wasip1", "windows"}
)
_WORD = re.compile(r"[A-Za-z0-9_.-]+")

# Architectures that run another's programs too, each list best first.
_ALSO_RUNS = {"arm64": [("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")], "amd64": [("386", "")]}


class Platform(Struct, frozen=True, omit_defaults=True):
    """As OCI indexes and image configs spell it."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = field(default="", name="os.version")
    os_features: tuple[str, ...] = field(default=(), name="os.features")

    def normalised(self) -> Platform:
        """Go's spelling: `aarch64` is `arm64`, and `arm64/v8` says no more than `arm64`."""
        system = self.os.lower()
        system = "darwin" if system == "macos" else system
        architecture, implied = _ARCHITECTURES.get(self.architecture.lower(), (self.architecture.lower(), ""))
        variant = self.variant.lower() or implied
        if variant.isdigit():
            variant = "v" + variant
        if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        if architecture == "arm" and not variant:
            variant = "v7"
        return Platform(architecture, system, variant, self.os_version, self.os_features)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def host() -> Platform:
    """Of the machine that this runs on."""
    return Platform(os.uname().machine, "linux").normalised()


def parse(text: str) -> Platform:
    """`os[/architecture[/variant]]`, or an architecture alone; what is left out is the host's.

    Raises InvalidArgument in the words that Docker's users know.
    """
    parts = text.split("/")
    if (wrong := next((part for part in parts if not _WORD.fullmatch(part)), None)) is not None:
        rule = f'platform specifier component must match "^{_WORD.pattern}$": invalid argument'
        raise InvalidArgument(f'"{clip(wrong)}" is an invalid component of "{clip(text)}": {rule}')
    if len(parts) > 3:
        raise InvalidArgument(f'"{clip(text)}": cannot parse platform specifier: invalid argument')
    if len(parts) == 1:
        return _parse_single(parts[0])
    return Platform(parts[1], parts[0], parts[2] if len(parts) == 3 else "").normalised()


def recorded(text: str) -> Platform:
    """What `str` made of a platform. Nothing is checked: an image may call its platform what it likes."""
    system, architecture, variant = (*text.split("/", 2), "", "")[:3]
    return Platform(architecture, system, variant).normalised()


def _parse_single(word: str) -> Platform:
    lower = word.lower()
    lower = "darwin" if lower == "macos" else lower
    if lower in _KNOWN_SYSTEMS:
        here = host()
        return Platform(here.architecture, lower, here.variant if lower == here.os else "")
    found = Platform(word, "linux").normalised()
    if found.architecture in _KNOWN_ARCHITECTURES:
        return found
    raise InvalidArgument(f'"{clip(word)}": unknown operating system or architecture: invalid argument')


def best(wanted: Platform, offered: Sequence[Platform]) -> int | None:
    """The index of the offer that serves `wanted` best, the first of equals; None when none does.

    An exact match is best; then an older variant of the same architecture; then an architecture that it also runs.
    """
    order = {candidate: rank for rank, candidate in reversed(list(enumerate(_candidates(wanted.normalised()))))}
    ranked = [
        (order[key], at)
        for at, offer in enumerate(offered)
        if (key := _key(offer.normalised())) in order and offer.os.lower() == wanted.os.lower()
    ]
    return min(ranked)[1] if ranked else None


def _key(platform: Platform) -> tuple[str, str]:
    return platform.architecture, platform.variant


def _candidates(wanted: Platform) -> Iterable[tuple[str, str]]:
    yield _key(wanted)
    lowest = 5 if wanted.architecture == "arm" else 1
    if re.fullmatch(r"v\d{1,2}", wanted.variant):
        for version in range(int(wanted.variant[1:]) - 1, lowest - 1, -1):
            yield _key(Platform(wanted.architecture, wanted.os, f"v{version}").normalised())
    yield from _ALSO_RUNS.get(wanted.architecture, [])

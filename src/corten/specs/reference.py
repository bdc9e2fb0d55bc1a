"""Image references in Docker's grammar, and its rules for what may be left out.

    reference := name [":" tag] ["@" digest]
    name      := [domain "/"] path

`alpine` means `docker.io/library/alpine:latest`. What stands before the first slash is a domain when it holds a dot or
a colon, is `localhost`, or has a capital letter (which no path may have).
"""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace

from corten.errors import InvalidArgument
from corten.specs import digest as digests

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_PATH = 255
"""Characters in a repository's path; the limit that registries set."""

_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_ALGORITHM = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_ALGORITHM}:[0-9a-fA-F]{{32,}}))?"
)
_TAG_ALONE = re.compile(_TAG)
_ID = re.compile(r"[a-f0-9]{64}")


class Reference(Struct, frozen=True):
    """A normalised reference: `domain` and `path` are never empty, `tag` and `digest` may be."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: what a repository is called everywhere."""
        return f"{self.domain}/{self.path}"

    @property
    def canonical(self) -> str:
        """Everything said: `docker.io/library/alpine:latest`."""
        return self.name + self._suffix

    @property
    def familiar_name(self) -> str:
        """The name as short as it can be said: `alpine`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        short = self.path if "/" in short else short
        # Docker Hub has no such names, but the grammar does, and the short form must mean the same repository.
        return short if _split_domain(short) == (self.domain, self.path) else self.name

    @property
    def familiar(self) -> str:
        """The reference as Docker shows it: `alpine:latest`, `quay.io/a/b@sha256:…`."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_tag(self, tag: str) -> Reference:
        """The same repository under `tag`, no digest. Raises InvalidArgument for what is no tag."""
        if not _TAG_ALONE.fullmatch(tag):
            raise InvalidArgument("invalid tag format")
        return replace(self, tag=tag, digest="")

    def with_digest(self, digest: str) -> Reference:
        """The same repository at `digest`, no tag."""
        return replace(self, tag="", digest=digests.parse(digest))

    def __str__(self) -> str:
        return self.canonical


def parse(text: str, *, default_tag: bool = True) -> Reference:
    """`text` normalised; `:latest` is added to one that has neither tag nor digest, unless `default_tag` is off.

    Raises InvalidArgument in Docker's words.
    """
    if _ID.fullmatch(text):
        raise InvalidArgument(
            f"invalid reference format: invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remainder = _split_domain(text)
    path = remainder.partition(":")[0]
    if path != path.lower() and path.isascii():
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    if (match := _REFERENCE.fullmatch(f"{domain}/{remainder}")) is None:
        raise InvalidArgument("invalid reference format")
    if len(match["path"]) > MAX_PATH:
        raise InvalidArgument(f"invalid reference format: repository name must not be more than {MAX_PATH} characters")
    digest = match["digest"] or ""
    if digest and not digests.is_digest(digest):
        raise InvalidArgument(f"invalid reference format: {_digest_fault(digest)}")
    tag = match["tag"] or (DEFAULT_TAG if default_tag and not digest else "")
    return Reference(match["domain"], match["path"], tag, digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, remainder = first, rest
    else:
        domain, remainder = DEFAULT_DOMAIN, text
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder


def _digest_fault(digest: str) -> str:
    try:
        digests.parse(digest)
    except InvalidArgument as error:
        return str(error)
    raise AssertionError(digest)

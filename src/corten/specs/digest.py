"""Content digests, "sha256:" and 64 lower-case hexadecimal digits: the only algorithm that Corten stores."""

from __future__ import annotations

import hashlib
import re

from corten.errors import InvalidArgument, clip

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]+")

EMPTY = "sha256:" + hashlib.sha256(b"").hexdigest()


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def parse(text: str) -> str:
    """`text` itself when it is a digest.

    Raises InvalidArgument in Docker's words: bad form, an algorithm that is not sha256, a wrong length.
    """
    if is_digest(text):
        return text
    algorithm, colon, digits = text.partition(":")
    if not colon or not algorithm or not _HEX.fullmatch(digits):
        raise InvalidArgument(f"invalid checksum digest format: {clip(text)}")
    if algorithm != "sha256":
        raise InvalidArgument(f"unsupported digest algorithm: {clip(algorithm)}")
    raise InvalidArgument(f"invalid checksum digest length: {clip(text)}")


def of(data: bytes | memoryview) -> str:
    """The digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hex_of(digest: str) -> str:
    """The digits without "sha256:"."""
    return digest.removeprefix("sha256:")


def short(digest: str) -> str:
    """The twelve digits that people read."""
    return hex_of(digest)[:12]


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The identity of each layer stack, lowest first: the OCI image specification's ChainID of each prefix."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain

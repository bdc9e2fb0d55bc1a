"""What registries answer when they do not do what was asked, in Docker's words."""

from __future__ import annotations

import http

from corten.errors import (
    CortenError,
    Forbidden,
    InvalidArgument,
    NotFound,
    SystemFault,
    TooLarge,
    Unauthorized,
    Unavailable,
    clip,
)
from corten.registry.auth import Challenge
from corten.specs import wire
from corten.specs.reference import Reference

_TEXTS = {
    "UNAUTHORIZED": "authentication required",
    "DENIED": "requested access to the resource is denied",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "NAME_UNKNOWN": "repository name not known to registry",
    "BLOB_UNKNOWN": "blob unknown to registry",
    "TOOMANYREQUESTS": "too many requests",
}


class Refused(Exception):
    """An answer that is no success: `status` of HTTP, the registry's error `code` ("" for none) and clipped `text`.

    Stays inside this package; `translate` makes an error of the taxonomy of it.
    """

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(f"{status} {code} {text}")
        self.status, self.code, self.text = status, code, text

    @property
    def detail(self) -> str:
        """As the distribution library prints an error: `manifest unknown: manifest unknown`."""
        if not self.code:
            return self.text
        return f"{self.code.lower().replace('_', ' ')}: {self.text or _TEXTS.get(self.code, 'unknown error')}"


def read_refusal(status: int, body: bytes, challenges: list[Challenge], missing: str) -> Refused:
    """The refusal in an answer; `missing` is the code that a 404 without a body stands for."""
    code, text = _first_error(body)
    # A token was given, but not for this: what Docker Hub says about repositories that are private or not there.
    if status == 401 and any(c.params.get("error") == "insufficient_scope" for c in challenges):
        return Refused(status, "DENIED", _TEXTS["DENIED"])
    if code:
        return Refused(status, code, text)
    if status == 404:
        return Refused(status, missing, "")
    implied = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}.get(status, "")
    return Refused(status, implied, "" if implied else f"received unexpected HTTP status: {status_text(status)}")


def _first_error(body: bytes) -> tuple[str, str]:
    try:
        raw = wire.parse(body)
    except InvalidArgument:
        return "", ""
    if not isinstance(raw, dict):
        return "", ""
    errors = raw.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else raw
    if not isinstance(first, dict):
        return "", ""
    code, message = first.get("code"), first.get("message", first.get("details"))
    if not isinstance(code, str) or not code:
        return "", ""
    return clip(code, 64), clip(message) if isinstance(message, str) else ""


def status_text(status: int) -> str:
    """`404 Not Found`."""
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def translate(refused: Refused, reference: Reference, *, push: bool = False) -> CortenError:
    """The error for the user who wanted to pull (or push) `reference`."""
    detail = refused.detail
    if refused.code == "MANIFEST_UNKNOWN":
        return NotFound("manifest", reference.familiar, f"manifest for {reference.familiar} not found: {detail}")
    if refused.code == "NAME_UNKNOWN":
        return NotFound(
            "repository", reference.familiar_name, f"repository {reference.familiar_name} not found: {detail}"
        )
    if refused.code == "DENIED":
        if push:
            return Forbidden(detail)
        name = reference.familiar_name
        text = f"pull access denied for {name}, repository does not exist or may require 'docker login': {detail}"
        return NotFound("repository", name, text)
    if refused.status == 401:
        return Unauthorized(detail)
    if refused.status == 404:
        return NotFound("blob", reference.familiar, detail)
    if refused.status in (429, 502, 503, 504):
        return Unavailable(detail)
    if refused.status == 413:
        return TooLarge(detail)
    return InvalidArgument(detail) if push and refused.status < 500 else SystemFault(detail, step="registry")

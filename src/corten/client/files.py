"""Files of containers, as archives."""

from __future__ import annotations

import base64
import json

from corten.client.errors import NotFound, ProtocolError
from corten.client.query import flags, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from corten.client.session import Response, Session

    Json = dict[str, Any]

STAT_HEADER = "x-docker-container-path-stat"


class Files:
    """`ref` is a container's name, id or a unique prefix of the id; a stat is `{"name", "size", "mode", "mtime",
    "linkTarget"}`, its mode as Go has it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def stat(self, ref: str, path: str) -> Json | None:
        """None when there is nothing at `path`. A container that is not there is found out by the next request."""
        try:
            response = self._session.request("HEAD", _archive(ref), flags(path=path))
        except NotFound:
            return None
        return _stat(response)

    def read(self, ref: str, path: str) -> tuple[Json, Iterator[bytes]]:
        """The stat of what is at `path`, and a tar of it."""
        response = self._session.request("GET", _archive(ref), flags(path=path))
        return _stat(response), response.chunks()

    def write(self, ref: str, path: str, tar: Iterable[bytes], *, own_by_user: bool = False) -> None:
        """Unpack `tar` into the directory `path`; no directory is replaced by a file, nor the other way round."""
        query = flags(path=path, noOverwriteDirNonDir="true", copyUIDGID="true" if own_by_user else "")
        self._session.request("PUT", _archive(ref), query, body=tar).read()


def _archive(ref: str) -> str:
    return f"/containers/{segment(ref)}/archive"


def _stat(response: Response) -> Json:
    try:
        found = json.loads(base64.b64decode(response.head.headers[STAT_HEADER]))
    except (KeyError, ValueError):
        raise ProtocolError("the daemon does not say what it sends") from None
    if not isinstance(found, dict):
        raise ProtocolError("the daemon does not say what it sends")
    return found

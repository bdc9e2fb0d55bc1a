"""Volumes."""

from __future__ import annotations

from corten.client.query import filters as as_filters
from corten.client.query import flags, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.client.query import Filters
    from corten.client.session import Session

    Json = dict[str, Any]


class Volumes:
    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, filters: Filters | None = None) -> list[Json]:
        result: Json = self._session.json("GET", "/volumes", as_filters(filters))
        return result.get("Volumes") or []

    def create(self, body: Json) -> Json:
        result: Json = self._session.json("POST", "/volumes/create", body=body)
        return result

    def inspect(self, name: str) -> Json:
        result: Json = self._session.json("GET", f"/volumes/{segment(name)}")
        return result

    def remove(self, name: str, *, force: bool = False) -> None:
        self._session.request("DELETE", f"/volumes/{segment(name)}", flags(force=force)).read()

    def prune(self, filters: Filters | None = None) -> Json:
        """`{"VolumesDeleted", "SpaceReclaimed"}`"""
        result: Json = self._session.json("POST", "/volumes/prune", as_filters(filters))
        return result

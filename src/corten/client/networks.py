"""Networks."""

from __future__ import annotations

from corten.client.query import filters as as_filters
from corten.client.query import flags, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.client.query import Filters
    from corten.client.session import Session

    Json = dict[str, Any]


class Networks:
    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, filters: Filters | None = None) -> list[Json]:
        result: list[Json] = self._session.json("GET", "/networks", as_filters(filters))
        return result

    def inspect(self, ref: str, *, verbose: bool = False) -> Json:
        result: Json = self._session.json("GET", f"/networks/{segment(ref)}", flags(verbose=verbose))
        return result

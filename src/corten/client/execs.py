"""Commands executed in running containers."""

from __future__ import annotations

import json

from corten.client.container_io import UPGRADE
from corten.client.query import flags, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.client.session import Response, Session

    Json = dict[str, Any]


class Execs:
    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, container: str, body: Json) -> str:
        """The id of a new session in `container`, not yet started."""
        result: Json = self._session.json("POST", f"/containers/{segment(container)}/exec", body=body)
        return str(result["Id"])

    def start(self, exec_id: str, body: Json) -> None:
        """Starts it detached."""
        self._session.json("POST", f"/exec/{segment(exec_id)}/start", body={**body, "Detach": True})

    def start_attached(self, exec_id: str, body: Json) -> Response:
        """Starts it; the hijacked connection is to be `detach`ed, as that of attach."""
        headers = {**UPGRADE, "Content-Type": "application/json"}
        payload = json.dumps({**body, "Detach": False}).encode()
        return self._session.request("POST", f"/exec/{segment(exec_id)}/start", body=payload, headers=headers)

    def resize(self, exec_id: str, *, height: int, width: int) -> None:
        query = {"h": str(height), "w": str(width)}
        self._session.request("POST", f"/exec/{segment(exec_id)}/resize", query).read()

    def kill(self, exec_id: str, *, signal: str = "") -> None:
        """An extension of Corten's: dockerd answers NotFound."""
        self._session.request("POST", f"/exec/{segment(exec_id)}/kill", flags(signal=signal)).read()

    def list(self, container: str) -> list[Json]:
        """What runs in `container`, as `inspect` shows it. An extension of Corten's: dockerd answers NotFound."""
        result: list[Json] = self._session.json("GET", f"/containers/{segment(container)}/exec")
        return result

    def inspect(self, exec_id: str) -> Json:
        result: Json = self._session.json("GET", f"/exec/{segment(exec_id)}/json")
        return result

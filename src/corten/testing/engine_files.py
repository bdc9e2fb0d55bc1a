"""The engine's fake for files of containers: one flat folder, the same in every container, and real bodies."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from corten.engine.models import Conduit, Container, ExtractOptions, PathStat
from corten.errors import Forbidden, InvalidArgument, NotFound
from corten.storage.archiving.conduit import Inlet, Outlet


class Finder(Protocol):
    def get(self, ref: str) -> Container: ...


class MemoryFiles:
    """`files` are what is in `/data`, by name; `/ro` is a directory that takes nothing. `asked` is how it was written
    to last.
    """

    def __init__(self, containers: Finder) -> None:
        self._containers = containers
        self.files: dict[str, bytes] = {"file": b"content"}
        self.asked = ExtractOptions()

    async def stat(self, ref: str, path: str) -> PathStat:
        self._containers.get(ref)
        if path in ("/data", "/ro"):
            return PathStat(path[1:], 4096, 0o40755, 1_500_000_000)
        name = path.removeprefix("/data/")
        if name not in self.files:
            raise NotFound("file", path, f"Could not find the file {path} in container {ref}")
        return PathStat(name, len(self.files[name]), 0o100644, 1_500_000_000)

    async def read(self, ref: str, path: str, begin: Callable[[PathStat | None], Awaitable[Conduit]]) -> None:
        found = await self.stat(ref, path)
        await asyncio.to_thread(self._send, await begin(found), [found.name])

    async def export(self, ref: str, begin: Callable[[PathStat | None], Awaitable[Conduit]]) -> None:
        self._containers.get(ref)
        await asyncio.to_thread(self._send, await begin(None), list(self.files))

    async def write(
        self, ref: str, path: str, options: ExtractOptions, begin: Callable[[], Awaitable[Conduit]]
    ) -> None:
        if (await self.stat(ref, path)).mode != 0o40755:
            raise InvalidArgument("extraction point is not a directory")
        if path == "/ro":
            raise Forbidden("mounted volume is marked read-only")
        self.asked = options
        await asyncio.to_thread(self._receive, await begin())

    async def changes(self, ref: str) -> Sequence[tuple[int, str]]:
        self._containers.get(ref)
        return [(1, f"/data/{name}") for name in self.files]

    def _send(self, conduit: Conduit, names: list[str]) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(self.files[name])
                tar.addfile(info, io.BytesIO(self.files[name]))
        os.set_blocking(conduit.fd, True)
        outlet = Outlet(conduit.fd, chunked=conduit.framing == "chunked")
        outlet.write(packed.getvalue())
        outlet.close()
        os.close(conduit.fd)

    def _receive(self, conduit: Conduit) -> None:
        try:
            os.set_blocking(conduit.fd, True)
            body = b"".join(Inlet(conduit.fd, conduit.framing, conduit.prefix).chunks())
        finally:
            os.close(conduit.fd)
        try:
            with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                for info in tar:
                    if (file := tar.extractfile(info)) is not None:
                        self.files[info.name] = file.read()
        except tarfile.TarError as error:
            raise InvalidArgument(str(error)) from None

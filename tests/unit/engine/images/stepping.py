"""Image operations side by side, one step at a time: a script (or a seed) says which of the things that are waiting
goes on next, so that an interleaving which the clock brings about once in a thousand runs comes every time.

A step is whatever the event loop hands to a thread: each call of a store, and each pause that stands for the network
or for a write of the database. Nothing else takes time here: between two steps the loop runs until it is quiet.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from corten.engine.images import ImageService, service
from corten.engine.images.threads import in_thread
from corten.errors import NotFound
from corten.registry.client import Fetched
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs.oci_image import Descriptor
from corten.specs.reference import Reference
from corten.storage.types import Applied, Changes, DocumentStore
from corten.testing.snapshots import TarApplier
from corten.testing.storage import MemoryDocuments
from tests.unit.engine.images.support import EagerClock, Made, World

T = TypeVar("T")
_TURNS = 12
OWNER: ContextVar[str] = ContextVar("OWNER", default="")


@dataclass(frozen=True)
class Waiting:
    """A step that can be made: `call` is the name of what will run, `args` what it is given."""

    call: str
    args: tuple[Any, ...]
    result: Future[Any]
    work: Callable[[], Any]
    owner: str


class Steps(ThreadPoolExecutor):
    """The loop's executor: it begins nothing by itself. Install it first, in the loop that is to be stepped."""

    def __init__(self) -> None:
        super().__init__(max_workers=4, thread_name_prefix="step")
        self.waiting: list[Waiting] = []
        self._told = threading.Lock()
        self._free = False

    async def __aenter__(self) -> None:
        """Within the block the loop's threads are stepped."""
        asyncio.get_running_loop().set_default_executor(self)

    async def __aexit__(self, *_: object) -> None:
        self.let_go()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        work = partial(fn, *args, **kwargs)
        given = (*work.args, *work.keywords.values())
        step = Waiting(getattr(work.func, "__qualname__", ""), given, Future(), work, OWNER.get())
        with self._told:
            if not self._free:
                self.waiting.append(step)
                return step.result
        super().submit(_perform, step)
        return step.result

    def let_go(self) -> None:
        """Everything is made at once from now on, as for the end of a test."""
        with self._told:
            self._free = True
        for step in self.waiting:
            super().submit(_perform, step)
        self.waiting.clear()

    async def make(self, step: Waiting) -> None:
        """Make this step, to its end, and let the loop run until it is quiet again."""
        self.waiting.remove(step)
        await asyncio.wrap_future(super().submit(_perform, step))
        await quiet()

    async def advance(self, owner: str, going: asyncio.Future[Any], until: str = "") -> bool:
        """Make one step of `owner`, or of another where all of its wait for that; whether there was one to make.

        There is none when `going` has ended, and before a step that runs `until` (a part of the name).
        """
        await quiet()
        own = [step for step in self.waiting if step.owner == owner]
        if until and any(until in step.call for step in own):
            return False
        if not own and going.done():
            return False
        assert self.waiting, f"nothing is left to do, and {owner} has not ended"
        await self.make((own or self.waiting)[0])
        return True


def _perform(step: Waiting) -> None:
    if not step.result.set_running_or_notify_cancel():
        return
    try:
        step.result.set_result(step.work())
    except BaseException as error:
        step.result.set_exception(error)


async def quiet() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def pause(what: str = "") -> None:
    """A step of its own, for what would take time elsewhere."""
    await in_thread(_nothing, what)


def _nothing(what: str) -> None:
    """Only a step."""


def task(owner: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Begin an operation; the steps that it takes, in tasks of its own too, are of `owner`."""
    OWNER.set(owner)
    return asyncio.ensure_future(work)  # noqa: TID251 - the test owns it


class SteppedDocuments(MemoryDocuments):
    """A write takes a step before it is made and one before it is told."""

    async def change(self, changes: Changes, other: DocumentStore, along: Changes) -> None:
        await pause("change")
        await super().change(changes, other, along)
        await pause("change")

    async def put(self, id: str, body: bytes, *, durable: bool = True) -> None:
        await pause("put")
        await super().put(id, body, durable=durable)
        await pause("put")

    async def delete(self, id: str, *, durable: bool = True) -> None:
        await pause("delete")
        await super().delete(id, durable=durable)
        await pause("delete")


class SteppedApplier(TarApplier):
    async def apply(
        self, blob: Path, media_type: str, target: Path, progress: Callable[[int], None] | None = None
    ) -> Applied:
        await pause(f"apply {blob.name}")
        applied = await super().apply(blob, media_type, target, progress)
        await pause(f"applied {blob.name}")
        return applied


class StillClock(EagerClock):
    """No time passes, so that no progress is left out in one run and told in another."""

    def monotonic(self) -> float:
        return 0.0


@dataclass
class SteppedRegistry:
    """In the place of RegistryClient: images by repository path. Each request and each half of a blob is a step."""

    images: dict[str, Made]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(service, "RegistryClient", lambda transport, reference, *_: _Client(self, reference))


class _Client:
    def __init__(self, registry: SteppedRegistry, reference: Reference) -> None:
        self.reference = reference
        self._registry, self._made = registry, registry.images[reference.path]

    def at(self, reference: Reference) -> _Client:
        return _Client(self._registry, reference)

    async def locate(self) -> None:
        await pause("locate")

    async def resolve(self) -> str | None:
        await pause("resolve")
        return self._made.digest

    async def manifest(self, digest: str = "") -> Fetched:
        await pause("manifest")
        return Fetched(self._made.digest, oci.kind_of(self._made.manifest), self._made.manifest)

    async def config(self, descriptor: Descriptor) -> bytes:
        await pause("config")
        return self._made.config

    async def blob(self, digest: str, size: int, offset: int = 0, **_: object) -> AsyncGenerator[bytes, None]:
        data = next((layer for layer in self._made.layers if digests.of(layer) == digest), None)
        if data is None:
            raise NotFound("blob", digest)
        for at in (offset, max(offset, size // 2)):
            await pause(f"blob {digest}")
            if part := data[at : size // 2 if at < size // 2 else size]:
                yield part


def stepped_world() -> World:
    return World(applier=SteppedApplier(), images=SteppedDocuments(), names=SteppedDocuments(), clock=StillClock())


def broken(world: World, images: ImageService) -> list[str]:
    """What listed images lack at this moment."""
    found = []
    there = {info.key for info in world.snapshotter.walk() if info.kind == "committed"}
    for image in images.index.images():
        found += [f"{image.id} lacks blob {blob}" for blob in image.blobs if not world.content.exists(blob)]
        found += [f"{image.id} lacks layer {chain}" for chain in image.chain_ids if chain not in there]
        found += [
            f"{image.id} has an empty layer {chain}"
            for chain in set(image.chain_ids) & there
            if not list(world.snapshotter.layer_dir(chain).iterdir())
        ]
    return found

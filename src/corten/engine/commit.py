"""`docker commit`: an image of what a container is now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import msgspec

from corten.engine.containers import imagemerge
from corten.engine.containers.announce import Announcer
from corten.engine.deps import EngineDeps
from corten.engine.images import changes
from corten.engine.images.committing import Commitment, parse_name
from corten.engine.models import CommitOptions, Container, Status
from corten.errors import Conflict
from corten.specs.container import ContainerConfig
from corten.specs.oci_image import RunConfig


class Holder(Protocol):
    """Holds containers still."""

    async def pause(self, ref: str) -> None: ...

    async def unpause(self, ref: str) -> None: ...


class Committer(Protocol):
    async def commit(self, wanted: Commitment, still: AbstractAsyncContextManager[None]) -> str:
        """Make the image; its id. `still` is entered while the container's changes are read."""


class CommitService:
    """Implements `api.docker.backends.CommitBackend`."""

    def __init__(self, deps: EngineDeps, containers: Holder, images: Committer) -> None:
        self._deps, self._containers, self._images = deps, containers, images
        self._announce = Announcer(deps.events)

    async def commit(self, ref: str, options: CommitOptions) -> str:
        """The new image's id. Raises NotFound, Conflict, InvalidArgument for a bad name or change."""
        container = self._deps.catalog.find(ref).container
        status = container.state.status
        if status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"You cannot commit container {container.id} which is {status}")
        reference = parse_name(options.ref)
        wanted = Commitment(
            parent=container.image_id,
            layer=self._deps.snapshotter.layer_dir(container.id),
            base=self._base(container),
            run=presets(container, options),
            reference=reference,
            author=options.author,
            comment=options.comment,
            created_by=" ".join([container.path, *container.args]),
            created_ns=self._deps.clock.now_ns(),
        )
        id = await self._images.commit(wanted, self._still(container, hold=options.pause))
        name = reference.familiar if reference is not None else ""
        self._announce.container(container, "commit", comment=options.comment, imageID=id, imageRef=name)
        return id

    def _base(self, container: Container) -> Path | None:
        """What the container began with, where its layer holds all of that too and not only what changed."""
        snapshotter = self._deps.snapshotter
        whole = not snapshotter.rebases and container.chain_id
        return snapshotter.layer_dir(container.chain_id) if whole else None

    @asynccontextmanager
    async def _still(self, container: Container, *, hold: bool) -> AsyncIterator[None]:
        if not hold or container.state.status is not Status.RUNNING:
            yield
            return
        try:
            await self._containers.pause(container.id)
        except Conflict:  # it has just ended, or somebody else holds it
            yield
            return
        try:
            yield
        finally:
            with suppress(Conflict):
                await self._containers.unpause(container.id)


def presets(container: Container, options: CommitOptions) -> RunConfig:
    """What the new image presets: what is asked for, changed as asked, and of the container's what that leaves out."""
    own = _presets(container.config)
    if options.config is None:
        changes.apply(options.changes, own)
        return own
    run = _presets(options.config)
    changes.apply(options.changes, run)
    config = msgspec.convert(msgspec.to_builtins(run), ContainerConfig)
    imagemerge.merge(config, own)
    return _presets(config)


def _presets(config: ContainerConfig) -> RunConfig:
    run = RunConfig(
        **{
            name: getattr(config, name)
            for name in RunConfig.__struct_fields__
            if name not in ("cmd", "entrypoint") and getattr(config, name)
        }
    )
    run.cmd = imagemerge.words(config.cmd) or None
    run.entrypoint = imagemerge.words(config.entrypoint) or None
    return msgspec.convert(msgspec.to_builtins(run), RunConfig)  # of its own, not the container's lists

"""Images that come and go as archives: loaded, saved, imported."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from corten.clock import Clock
from corten.engine.images import importing
from corten.engine.images.announce import ImageAnnouncer
from corten.engine.images.importing import ImportOptions
from corten.engine.images.index import ImageIndex
from corten.engine.images.layers import LayerStore
from corten.engine.images.loading import Loader
from corten.engine.images.progress import ProgressStream
from corten.engine.images.saving import Saver
from corten.engine.models import ProgressMessage
from corten.errors import InvalidArgument
from corten.registry import download
from corten.specs import reference as references


class ImageArchives:
    """Implements `api.docker.backends.ArchiveBackend`."""

    def __init__(self, index: ImageIndex, layers: LayerStore, announce: ImageAnnouncer, clock: Clock) -> None:
        self._index, self._layers, self._announce, self._clock = index, layers, announce, clock

    async def load(
        self, archive: AsyncIterator[bytes], *, quiet: bool, platforms: Sequence[str] = ()
    ) -> AsyncIterator[ProgressMessage]:
        stream = ProgressStream(self._clock)
        loader = Loader(self._index, self._layers, platforms, stream, quiet=quiet)

        async def run() -> None:
            for image in await loader.run(archive):
                await self._announce.image("load", image.id)

        async with aclosing(stream.run(self._layers.tasks, "load", run())) as told:
            async for line in told:
                yield line

    async def save(self, refs: Sequence[str], platforms: Sequence[str] = ()) -> AsyncIterator[bytes]:
        saver = Saver(self._index, self._layers)
        images = saver.selected(refs, platforms)
        async with aclosing(saver.run(refs, platforms)) as parts:
            async for part in parts:
                yield part
        for image in images:
            await self._announce.image("save", image.id)

    async def import_rootfs(
        self, source: AsyncIterator[bytes] | str, ref: str, *, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[ProgressMessage]:
        reference = references.parse(ref) if ref else None
        if reference is not None and reference.digest:
            raise InvalidArgument("cannot import digest reference")
        stream = ProgressStream(self._clock)
        archive = source
        if isinstance(archive, str):
            url = download.checked(archive)
            message = message or f"Imported from {download.shown(url)}"
            archive = importing.fetched(url, stream)
        options = ImportOptions(reference, message, changes, platform, self._clock.now_ns())

        async def run() -> None:
            image = await importing.run(self._index, self._layers, archive, options, stream)
            await self._announce.image("import", image.id, reference.familiar if reference else "")

        async with aclosing(stream.run(self._layers.tasks, "import", run())) as told:
            async for line in told:
                yield line

"""`docker load` of archives whose members, links and documents lie: images, or a word and nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import tarfile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from corten.errors import CortenError
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from tests.fuzz.profile import fuzzed, in_order
from tests.unit.engine.images.support import World, collect, describe, make_image, pieces

MADE = make_image({"etc/os": "corten"})
LAYER = gzip.decompress(MADE.layers[0])
CONFIG = digests.hex_of(MADE.id) + ".json"
INDEX = json.dumps({"schemaVersion": 2, "manifests": [describe(MADE.manifest, oci.OCI_MANIFEST)]}).encode()


def blob(data: bytes) -> str:
    return f"blobs/sha256/{digests.hex_of(digests.of(data))}"


NAMES = [CONFIG, "l/layer.tar", "manifest.json", "index.json", "repositories", blob(MADE.manifest), blob(MADE.config)]
NAMES += [
    blob(MADE.layers[0]),
    "../l/layer.tar",
    "/l/layer.tar",
    "./l//layer.tar",
    "l",
    "x",
    "",
    "l/json",
    "l/../x",
    "n" * 300,
]
names = st.sampled_from(NAMES)
entries = st.lists(
    st.fixed_dictionaries(
        {"Config": st.sampled_from([CONFIG, CONFIG, CONFIG, "x", "../" + CONFIG, "/etc/passwd"])},
        optional={
            "RepoTags": st.lists(st.sampled_from(["a:1", "b:2", "A", "a:1\n", "x@y"]), max_size=2) | st.none(),
            "Layers": st.lists(st.sampled_from(["l/layer.tar", "l/layer.tar", "x", "../../etc/shadow"]), max_size=2),
        },
    ),
    max_size=2,
)
indexes = st.fixed_dictionaries(
    {
        "schemaVersion": st.just(2),
        "manifests": st.lists(
            st.sampled_from(
                [
                    describe(MADE.manifest, oci.OCI_MANIFEST),
                    describe(INDEX, oci.OCI_INDEX),
                    describe(b"gone", oci.OCI_MANIFEST),
                ]
            ),
            max_size=3,
        ),
    },
    optional={"layers": st.just([])},
)
bodies: dict[str, st.SearchStrategy[bytes]] = {
    "manifest.json": entries.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 300),
    "index.json": indexes.map(lambda value: json.dumps(value).encode()) | st.just(INDEX),
    "repositories": st.sampled_from([b'{"a": {"1": "l"}}', b'{"a": {"1": "../l"}}', b"{}", b"[]"]),
    "l/json": st.sampled_from([b"{}", b'{"parent": "l"}', b'{"parent": "gone", "os": 5}']),
}
usual = {
    CONFIG: MADE.config,
    "l/layer.tar": LAYER,
    blob(MADE.manifest): MADE.manifest,
    blob(MADE.config): MADE.config,
    blob(MADE.layers[0]): MADE.layers[0],
    blob(INDEX): INDEX,
}
foreign = st.sampled_from([b"", b"{}", b"other", MADE.layers[0], LAYER[:700]])


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """The parts of a good archive and the odd one, in any order, some twice, some missing, some links."""
    buffer = io.BytesIO()
    order = draw(st.permutations([*usual, *draw(st.lists(names, max_size=4)), draw(st.sampled_from(sorted(bodies)))]))
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in order:
            if draw(st.integers(0, 14)) == 0:
                continue
            how = draw(st.integers(0, 11))
            info = tarfile.TarInfo(name)
            data = b""
            if how == 0:
                info.type, info.linkname = draw(st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE])), draw(names)
            elif how == 1:
                info.type = draw(st.sampled_from([tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]))
            else:
                data = draw(bodies[name]) if name in bodies else draw(foreign) if how == 2 else usual.get(name, b"x")
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    return gzip.compress(data, 1)


@given(archives())
@fuzzed(100)
def test_archives_that_lie(packed: bytes) -> None:
    async def script() -> None:
        world = World()
        async with world.service() as images:
            try:
                await collect(images.archives.load(pieces(packed, 1000), quiet=False))
            except CortenError as error:
                in_order(error)
            # Whatever came of it: what is listed is whole, and there is nothing that is not listed.
            needed: set[str] = set()
            for image in images.list():
                details: Any = await images.details(image.id, "")
                assert details.image.id == image.id
                assert b"".join([part async for part in images.archives.save([image.id])])
                needed |= set(world.images.all())
            if not needed:
                assert (world.blobs(), world.snapshots()) == (set(), set())
            for image in list(images.list()):
                with contextlib.suppress(CortenError):  # it went with another of its index
                    await images.remove(image.id, force=True, prune=True)
            assert list(images.list()) == []

    asyncio.run(script())

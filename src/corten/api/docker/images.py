"""Routes of images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from corten.api.docker import encode_image
from corten.api.docker.flow import send_bytes, send_progress
from corten.api.docker.image_filters import chosen_names, image_test
from corten.api.docker.params import parse_auth
from corten.engine.models import Image
from corten.errors import InvalidArgument, clip
from corten.specs import platform as platforms

if TYPE_CHECKING:
    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router

_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,}")
MAX_LABELS = 4096
"""Image configs whose labels are remembered."""


def add_routes(router: Router) -> None:
    router.add("GET", "/images/json", list_images)
    router.add("GET", "/images/get", save)
    router.add("POST", "/images/create", create)
    router.add("POST", "/images/load", load)
    router.add("POST", "/images/prune", prune)
    router.add("GET", "/images/{name...}/json", inspect)
    router.add("GET", "/images/{name...}/history", history)
    router.add("GET", "/images/{name...}/get", save)
    router.add("POST", "/images/{name...}/push", push)
    router.add("POST", "/images/{name...}/tag", tag)
    router.add("DELETE", "/images/{name...}", remove)


async def list_images(call: Call) -> web.Response:
    filters = call.query.filters()
    test = image_test(filters, call.backends.images, call.now_ns)
    everything = call.query.flag("all") or bool(filters.get("dangling"))
    images = call.backends.images.list()
    parents = {image.parent_id for image in images}
    containers = _containers_by_image(call) if call.query.flag("manifests") and call.api >= 47 else None
    shared = await _shared_sizes(call, images) if call.query.flag("shared-size") and call.api >= 42 else {}
    out = []
    for image in images:
        if image.head:
            continue  # of another platform than the image that its index is shown as
        # A nameless image that others are made from is an intermediate one.
        if not everything and not image.names and not image.digests and image.id in parents:
            continue
        image_labels = await labels_of(call, image)
        if not test(image, image_labels):
            continue
        names = chosen_names(image, filters.get("reference", []))
        entry = encode_image.summary(image, names, image_labels, call.api)
        if call.api >= 48:
            entry["Descriptor"] = encode_image.descriptor(image)
        entry["SharedSize"] = shared.get(image.id, -1)
        if containers is not None:
            entry["Manifests"] = await _manifests(call, image.id, containers)
            # What the name stands for is all of it, and not only what runs here.
            entry["Size"] = max(image.size, sum(found["Size"]["Total"] for found in entry["Manifests"]))
        out.append(entry)
    return call.json(out)


async def _manifests(call: Call, ref: str, containers: dict[str, list[str]]) -> list[dict[str, Any]]:
    found = await call.backends.images.manifests(ref)
    return [encode_image.manifest_summary(entry, containers.get(entry.image_id, [])) for entry in found]


async def _shared_sizes(call: Call, images: Sequence[Image]) -> dict[str, int]:
    """For each image the bytes of its layers that another image has as well."""
    users = Counter(chain_id for image in images for chain_id in set(image.chain_ids))
    out = {}
    for image in images:
        sizes = (await call.backends.images.details(image.id)).layer_sizes
        layers = zip(image.chain_ids, sizes, strict=False)
        out[image.id] = sum(size for chain_id, size in layers if users[chain_id] > 1)
    return out


def _containers_by_image(call: Call) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for container in call.backends.containers.inspection.list():
        out.setdefault(container.image_id, []).append(container.id)
    return out


async def labels_of(call: Call, image: Image) -> dict[str, str]:
    """The labels of an image's config; remembered, as the id is the config's digest and its content never changes."""
    known = call.services.labels
    if image.id not in known:
        if len(known) >= MAX_LABELS:
            known.clear()
        known[image.id] = encode_image.labels((await call.backends.images.details(image.id)).config)
    return known[image.id]


async def inspect(call: Call) -> web.Response:
    manifests = call.query.flag("manifests") and call.api >= 48
    platform = _platform(call) if call.api >= 49 else ""
    if manifests and platform:
        raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
    out = encode_image.inspect(await call.backends.images.details(call.args[0], platform), call.api)
    if manifests:
        out["Manifests"] = await _manifests(call, call.args[0], _containers_by_image(call))
    return call.json(out)


async def history(call: Call) -> web.Response:
    platform = _platform(call) if call.api >= 48 else ""
    return call.json(encode_image.history(await call.backends.images.details(call.args[0], platform)))


async def create(call: Call) -> web.StreamResponse:
    """Pull, or import of a root file system."""
    query = call.query
    platform, source = query.text("platform"), query.text("fromSrc")
    if name := query.text("fromImage"):
        auth = parse_auth(call.request.headers.get("X-Registry-Auth"))
        # Without a tag it means all of them; some clients leave the colon in.
        ref = with_tag(name.removesuffix(":"), query.text("tag"))
        return await send_progress(call, call.backends.images.pull(ref, platform, auth, all_tags=True))
    if not source:
        raise InvalidArgument("fromImage or fromSrc must be given")
    repository = query.text("repo")
    messages = call.backends.archives.import_rootfs(
        call.upload() if source == "-" else source,
        with_tag(repository, query.text("tag")) if repository else "",
        message=query.text("message"),
        changes=query.all("changes"),
        platform=platform,
    )
    return await send_progress(call, messages)


def with_tag(name: str, tag: str) -> str:
    """A repository with its tag, or with a digest in the tag's place."""
    if not tag:
        return name
    return f"{name}@{tag}" if _DIGEST.fullmatch(tag) else f"{name}:{tag}"


async def load(call: Call) -> web.StreamResponse:
    quiet = call.query.flag("quiet", default=True)
    messages = call.backends.archives.load(call.upload(), quiet=quiet, platforms=_platforms(call, "platform"))
    return await send_progress(call, messages)


def _platform(call: Call) -> str:
    """The one value of the parameter `platform`, in plain words; "" without it."""
    found = _platforms(call, "platform")
    if len(found) > 1:
        raise InvalidArgument("multiple platform parameters not supported")
    return found[0] if found else ""


def _platforms(call: Call, name: str) -> list[str]:
    """The values of a parameter that are platforms, as JSON or in plain words, in plain words."""
    return [_platform_words(text) for text in call.query.all(name) if text]


def _platform_words(text: str) -> str:
    if not text.startswith("{"):
        return str(platforms.parse(text))
    try:
        parts = msgspec.json.decode(text, type=dict[str, str | list[str]])
    except msgspec.DecodeError:
        raise InvalidArgument(f"failed to parse platform: {clip(text)}") from None
    system, architecture = (str(parts.get(key) or "") for key in ("os", "architecture"))
    if not system or not architecture:
        raise InvalidArgument("both OS and Architecture must be provided")
    return str(platforms.parse("/".join(filter(None, (system, architecture, str(parts.get("variant") or ""))))))


async def save(call: Call) -> web.StreamResponse:
    names: Sequence[str] = call.args or [name for value in call.query.all("names") for name in value.split(",") if name]
    if not names:
        raise InvalidArgument("names must be given")
    return await send_bytes(
        call, call.backends.archives.save(names, _platforms(call, "platform")), "application/x-tar", live=False
    )


async def push(call: Call) -> web.StreamResponse:
    auth = parse_auth(call.request.headers.get("X-Registry-Auth"))
    ref = with_tag(call.args[0], call.query.text("tag"))
    platform = _platform(call) if call.api >= 46 else ""
    return await send_progress(call, call.backends.images.push(ref, auth, platform))


async def tag(call: Call) -> web.Response:
    target = with_tag(call.query.text("repo"), call.query.text("tag"))
    await call.finish("tag", call.backends.images.tag(call.args[0], target))
    return call.empty(201)


async def remove(call: Call) -> web.Response:
    query = call.query
    chosen = _platforms(call, "platforms") if call.api >= 50 else []
    force, prune = query.flag("force"), not query.flag("noprune")
    work = call.backends.images.remove(call.args[0], force=force, prune=prune, platforms=chosen)
    return call.json(await call.finish("image remove", work))


async def prune(call: Call) -> web.Response:
    removed, space = await call.finish("image prune", call.backends.images.prune(call.query.filters()))
    return call.json({"ImagesDeleted": removed or None, "SpaceReclaimed": space})

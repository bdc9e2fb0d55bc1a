"""Images as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from corten.api.docker.encode import SECOND, Json, container_config, go_time
from corten.specs import reference
from corten.specs.container import ContainerConfig
from corten.specs.times import parse_time
from corten.specs.wire import drop_nulls

if TYPE_CHECKING:
    from corten.engine.models import Image, ImageDetails, ImageManifest

_RUN_KEYS = (
    "User ExposedPorts Env Entrypoint Cmd Volumes WorkingDir Labels StopSignal ArgsEscaped Healthcheck OnBuild Shell"
).split()


def familiar(name: str) -> str:
    """A stored name as users write it: `alpine:latest` for `docker.io/library/alpine:latest`."""
    return reference.parse(name, default_tag=False).familiar


def labels(config: Json) -> dict[str, str]:
    """The labels in an image's config document."""
    return (config.get("config") or {}).get("Labels") or {}


def descriptor(image: Image) -> Json:
    return {"mediaType": image.target_media_type, "digest": image.target, "size": image.target_size}


def summary(image: Image, names: tuple[list[str], list[str]], image_labels: dict[str, str], api: int) -> Json:
    """One entry of `GET /images/json`; `names` are the tags and digests to show. Containers are not counted."""
    tags, digests = [familiar(name) for name in names[0]], [familiar(name) for name in names[1]]
    if api < 43:  # a nameless image was shown with a name that says so
        if not tags and not digests:
            digests = ["<none>@<none>"]
        tags = tags or ["<none>:<none>"]
    out: Json = {
        "Containers": -1,
        "Created": image.created_ns // SECOND,
        "Id": image.id,
        "Labels": image_labels or None,
        "ParentId": image.parent_id,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": -1,
        "Size": image.size,
    }
    if api < 44:
        out["VirtualSize"] = image.size
    return out


def manifest_summary(manifest: ImageManifest, containers: list[str]) -> Json:
    """One manifest of an image, for clients that ask for them; `containers` are made of it."""
    platform = _platform(manifest.platform)
    document: Json = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
    if platform is not None:
        document["platform"] = platform
    out: Json = {
        "ID": manifest.digest,
        "Descriptor": document,
        "Available": manifest.available,
        "Size": {"Content": manifest.content, "Total": manifest.content + manifest.unpacked},
        "Kind": manifest.kind,
    }
    if manifest.kind == "image":
        sizes = {"Unpacked": manifest.unpacked}
        out["ImageData"] = {"Platform": platform or {}, "Size": sizes, "Containers": containers}
    elif manifest.kind == "attestation":
        out["AttestationData"] = {"For": manifest.describes}
    return out


def _platform(text: str) -> Json | None:
    keys = ("os", "architecture", "variant")
    return dict(zip(keys, text.split("/"), strict=False)) if text else None


def inspect(details: ImageDetails, api: int, driver: str = "overlayfs") -> Json:
    """`GET /images/{name}/json`."""
    image, config = details.image, details.config
    out: Json = {
        "Id": image.id,
        "RepoTags": [familiar(name) for name in image.names],
        "RepoDigests": [familiar(name) for name in image.digests],
        "Comment": _comment(config),
        "Created": config.get("created") or go_time(image.created_ns),
        "Author": config.get("author") or "",
        "Config": _run_config(config.get("config") or {}, api),
        "Architecture": config.get("architecture") or "",
        "Os": config.get("os") or "",
        "Size": image.size,
        "GraphDriver": {"Name": driver, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": (config.get("rootfs") or {}).get("diff_ids") or []},
        "Metadata": {"LastTagTime": go_time(image.last_tagged_ns)},
    }
    for name, key in (("Variant", "variant"), ("OsVersion", "os.version")):
        if config.get(key):
            out[name] = config[key]
    if api < 52:
        out |= {"Parent": image.parent_id, "DockerVersion": config.get("docker_version") or ""}
    if api < 45:
        made_by = _run_config(config.get("container_config") or {}, api)
        out |= {"Container": config.get("container") or "", "ContainerConfig": made_by}
    if api < 44:
        out["VirtualSize"] = image.size
    if api >= 48:
        out["Descriptor"] = descriptor(image)
    return out


def _comment(config: Json) -> str:
    """Most of what builds images says it of the last step alone."""
    history = config.get("history") or [{}]
    return config.get("comment") or history[-1].get("comment") or ""


def _run_config(run: Json, api: int) -> Json:
    """The image's presets: until 1.50 in the shape of a container's configuration, since then only what images have."""
    if api >= 50:
        return {key: run[key] for key in _RUN_KEYS if run.get(key)}
    try:
        return container_config(msgspec.convert(drop_nulls(run), ContainerConfig))
    except msgspec.ValidationError:
        return run  # an image that breaks the format is shown as it is


def history(details: ImageDetails) -> list[Json]:
    """`GET /images/{name}/history`, newest first. Steps below the top have no id of their own."""
    image = details.image
    sizes = iter(details.layer_sizes)
    out: list[Json] = []
    for step in details.config.get("history") or []:
        out.append(_history_step(step, 0 if step.get("empty_layer") else next(sizes, 0)))
    # An image may tell less of its history than it has layers.
    out += [_history_step({}, size) for size in sizes]
    out.reverse()
    if out:
        out[0] |= {"Id": image.id, "Tags": [familiar(name) for name in image.names] or None}
    return out


def _history_step(step: dict[str, Any], size: int) -> Json:
    return {
        "Comment": step.get("comment") or "",
        "Created": parse_time(step.get("created") or "") // SECOND,
        "CreatedBy": step.get("created_by") or "",
        "Id": "<missing>",
        "Size": size,
        "Tags": None,
    }

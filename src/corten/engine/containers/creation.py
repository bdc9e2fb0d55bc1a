"""Making a container: everything is checked first, then made, and unmade in reverse when a step fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corten.engine import remap
from corten.engine.containers import imagemerge, modes, mountspec, names, validate
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Entry
from corten.engine.deps import EngineDeps, EngineSettings, ResolvedImage
from corten.engine.faults import host_fault
from corten.engine.models import Container, Created, MountPoint
from corten.engine.spec import resources, security
from corten.errors import InvalidArgument, NotFound, NotImplementedYet, clip
from corten.logs import options as log_options
from corten.specs.container import (
    ContainerConfig,
    CreateRequest,
    EndpointSettings,
    HostConfig,
    LogConfig,
)
from corten.storage.types import MountPlan

DEFAULT_NETWORK = "bridge"
_CONFIG_FIELDS = ContainerConfig.__struct_fields__


@dataclass(frozen=True, slots=True)
class _Draft:
    """A request that passed every check."""

    id: str
    name: str
    image: ResolvedImage
    config: ContainerConfig
    host_config: HostConfig
    networks: dict[str, EndpointSettings]
    argv: list[str]
    wishes: list[mountspec.Wish]
    warnings: list[str]


class Creation:
    """Implements `api.docker.backends.ContainerCreation`."""

    def __init__(self, deps: EngineDeps, settings: EngineSettings) -> None:
        self._deps, self._settings, self._catalog = deps, settings, deps.catalog
        self._announce = Announcer(deps.events)

    async def create(self, name: str, request: CreateRequest, platform: str = "") -> Created:
        """Raises InvalidArgument (a missing network too), Conflict (the name), NotFound (the image)."""
        if name:
            name = names.check(name)
            self._refuse_taken(name)
        if not request.image:
            raise InvalidArgument("no image specified")  # Docker answers the same for an empty reference
        image = await self._deps.images.resolve(request.image, platform)
        try:
            draft, entry = await self._checked(name, image, request)
        except NotFound as error:
            # Clients take a 404 here to mean the image, and pull it: what else is missing is a wrong argument.
            raise InvalidArgument(error.message) from error
        self._announce.container(entry.container, "create")
        return Created(draft.id, draft.warnings)

    async def _checked(self, name: str, image: ResolvedImage, request: CreateRequest) -> tuple[_Draft, Entry]:
        draft = self._draft(name, image, request)
        async with contextlib.AsyncExitStack() as undo:
            self._catalog.claim(draft.name, draft.id)
            undo.callback(self._catalog.release, draft.name)
            entry = await self._make(draft, undo)
            undo.pop_all()
        return draft, entry

    def _refuse_taken(self, name: str) -> None:
        """Before the image is looked up, so that the answer is the one Docker gives when both are wrong."""
        if name in self._catalog.names:
            self._catalog.claim(name, "")

    def _draft(self, name: str, image: ResolvedImage, request: CreateRequest) -> _Draft:
        id = secrets.token_hex(32)
        config = ContainerConfig(**{field: getattr(request, field) for field in _CONFIG_FIELDS})
        host_config = request.host_config
        imagemerge.merge(config, image.config.run)
        argv = imagemerge.command(config)
        host_config.network_mode = host_config.network_mode or DEFAULT_NETWORK
        if host_config.network_mode == "default":
            host_config.network_mode = DEFAULT_NETWORK
        warnings = validate.check(config, host_config, self._settings.facts)
        remap.check(self._settings.remap, host_config)
        wishes = mountspec.wishes(config, host_config)
        self._resolve_joined(host_config)
        networks = self._networks(request, host_config)
        self._complete(config, host_config, id)
        name = name or names.invent(self._catalog.names)
        return _Draft(id, name, image, config, host_config, networks, argv, wishes, warnings)

    def _resolve_joined(self, host_config: HostConfig) -> None:
        """`container:NAME` becomes `container:ID`, as names may change. Raises NotFound."""
        for field in ("network_mode", "ipc_mode", "pid_mode"):
            if target := modes.joined(getattr(host_config, field)):
                setattr(host_config, field, modes.CONTAINER + self._catalog.find(target).container.id)

    def _networks(self, request: CreateRequest, host_config: HostConfig) -> dict[str, EndpointSettings]:
        """The networks to join, by name. Raises NotFound."""
        if modes.joined(host_config.network_mode):
            return {}
        asked = dict(request.networking_config.endpoints_config or {})
        if "default" in asked:
            asked[DEFAULT_NETWORK] = asked.pop("default")
        main = self._deps.networks.find(host_config.network_mode)
        found = {main.name: asked.pop(host_config.network_mode, None) or asked.pop(main.name, EndpointSettings())}
        for ref, endpoint in asked.items():
            if main.driver != "bridge":
                raise InvalidArgument(
                    f"conflicting options: cannot attach both {main.name} and {clip(ref, 80)} networks"
                )
            found[self._deps.networks.find(ref).name] = endpoint
        for network, endpoint in found.items():
            _check_endpoint(network, endpoint)
            endpoint.network_id = self._deps.networks.find(network).id
        if request.mac_address and not found[main.name].mac_address:
            found[main.name].mac_address = request.mac_address
        return found

    def _complete(self, config: ContainerConfig, host_config: HostConfig, id: str) -> None:
        """Defaults filled in, as inspect shows them."""
        settings = self._settings
        if not config.hostname and not modes.joined(host_config.network_mode):
            host_named = host_config.uts_mode == "host" or host_config.network_mode == "host"
            config.hostname = settings.facts.hostname if host_named else id[:12]
        if modes.joined(host_config.network_mode):
            config.hostname = config.hostname or id[:12]
        host_config.restart_policy.name = host_config.restart_policy.name or "no"
        driver = host_config.log_config.type or settings.log_driver
        options = dict(settings.log_options) if driver == settings.log_driver else {}
        options |= host_config.log_config.config or {}
        host_config.log_config = LogConfig(type=driver, config=options)
        log_options.parse(driver, options)
        self._complete_isolation(host_config)
        host_config.memory_swap = resources.effective_swap(host_config)
        host_config.runtime = host_config.runtime or settings.default_runtime
        if host_config.runtime not in settings.runtimes:
            raise InvalidArgument(f"unknown or invalid runtime name: {clip(host_config.runtime, 80)}")
        if host_config.init is None and settings.init:
            host_config.init = True

    def _complete_isolation(self, host_config: HostConfig) -> None:
        settings = self._settings
        if host_config.shm_size and host_config.ipc_mode == "shareable":
            raise InvalidArgument("--shm-size cannot be combined with --ipc shareable: that shared memory has no limit")
        host_config.shm_size = host_config.shm_size or settings.shm_size
        host_config.ipc_mode = host_config.ipc_mode or "private"
        if not host_config.cgroupns_mode:
            v2 = settings.facts.cgroup_version == 2 and not host_config.privileged
            host_config.cgroupns_mode = "private" if v2 else "host"
        if host_config.privileged:
            host_config.masked_paths, host_config.readonly_paths = None, None
            return
        if host_config.masked_paths is None:
            host_config.masked_paths = list(security.MASKED_PATHS)
        if host_config.readonly_paths is None:
            host_config.readonly_paths = list(security.READONLY_PATHS)

    async def _make(self, draft: _Draft, undo: contextlib.AsyncExitStack) -> Entry:
        points = await self._volumes_from(draft)
        mapped = remap.of(self._settings.remap, draft.host_config)
        for wish in draft.wishes:
            points.append(await self._mount_point(wish, undo, mapped.root if mapped else None))
        entry = Entry(self._record(draft, points))
        undo.push_async_callback(self._drop, entry)
        with host_fault("create the container's file system"):
            # At once: whichever is missing after a crash, the next start of the daemon removes the other.
            prepared, saved = await asyncio.gather(
                asyncio.to_thread(self._prepare, draft.id, draft.image.chain_id),
                self._catalog.save(entry),
                return_exceptions=True,  # neither may be under way still when the other is undone
            )
            if isinstance(saved, BaseException):
                raise saved
            if isinstance(prepared, BaseException):
                raise prepared
            entry.rootfs = prepared
            await self._copy_up(entry, draft)
        self._catalog.show(entry)
        return entry

    def _prepare(self, id: str, chain_id: str) -> Sequence[MountPlan]:
        self._settings.state_dir(id).mkdir(mode=0o710, parents=True, exist_ok=True)
        return self._deps.snapshotter.prepare(id, chain_id)

    async def _drop(self, entry: Entry) -> None:
        await self._catalog.drop(entry)
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(self._deps.snapshotter.remove, entry.container.id)
        with contextlib.suppress(OSError):
            self._settings.state_dir(entry.container.id).rmdir()

    async def _copy_up(self, entry: Entry, draft: _Draft) -> None:
        if self._deps.copy_up is None:
            return
        wanted = {wish.destination for wish in draft.wishes if wish.type == "volume" and wish.copy}
        for point in entry.container.mounts:
            if point.type == "volume" and point.destination in wanted:
                await self._deps.copy_up(draft.id, point.destination, Path(point.source))

    async def _volumes_from(self, draft: _Draft) -> list[MountPoint]:
        """Mounts of other containers, where nothing of the container's own is mounted; its mode may make them ro."""
        taken = {wish.destination for wish in draft.wishes if wish.source}
        points: dict[str, MountPoint] = {}
        for spec in draft.host_config.volumes_from or []:
            ref, separator, mode = spec.partition(":")
            if separator and mode not in ("ro", "rw", "z", "Z"):
                raise InvalidArgument(f'invalid mode: "{clip(mode, 40)}"')
            for point in self._catalog.find(ref).container.mounts:
                if point.destination not in taken:
                    points[point.destination] = _inherited(point, read_only=mode == "ro")
        draft.wishes[:] = [wish for wish in draft.wishes if wish.destination not in points]
        return list(points.values())

    async def _mount_point(
        self, wish: mountspec.Wish, undo: contextlib.AsyncExitStack, owner: tuple[int, int] | None
    ) -> MountPoint:
        if wish.type == "volume":
            return await self._volume(wish, undo)
        if wish.type == "bind":
            await asyncio.to_thread(_check_source, wish, owner)
        return MountPoint(
            type=wish.type,
            destination=wish.destination,
            source=wish.source,
            mode=wish.mode,
            rw=wish.rw,
            propagation=wish.propagation,
            options=[*wish.tmpfs, *self._bind_options(wish)],
        )

    def _bind_options(self, wish: mountspec.Wish) -> list[str]:
        can = self._settings.facts.recursive_read_only
        if wish.deep_read_only and not can:
            raise InvalidArgument("this kernel cannot make bind mounts read-only recursively: it takes Linux 5.12")
        deep = wish.type == "bind" and not wish.rw and can and wish.deep_read_only is not False
        return (["nonrecursive"] if wish.non_recursive else []) + (["rro"] if deep else [])

    async def _volume(self, wish: mountspec.Wish, undo: contextlib.AsyncExitStack) -> MountPoint:
        anonymous = not wish.source
        volume = await self._deps.volumes.create(wish.source, wish.driver, wish.driver_options, wish.labels)
        if anonymous:
            undo.push_async_callback(self._deps.volumes.remove, volume.name, force=True)
        return MountPoint(
            type="volume",
            name=volume.name,
            destination=wish.destination,
            source=volume.mountpoint,
            driver=volume.driver,
            mode=wish.mode or ("z" if not anonymous else ""),
            rw=wish.rw,
            anonymous=anonymous,
        )

    def _record(self, draft: _Draft, points: list[MountPoint]) -> Container:
        settings, id = self._settings, draft.id
        options = security.parse(draft.host_config.security_opt, settings.facts)
        run_dir = settings.run_dir(id)
        return Container(
            id=id,
            name=draft.name,
            created_ns=self._deps.clock.now_ns(),
            image_id=draft.image.id,
            image_name=draft.image.name,
            chain_id=draft.image.chain_id,
            path=draft.argv[0],
            args=draft.argv[1:],
            config=draft.config,
            host_config=draft.host_config,
            driver=self._deps.snapshotter.name,
            mounts=points,
            networks=draft.networks,
            requested_macs={name: e.mac_address for name, e in draft.networks.items() if e.mac_address},
            log_path=log_path(settings, id, draft.host_config.log_config.type),
            resolv_conf_path=str(run_dir / "resolv.conf"),
            hostname_path=str(run_dir / "hostname"),
            hosts_path=str(run_dir / "hosts"),
            app_armor_profile=options.apparmor,
            cgroup=settings.cgroup_of(id, draft.host_config.cgroup_parent),
        )


def log_path(settings: EngineSettings, id: str, driver: str) -> str:
    """Where the driver's live file is; "" for one that keeps none."""
    if driver == "json-file":
        return str(settings.state_dir(id) / f"{id}-json.log")
    return str(settings.state_dir(id) / "container.log") if driver == "local" else ""


def _check_endpoint(network: str, endpoint: EndpointSettings) -> None:
    """What of an endpoint's wishes cannot be had."""
    ipam = endpoint.ipam_config
    if endpoint.links:
        raise NotImplementedYet("links between containers are not supported yet")
    if endpoint.driver_opts or endpoint.gw_priority:
        raise NotImplementedYet("driver options and gateway priorities of endpoints are not supported yet")
    if ipam and (ipam.ipv6_address or ipam.link_local_ips):
        raise NotImplementedYet("IPv6 and link-local addresses of endpoints are not supported yet")
    if network in (DEFAULT_NETWORK, "host", "none"):
        if ipam and ipam.ipv4_address:
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        if endpoint.aliases:
            raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")


def _check_source(wish: mountspec.Wish, owner: tuple[int, int] | None) -> None:
    """A missing bind source is made for `-v`, and refused for `--mount`. It belongs to the container's root."""
    source = Path(wish.source)
    if source.exists():
        return
    if not wish.create_source:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {clip(wish.source, 200)}'
        )
    with host_fault(f"error while creating mount source path '{clip(wish.source, 200)}'"):
        made = [source, *(above for above in source.parents if not above.exists())]
        source.mkdir(parents=True, exist_ok=True)
        if owner is not None:
            for folder in made:
                os.chown(folder, *owner)


def _inherited(point: MountPoint, *, read_only: bool) -> MountPoint:
    return MountPoint(
        type=point.type,
        destination=point.destination,
        source=point.source,
        name=point.name,
        driver=point.driver,
        mode="ro" if read_only else point.mode,
        rw=point.rw and not read_only,
        propagation=point.propagation,
        # The one that made it removes it.
        anonymous=False,
        options=list(point.options),
    )

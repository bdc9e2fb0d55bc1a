"""Making a container: everything is checked first, then made, and unmade in reverse when a step fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from corten.engine import remap
from corten.engine.containers import (
    defaults,
    imagemerge,
    imagemounts,
    logplan,
    modes,
    mountspec,
    names,
    storageopts,
    validate,
)
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Entry
from corten.engine.containers.links import Links
from corten.engine.containers.mounts import Mounts
from corten.engine.deps import EngineDeps, EngineSettings, ResolvedImage
from corten.engine.faults import host_fault
from corten.engine.models import Container, Created, Link, MountPoint
from corten.engine.networks import DEFAULT_NETWORK
from corten.engine.spec import security
from corten.errors import InvalidArgument, NotFound, NotImplementedYet, clip
from corten.specs.container import (
    ContainerConfig,
    CreateRequest,
    EndpointSettings,
    HostConfig,
)
from corten.storage.types import MountPlan

_CONFIG_FIELDS = ContainerConfig.__struct_fields__

_MARK = ".dockerenv"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
    links: list[Link]
    warnings: list[str]


class Creation:
    """Implements `api.docker.backends.ContainerCreation`."""

    def __init__(self, deps: EngineDeps, settings: EngineSettings) -> None:
        self._deps, self._settings, self._catalog = deps, settings, deps.catalog
        self._announce = Announcer(deps.events)
        self._links = Links(deps.catalog)
        self._mounts = Mounts(deps.catalog, deps.volumes, deps.images, deps.copy_up, settings.facts)

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
        if config.network_disabled:
            host_config.network_mode = "none"
        warnings = validate.check(config, host_config, self._settings.facts)
        storageopts.limit(host_config.storage_opt, quotas=False)
        remap.check(self._settings.remap, host_config)
        wishes = mountspec.wishes(config, host_config)
        self._resolve_joined(host_config)
        networks = self._networks(request, host_config)
        warnings += defaults.complete(config, host_config, id, self._settings)
        name = name or names.invent(self._catalog.names)
        links, ignored = self._links.made(name, host_config)
        host_config.links = None
        warnings += ignored
        return _Draft(id, name, image, config, host_config, networks, argv, wishes, links, warnings)

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

    async def _make(self, draft: _Draft, undo: contextlib.AsyncExitStack) -> Entry:
        mapped = remap.of(self._settings.remap, draft.host_config)
        volumes_from, owner = draft.host_config.volumes_from or [], mapped.root if mapped else None
        mounted = await self._mounts.make(draft.id, draft.wishes, volumes_from, owner, undo)
        if any(point.type == imagemounts.IMAGE for point in mounted.points):
            # Before the container's own layer: where that is there after a crash, these are too.
            snapshotter = self._deps.snapshotter
            undo.callback(imagemounts.remove, snapshotter, draft.id, mounted.points)
            await asyncio.to_thread(imagemounts.make, snapshotter, draft.id, mounted.points)
        entry = Entry(self._record(draft, mounted.points))
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
            await self._mounts.fill(draft.id, mounted.fillable)
        self._catalog.show(entry)
        return entry

    def _prepare(self, id: str, chain_id: str) -> Sequence[MountPlan]:
        self._settings.state_dir(id).mkdir(mode=0o710, parents=True, exist_ok=True)
        plans = self._deps.snapshotter.prepare(id, chain_id)
        # By it programs see that they are in a container of Docker's.
        with contextlib.suppress(FileExistsError):  # of the image, where the snapshot is a copy of it
            os.close(os.open(self._deps.snapshotter.layer_dir(id) / _MARK, _NEW_FILE, 0o755))
        return plans

    async def _drop(self, entry: Entry) -> None:
        await self._catalog.drop(entry)
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(self._deps.snapshotter.remove, entry.container.id)
        with contextlib.suppress(OSError):
            self._settings.state_dir(entry.container.id).rmdir()

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
            links=draft.links,
            requested_macs={name: e.mac_address for name, e in draft.networks.items() if e.mac_address},
            log_path=logplan.path(settings.state_dir(id), id, draft.host_config.log_config),
            resolv_conf_path=str(run_dir / "resolv.conf"),
            hostname_path=str(run_dir / "hostname"),
            hosts_path=str(run_dir / "hosts"),
            app_armor_profile=options.apparmor,
            cgroup=settings.cgroup_of(id, draft.host_config.cgroup_parent),
        )


def _check_endpoint(network: str, endpoint: EndpointSettings) -> None:
    """What of an endpoint's wishes cannot be had."""
    ipam = endpoint.ipam_config
    if endpoint.links:
        raise NotImplementedYet("links on networks that users have made are not supported yet")
    if endpoint.driver_opts or endpoint.gw_priority:
        raise NotImplementedYet("driver options and gateway priorities of endpoints are not supported yet")
    if network in (DEFAULT_NETWORK, "host", "none"):
        if ipam and (ipam.ipv4_address or ipam.ipv6_address):
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        if endpoint.aliases:
            raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")
    if ipam and (ipam.ipv6_address or ipam.link_local_ips):
        raise NotImplementedYet("IPv6 and link-local addresses of endpoints are not supported yet")

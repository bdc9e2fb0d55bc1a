"""Every part made once and given what it needs. Nothing here runs yet: `service` starts it in order."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from corten.api.docker.backends import Backends, ContainerBackends
from corten.clock import SystemClock
from corten.daemon import apparmor, idmapping, subids
from corten.daemon.config import KEYS, RELOADABLE, DaemonConfig
from corten.engine import hostfacts
from corten.engine.commit import CommitService
from corten.engine.containers.assembly import Containers, assemble
from corten.engine.containers.catalog import Catalog
from corten.engine.deps import EMBEDDED, SYSTEMD, EngineDeps, EngineSettings, RuntimeChoice
from corten.engine.events import EventBus
from corten.engine.files import FileService
from corten.engine.images.checking import CheckParts, CheckService, User
from corten.engine.images.service import ImageParts, ImageService
from corten.engine.models import Container, LogWindow
from corten.engine.networks import NetworkService
from corten.engine.registries import RegistryService
from corten.engine.spec import capabilities, security
from corten.engine.system import SystemService
from corten.engine.volumes import VolumeService
from corten.errors import CortenError, InvalidArgument
from corten.logs import reader
from corten.logs.types import LogSource
from corten.network.controller import BridgeController
from corten.registry.endpoints import RegistrySettings
from corten.registry.proxies import Proxies, ProxySettings
from corten.registry.transport import Transport
from corten.runtime import seccomp, seccomp_rules
from corten.runtime.cgroups_units import bus_address
from corten.runtime.client import RuntimeClient
from corten.runtime.seccomp_profile import Profiles
from corten.storage.archiving.forks import ArchiveServer
from corten.storage.content import LocalContentStore
from corten.storage.copying import CopySnapshotter
from corten.storage.database import Database
from corten.storage.documents import Documents
from corten.storage.overlay import OverlaySnapshotter
from corten.storage.snapshots import SnapshotterBase, count_usage
from corten.storage.types import LayerLimits
from corten.storage.workers import CopyUp, WorkerApplier, WorkerVerifier

log = logging.getLogger(__name__)

_SNAPSHOTTERS: dict[str, type[OverlaySnapshotter] | type[CopySnapshotter]] = {
    "overlayfs": OverlaySnapshotter,
    "copy": CopySnapshotter,
}


@dataclass(frozen=True, slots=True)
class Parts:
    """The services that `service` starts and stops, and the face that the API sees."""

    backends: Backends
    events: EventBus
    runtime: RuntimeClient
    controller: BridgeController
    networks: NetworkService
    images: ImageService
    containers: Containers
    registries: Transport
    deps: EngineDeps
    settings: EngineSettings
    system: SystemService

    def warm_up(self) -> None:
        """What the first container would wait for: compiling the usual seccomp filter. Blocks, 50 ms or so."""
        facts = self.settings.facts
        usual = capabilities.resolve(None, None, privileged=False, available=facts.capabilities)
        try:
            seccomp.compile_filter(self.deps.seccomp.load(self.settings.seccomp_profile, usual))
        except CortenError as error:
            log.warning("containers need --security-opt seccomp=unconfined: %s", error)

    def reload(self, config: DaemonConfig) -> None:
        """Apply what SIGHUP can change: for pulls, and for containers that are made or started from now on."""
        # Proxies are read once, as Docker does it, and as the environment is.
        self.registries.settings = replace(_registries(config), proxies=self.registries.settings.proxies)
        self.images.max_downloads = config.max_concurrent_downloads
        self.images.max_uploads = config.max_concurrent_uploads
        self.images.layers.budget.limit = config.storage_limit
        self.images.layers.limits = _limits(config)
        for name, value in _reloadable(config).items():
            setattr(self.settings, name, value)
        self.events.publish("daemon", "reload", self.system.id, _told(config, self.settings))


class _ImageEvents:
    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    def emit(self, type: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        self._bus.publish(type, action, actor_id, attributes)


class _Logs:
    """`engine.deps.Logs` over the log files."""

    def read(self, container: Container, window: LogWindow, ended: asyncio.Future[Any]) -> AsyncIterator[bytes]:
        # The cache of a driver that sends its lines away is in the format of `local`.
        driver = "json-file" if container.host_config.log_config.type == "json-file" else "local"
        source = LogSource(driver, Path(container.log_path) if container.log_path else None, container.config.tty)
        return reader.read(source, window, ended)


def _told(config: DaemonConfig, settings: EngineSettings) -> dict[str, str]:
    """What the event of a reload says: each setting that it may have changed, under its name in the file."""
    attributes = {attribute: key for key, (attribute, _) in KEYS.items()}
    told = {attributes[name]: _said(getattr(config, name)) for name in RELOADABLE if name != "log_level"}
    return {**told, "name": settings.facts.hostname, "debug": _said(settings.debug), "live-restore": "true"}


def _said(value: Any) -> str:
    """As Docker says it: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _limits(config: DaemonConfig) -> LayerLimits:
    return LayerLimits(config.max_layer_size, config.max_layer_entries, config.max_layer_ratio)


def _registries(config: DaemonConfig) -> RegistrySettings:
    return RegistrySettings(
        insecure=config.insecure_registries,
        mirrors=config.registry_mirrors,
        attempts=config.max_download_attempts,
        directories=config.registry_config_dirs,
        proxies=Proxies(_proxies(config)),
    )


def _proxies(config: DaemonConfig) -> ProxySettings:
    return ProxySettings(config.http_proxy, config.https_proxy, config.no_proxy).over(os.environ)


def _check_systemd(config: DaemonConfig) -> None:
    """Raises InvalidArgument: better no start than containers that cannot be started."""
    if config.cgroup_driver == SYSTEMD and not bus_address() and not os.path.isdir("/run/systemd/system"):
        raise InvalidArgument("native.cgroupdriver=systemd: systemd does not run on this host")


def _seccomp_profile(name: str) -> str:
    """ "builtin", "unconfined" or the JSON of the file. Raises InvalidArgument for one that is no profile."""
    if name in (security.DEFAULT_SECCOMP, security.UNCONFINED):
        return name
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.reason
        raise InvalidArgument(f"seccomp-profile: cannot read {name}: {reason}") from None
    try:
        seccomp_rules.check(Profiles().load(text, ()))
    except InvalidArgument as error:
        raise InvalidArgument(f"seccomp-profile: {name}: {error}") from None
    return text


def _settings(config: DaemonConfig, confinement: apparmor.Confinement) -> EngineSettings:
    _check_systemd(config)
    return EngineSettings(
        data_root=config.data_root,
        exec_root=config.exec_root,
        facts=hostfacts.read(),
        log_driver=config.log_driver,
        log_options=config.log_options,
        dns=config.dns,
        dns_search=config.dns_search,
        dns_options=config.dns_options,
        cgroup_driver=config.cgroup_driver,
        remap=subids.resolve(config.userns_remap),
        seccomp_profile=_seccomp_profile(config.seccomp_profile),
        seccomp_name=config.seccomp_profile,
        no_new_privileges=config.no_new_privileges,
        apparmor_profile=confinement.profile,
        proxies=_proxies(config),
        warnings=(confinement.fault,) if confinement.fault else (),
        **_reloadable(config),
    )


def _reloadable(config: DaemonConfig) -> dict[str, Any]:
    """By attribute of EngineSettings."""
    runtimes = {EMBEDDED: RuntimeChoice()}
    runtimes |= {name: RuntimeChoice(entry.path, entry.args) for name, entry in config.runtimes.items()}
    return {
        "default_runtime": config.default_runtime or EMBEDDED,
        "runtimes": runtimes,
        "labels": config.labels,
        "storage_limit": config.storage_limit,
        "debug": config.log_level == "debug",
        "insecure_registries": config.insecure_registries,
        "registry_mirrors": config.registry_mirrors,
    }


@dataclass(frozen=True, slots=True)
class _Storage:
    database: Database
    snapshotter: SnapshotterBase
    content: LocalContentStore
    applier: WorkerApplier
    copy_up: CopyUp
    verifier: WorkerVerifier
    archivers: ArchiveServer


async def _storage(config: DaemonConfig, stack: AsyncExitStack) -> _Storage:
    """Open the stores, off the event loop: they look through what is there."""
    database = await asyncio.to_thread(Database, config.data_root / "corten.db")
    stack.callback(database.close)
    make = _SNAPSHOTTERS[config.storage_driver]
    snapshotter = await asyncio.to_thread(make, config.data_root / "snapshots", database)
    stack.callback(snapshotter.close)
    content = await asyncio.to_thread(LocalContentStore, config.data_root / "content")
    applier = WorkerApplier(delete_whiteouts=config.storage_driver == "copy", limits=_limits(config))
    stack.push_async_callback(applier.close)
    copy_up = CopyUp(snapshotter)
    stack.push_async_callback(copy_up.close)
    verifier = WorkerVerifier(delete_whiteouts=config.storage_driver == "copy")
    stack.push_async_callback(verifier.close)
    archivers = ArchiveServer()
    stack.push_async_callback(archivers.close)
    return _Storage(database, snapshotter, content, applier, copy_up, verifier, archivers)


def _images(
    config: DaemonConfig, storage: _Storage, registries: Transport, events: EventBus, catalog: Catalog
) -> ImageService:
    return ImageService(
        ImageParts(
            content=storage.content,
            snapshotter=storage.snapshotter,
            applier=storage.applier,
            images=Documents(storage.database, "image"),
            names=Documents(storage.database, "image-name"),
            registries=registries,
            clock=SystemClock(),
            events=_ImageEvents(events),
            in_use=lambda image_id: [(user.id, user.state.running) for user in catalog.image_users(image_id)],
            max_downloads=config.max_concurrent_downloads,
            storage_limit=config.storage_limit,
            stored=partial(_stored, config.data_root, storage),
            max_uploads=config.max_concurrent_uploads,
        )
    )


async def build(config: DaemonConfig, stack: AsyncExitStack) -> Parts:
    """Open the stores and make the services. What has to be closed at the end goes on `stack`."""
    clock = SystemClock()
    events = EventBus(clock)
    seccomp.use_cache(config.data_root / "seccomp")
    confining = asyncio.to_thread(apparmor.install)
    storage, confinement = await asyncio.gather(_storage(config, stack), confining)
    registries = Transport(_registries(config), clock)
    stack.push_async_callback(registries.close)
    catalog = Catalog(Documents(storage.database, "container"))
    images = _images(config, storage, registries, events, catalog)
    volumes = VolumeService(
        config.data_root / "volumes", Documents(storage.database, "volume"), clock, catalog.volume_users, events
    )
    controller = _controller(config)
    networks = NetworkService(
        controller,
        Documents(storage.database, "network"),
        clock,
        lambda: [entry.container for entry in catalog.entries()],
    )
    runtime = RuntimeClient(config.exec_root)
    deps = EngineDeps(
        clock=clock,
        events=events,
        runtime=runtime,
        controller=controller,
        networks=networks,
        images=images,
        volumes=volumes,
        snapshotter=storage.snapshotter,
        catalog=catalog,
        seccomp=Profiles(),
        logs=_Logs(),
        copy_up=storage.copy_up,
    )
    settings = _settings(config, confinement)
    await _check_remap(settings, config)
    containers = assemble(deps, settings)
    access, checks = RegistryService(registries), _checks(storage, images, volumes, deps, registries)
    system = SystemService(deps, settings)
    stack.push_async_callback(system.close)
    backends = Backends(
        containers=_faces(containers),
        execs=containers.execs,
        images=images,
        archives=images.archives,
        networks=networks,
        volumes=volumes,
        events=events,
        system=system,
        registries=access,
        commits=CommitService(deps, containers.life_cycle, images),
        files=FileService(deps, settings, storage.archivers),
        checks=checks,
    )
    return Parts(
        backends, events, runtime, controller, networks, images, containers, registries, deps, settings, system
    )


async def _check_remap(settings: EngineSettings, config: DaemonConfig) -> None:
    """Raises SystemFault: better no start than containers that cannot be started."""
    if settings.remap is not None:
        places = [config.data_root / "snapshots", config.data_root / "volumes"]
        overlay = config.storage_driver == "overlayfs"
        await asyncio.to_thread(idmapping.check, settings.remap, places, overlay=overlay)


def _faces(containers: Containers) -> ContainerBackends:
    return ContainerBackends(
        creation=containers.creation,
        life_cycle=containers.life_cycle,
        removal=containers.removal,
        inspection=containers.inspection,
        streams=containers.streams,
        configuration=containers.configuration,
    )


def _stored(data_root: Path, storage: _Storage) -> int:
    """Bytes of everything: as accounted for blobs and layers, counted now for what containers write."""
    content, snapshotter = storage.content, storage.snapshotter
    total = content.size()
    for info in snapshotter.walk():
        with suppress(CortenError):  # removed meanwhile
            total += snapshotter.usage(info.key).size
    for name in ("volumes", "containers"):
        with suppress(OSError):
            total += count_usage(data_root / name).size
    return total


def _checks(
    storage: _Storage, images: ImageService, volumes: VolumeService, deps: EngineDeps, registries: Transport
) -> CheckService:
    def users() -> list[User]:
        # One that is being started has its lock taken, and looks like a stopped one till it runs.
        entries = deps.catalog.entries()
        return [User(entry.container, entry.container.state.running or entry.lock.locked()) for entry in entries]

    parts = CheckParts(images.index, images.layers, storage.verifier, storage.database.check, users, volumes.list)
    return CheckService(parts, registries, deps.clock)


def _controller(config: DaemonConfig) -> BridgeController:
    if config.default_address_pools:
        return BridgeController(config.exec_root, default_pools=config.default_address_pools)
    return BridgeController(config.exec_root)

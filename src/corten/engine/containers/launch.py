"""Starting a container: network, etc files, specification, process. What was made is unmade in reverse on failure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from corten.engine import remap
from corten.engine.containers import etcfiles, logplan, modes, ports, propagation, transfers
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Entry
from corten.engine.containers.links import Links
from corten.engine.containers.refusals import start_refusal
from corten.engine.containers.sharing import Sharing
from corten.engine.containers.staging import Staging, staged
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.faults import host_fault
from corten.engine.models import Container, Status, volume_names
from corten.engine.networks import DEFAULT_NETWORK
from corten.engine.spec import apparmor, builder, capabilities, devices, security
from corten.errors import Conflict, CortenError, NotFound, StartFailed, clip
from corten.network.types import Connected, Endpoint, EndpointRequest, NetworkSpec, PortMapping, Sandbox, UserNamespace
from corten.runtime.cgroups_units import is_scope
from corten.runtime.types import Launched, LaunchRequest, MountSpec, Stdio, Stream
from corten.specs.container import EndpointSettings
from corten.specs.oci_runtime import Seccomp, Spec
from corten.storage.types import MountPlan


@dataclass(slots=True)
class _Attempt:
    """What one start has put together so far."""

    undo: contextlib.AsyncExitStack
    remap: remap.Remap | None = None
    network_path: str = ""
    user_path: str = ""
    sandbox: Sandbox | None = None
    connected: list[tuple[NetworkSpec, Connected]] = field(default_factory=list)
    staged: dict[str, str] = field(default_factory=dict)

    @property
    def held(self) -> list[socket.socket]:
        return [held for _, connected in self.connected for held in connected.held]


class Launcher:
    """Starts containers. The caller holds the entry's lock."""

    def __init__(self, deps: EngineDeps, settings: EngineSettings) -> None:
        self._deps, self._settings, self._catalog = deps, settings, deps.catalog
        self._announce = Announcer(deps.events)
        self._links = Links(deps.catalog)
        self._sharing = Sharing(deps.catalog, settings)
        self._staging = Staging(settings.exec_root / "mounts", deps.snapshotter)

    async def start(self, entry: Entry) -> None:
        """Raises StartFailed with Docker's exit code, Conflict or SystemFault; the state then tells of it."""
        container = entry.container
        undo = contextlib.AsyncExitStack()
        attempt = _Attempt(undo, remap.of(self._settings.remap, container.host_config))
        try:
            async with undo:
                undo.callback(entry.drop_parked)
                if entry.transfers:
                    await transfers.give_way(entry, self._deps.clock)
                remap.check(self._settings.remap, container.host_config)  # the daemon's setting may be a new one
                self._links.check(container)
                if travelling := propagation.asks(container.mounts):
                    await asyncio.to_thread(propagation.check, travelling)
                if names := volume_names(container.mounts):
                    undo.push_async_callback(self._deps.volumes.release, container.id)
                    await self._deps.volumes.acquire(names, container.id)
                attempt.user_path = self._sharing.user(container, attempt.remap)
                await self._connect(entry, attempt)
                launched = await self._staged(entry, attempt)
                undo.pop_all()
        except CortenError as error:
            await self._failed(entry, error)
            raise
        finally:
            for held in attempt.held:
                held.close()  # the shim has its own
        self._record(entry, attempt, launched)
        self._links.follow(container)
        await self._catalog.save(entry, durable=False)
        for network, _ in attempt.connected:
            self._announce.network(network, "connect", container.id)
        self._announce.mounts(container, "mount")
        self._announce.container(container, "start")

    # -- network -----------------------------------------------------------------------------------------------------

    async def _connect(self, entry: Entry, attempt: _Attempt) -> None:
        container = entry.container
        mode = container.host_config.network_mode
        if target := modes.joined(mode):
            attempt.network_path = self._sharing.network(container, target)
        elif mode == builder.HOST:
            attempt.network_path = builder.HOST
        else:
            await self._own_network(container, attempt)

    async def _own_network(self, container: Container, attempt: _Attempt) -> None:
        controller = self._deps.controller
        user = None
        if (mapped := attempt.remap) is not None:
            user = UserNamespace(mapped.uids, mapped.gids, attempt.user_path)
        attempt.sandbox = await controller.open_sandbox(container.id, user)
        attempt.undo.push_async_callback(controller.close_sandbox, container.id)
        attempt.network_path, attempt.user_path = attempt.sandbox.path, attempt.sandbox.user_path
        published = ports.mappings(container.host_config, list(container.config.exposed_ports or {}))
        for name, asked in container.networks.items():
            network = self._deps.networks.find(name)
            if network.driver != "bridge":
                continue
            request = _endpoint_request(container, asked, published)
            connected = await controller.connect(attempt.sandbox, network.id, request)
            attempt.connected.append((network, connected))
            published = ()  # once, on the first network, as Docker does

    # -- process -----------------------------------------------------------------------------------------------------

    async def _staged(self, entry: Entry, attempt: _Attempt) -> Launched:
        container = entry.container
        if not any(staged(point) for point in container.mounts):
            return await self._launch(entry, attempt)
        try:
            user_path = attempt.user_path if attempt.remap is not None else ""
            enter = self._staging.enter
            attempt.staged = await asyncio.to_thread(enter, container.id, container.mounts, user_path)
            return await self._launch(entry, attempt)
        finally:
            await asyncio.to_thread(self._staging.leave, container.id)

    async def _launch(self, entry: Entry, attempt: _Attempt) -> Launched:
        container, settings = entry.container, self._settings
        run_dir = settings.run_dir(container.id)
        with host_fault("write the container's files"):
            run_dir.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            run_dir.mkdir(mode=0o711, exist_ok=True)
            attempt.undo.callback(shutil.rmtree, run_dir, ignore_errors=True)
            self._write_etc(container, attempt)
        if entry.rootfs is None:
            entry.rootfs = await asyncio.to_thread(self._deps.snapshotter.mounts, container.id)
        container.app_armor_profile = self._confinement(container)
        choice = settings.runtimes.get(container.host_config.runtime)
        if choice is None:
            raise Conflict(f"unknown or invalid runtime name: {clip(container.host_config.runtime, 80)}")
        request = LaunchRequest(
            id=container.id,
            spec=self._spec(container, attempt),
            run_dir=run_dir,
            exit_file=settings.state_dir(container.id) / "exit",
            rootfs=_rootfs(entry.rootfs, remapped=attempt.remap is not None),
            stdio=_stdio(container),
            log=logplan.spec(container, settings.facts.hostname),
            init=bool(container.host_config.init),
            user=container.config.user or "0",  # a number that is looked up: root's further groups are the image's
            groups=tuple(container.host_config.group_add or ()),
            runtime=choice.path,
            runtime_args=choice.args,
            systemd_cgroup=is_scope(container.cgroup),
        )
        return await self._run(entry, request, attempt)

    async def _run(self, entry: Entry, request: LaunchRequest, attempt: _Attempt) -> Launched:
        streams: list[Stream] = entry.unpark()  # the runtime's from here on, on failure too
        try:
            return await self._deps.runtime.launch(request, streams, [held.fileno() for held in attempt.held])
        except StartFailed as error:
            raise StartFailed(
                start_refusal(error, entry.container.path),
                step=error.step,
                errno=error.errno,
                exit_code=error.exit_code,
            ) from error

    def _spec(self, container: Container, attempt: _Attempt) -> Spec:
        host_config = container.host_config
        options = self._settings.security(host_config)
        granted = [devices.grant(mapping) for mapping in host_config.devices or []]
        if host_config.privileged:
            granted.insert(0, devices.all_of_host())
        inputs = builder.SpecInputs(
            container=container,
            facts=self._settings.facts,
            namespaces=self._sharing.plan(container, attempt.network_path, attempt.user_path, attempt.remap),
            etc=builder.EtcFiles(container.hosts_path, container.hostname_path, container.resolv_conf_path),
            security=options,
            seccomp=self._seccomp(container, options.seccomp),
            granted=tuple(granted),
            default_ulimits=self._settings.default_ulimits,
            remap=attempt.remap,
            staged=attempt.staged,
            linked=tuple(self._links.environment(container)),
        )
        return builder.build(inputs)

    def _confinement(self, container: Container) -> str:
        """Chosen at every start, as the host may have got AppArmor, or lost it, since the last one."""
        host_config, settings = container.host_config, self._settings
        wanted = settings.security(host_config).apparmor
        return apparmor.choose(wanted, settings.apparmor_profile, privileged=host_config.privileged)

    def _seccomp(self, container: Container, said: str) -> Seccomp | None:
        """The profile that was asked for, a privileged container's too, else the daemon's. `said` is "" for none."""
        host_config = container.host_config
        profile = said or (security.UNCONFINED if host_config.privileged else self._settings.seccomp_profile)
        if profile == security.UNCONFINED:
            return None
        names = capabilities.resolve(
            host_config.cap_add,
            host_config.cap_drop,
            privileged=host_config.privileged,
            available=self._settings.facts.capabilities,
        )
        return self._deps.seccomp.load(profile, names)

    # -- files -------------------------------------------------------------------------------------------------------

    def _write_etc(self, container: Container, attempt: _Attempt) -> None:
        """On the exec root's tmpfs, so that writing does not block."""
        host_config, config, settings = container.host_config, container.config, self._settings
        if modes.joined(host_config.network_mode):
            return
        extra, gateway = host_config.extra_hosts or [], self._host_gateway(attempt)
        host_network = host_config.network_mode == builder.HOST
        if host_network:
            hosts = etcfiles.host_hosts(_text(settings.hosts), extra, gateway)
        else:
            addresses = [connected.endpoint.ip for _, connected in attempt.connected]
            linked = self._links.hosts(container)
            hosts = etcfiles.hosts(addresses, config.hostname, config.domainname, extra, gateway, linked)
        own = etcfiles.Resolver(
            tuple(host_config.dns or settings.dns),
            tuple(host_config.dns_search or settings.dns_search),
            tuple(host_config.dns_options or settings.dns_options),
        )
        resolv_conf = etcfiles.resolv_conf(_text(settings.resolv_conf), own, host_network=host_network)
        for path, text in (
            (container.hosts_path, hosts),
            (container.hostname_path, config.hostname + "\n"),
            (container.resolv_conf_path, resolv_conf),
        ):
            Path(path).write_text(text)
            if attempt.remap is not None:
                os.chown(path, *attempt.remap.root)

    def _host_gateway(self, attempt: _Attempt) -> str:
        """What `host-gateway` stands for: the host's address on the default network."""
        for _, connected in attempt.connected:
            return connected.endpoint.gateway
        try:
            return self._deps.networks.find(DEFAULT_NETWORK).gateway or "127.0.0.1"
        except NotFound:
            return "127.0.0.1"

    # -- state -------------------------------------------------------------------------------------------------------

    def _record(self, entry: Entry, attempt: _Attempt, launched: Launched) -> None:
        container = entry.container
        entry.started_at = self._deps.clock.monotonic()
        entry.no_restart = entry.was_healthy = False
        container.stopped_by_user, container.unhealthy_end = False, ""
        state = container.state
        if state.health is not None:
            state.health.status, state.health.failing_streak = "starting", 0
        state.status, state.pid, state.started_ns = Status.RUNNING, launched.pid, launched.started_ns
        state.exit_code, state.error, state.oom_killed = 0, "", False
        container.sandbox_id = container.id if attempt.sandbox else ""
        container.sandbox_key = attempt.sandbox.path if attempt.sandbox else ""
        container.endpoints = [connected.endpoint for _, connected in attempt.connected]
        container.remapped = attempt.remap.key if attempt.remap else ""
        for network, connected in attempt.connected:
            _note_endpoint(container.networks[network.name], connected.endpoint, container)
        if not modes.joined(container.host_config.network_mode):
            exposed = [port for text in container.config.exposed_ports or {} for port in ports.expand_exposed(text)]
            container.ports = ports.table(exposed, [p for e in container.endpoints for p in e.ports])

    async def _failed(self, entry: Entry, error: CortenError) -> None:
        state = entry.container.state
        state.status = Status.EXITED if state.started_ns else Status.CREATED
        state.pid, state.error = 0, error.message
        state.exit_code = error.exit_code if isinstance(error, StartFailed) else 128
        await self._catalog.save(entry, durable=False)


def _endpoint_request(
    container: Container, asked: EndpointSettings, published: tuple[PortMapping, ...]
) -> EndpointRequest:
    ipam = asked.ipam_config
    return EndpointRequest(
        container_id=container.id,
        name=container.name,
        ip=ipam.ipv4_address if ipam else "",
        mac=asked.mac_address,
        ports=published,
        aliases=tuple(asked.aliases or ()),
    )


def _note_endpoint(settings: EndpointSettings, endpoint: Endpoint, container: Container) -> None:
    settings.network_id, settings.endpoint_id = endpoint.network_id, endpoint.id
    settings.gateway, settings.ip_address = endpoint.gateway, endpoint.ip
    settings.ip_prefix_len, settings.mac_address = endpoint.prefix_len, endpoint.mac
    settings.dns_names = [container.name, *(settings.aliases or []), container.id[:12]]


def _rootfs(plans: Sequence[MountPlan], *, remapped: bool) -> tuple[MountSpec, ...]:
    """A remapped container's layers are shifted as they are mounted: on disk all containers' files are alike."""
    further = ("idmap",) if remapped else ()
    return tuple(MountSpec(plan.type, plan.source, options=(*plan.options, *further)) for plan in plans)


def _stdio(container: Container) -> Stdio:
    config = container.config
    height, width = container.host_config.console_size
    size = (height, width) if config.tty and height and width else None
    return Stdio(config.tty, config.open_stdin, config.stdin_once, size)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

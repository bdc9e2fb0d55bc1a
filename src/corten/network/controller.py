"""The network controller of a Linux host: bridges, veth pairs, namespaces, and one nftables table."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar

from corten.errors import Conflict, CortenError, InvalidArgument, NotFound, SystemFault
from corten.network.departures import Departures
from corten.network.host import Host
from corten.network.ipam import DEFAULT_POOLS
from corten.network.ledger import Ledger
from corten.network.live_rules import LiveRules
from corten.network.namespaces import Namespace, NamespacePool, SandboxMounts
from corten.network.ports import bind_host_port, ephemeral_range
from corten.network.rules import Rules, published
from corten.network.types import (
    Connected,
    Endpoint,
    EndpointRequest,
    InterfaceStats,
    NetworkSpec,
    Sandbox,
    UserNamespace,
)
from corten.network.watch import TableWatch
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)
T = TypeVar("T")
DEFAULT_POOL_SIZE = 8  # about 180 KiB of kernel memory and 0.9 ms each, measured on Linux 6.18


class BridgeController:
    """Implements NetworkController with the kernel.

    What is known is in the ledger, touched on the event loop only; what blocks runs in a few threads. Rules come last
    in a setup, and first in a teardown (see `departures`). `default_pools` are ranges and the length of the prefix of
    the subnets that are cut from them, `pool_size` is how many namespaces are kept ready.
    """

    def __init__(
        self,
        exec_root: Path,
        *,
        default_pools: Sequence[tuple[str, int]] = DEFAULT_POOLS,
        pool_size: int = DEFAULT_POOL_SIZE,
        table: str = "corten",
    ) -> None:
        self._mounts = SandboxMounts(exec_root / "netns")
        self._host, self._rules = Host(), LiveRules(Rules(table))
        self._ledger = Ledger(pools=default_pools, dynamic_ports=ephemeral_range())
        self._tasks = TaskOwner("network")
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="network")
        self._departures = Departures(self._ledger, self._host, self._rules, self._tasks, self._threads)
        self._pool = NamespacePool(pool_size, self._tasks)
        self._namespaces: dict[str, Namespace | None] = {}  # by container; None: not entered since the start
        self._undoing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._watch = TableWatch(
            self._rules.rules.table, lambda: self._tasks.start("restore the nftables table", self._table_gone())
        )
        self._changing = asyncio.Lock()  # one change of bridges or of the table as a whole at a time

    # Life cycle

    async def start(
        self, networks: Sequence[NetworkSpec], endpoints: Sequence[Endpoint], sandboxes: Sequence[str] = ()
    ) -> None:
        for spec in networks:
            self._ledger.add_network(spec, await self._routes(spec))
        for endpoint in endpoints:
            try:
                self._ledger.adopt(endpoint)
            except CortenError as refusal:
                # The network was changed or lost since: the container loses its place, not the daemon its start.
                log.warning("endpoint %s of %s is dropped: %s", endpoint.id[:12], endpoint.container_id[:12], refusal)
        kept = {*sandboxes, *(endpoint.container_id for endpoint in endpoints)}
        with _faults("prepare the network"):
            await self._run(lambda: self._prepare(kept))
            await self.reconcile()
        self._namespaces.update(dict.fromkeys(kept & set(self._mounts.names())))
        self._watch.start()
        self._pool.refill()

    async def _table_gone(self) -> None:
        """A firewall that is reloaded flushes everything, ours too: the rules are put back at once."""
        if not self._closed and not await self._run(self._rules.stands):
            log.warning("the nftables table was removed by somebody; it is made again")
            async with self._changing:
                await self._rebuild()

    def _prepare(self, kept: set[str]) -> None:
        """Directory, routing, and away with what is left of containers that are gone."""
        self._mounts.prepare()
        for name in self._mounts.names():
            if name not in kept:
                self._mounts.drop(name)
        bridges = [spec.bridge for spec in self._ledger.specs()]
        self._host.remove_orphans(bridges, [endpoint.host_interface for endpoint in self._ledger.endpoints()])
        self._host.ensure_forwarding()

    async def reconcile(self) -> None:
        """Put back what somebody removed: bridges, the table, published ports, the links' places on their bridges."""
        async with self._changing:
            specs = {spec.id: spec for spec in self._bridged()}
            endpoints = self._ledger.endpoints()

            def work() -> None:
                for spec in specs.values():
                    self._host.ensure_bridge(spec)
                for endpoint in endpoints:
                    self._host.adopt(specs[endpoint.network_id], endpoint)

            await self._run(work)
            await self._rebuild()

    async def _rebuild(self) -> None:
        """Make the table anew. Ports that came or went meanwhile are added or taken out afterwards."""
        specs, known = self._bridged(), published(self._ledger.endpoints())
        await self._run(lambda: self._rules.commit(self._rules.rules.whole(specs, known)))
        while (now := published(self._ledger.endpoints())) != known:
            added, removed = now - known, known - now
            await self._run(lambda added=added: self._rules.publish(added))  # type: ignore[misc]  # the default of a lambda
            await self._run(lambda removed=removed: self._rules.unpublish(removed))  # type: ignore[misc]  # the default of a lambda
            known = now

    async def close(self, *, keep: bool = True) -> None:
        if self._closed:
            return
        self._closed = True
        self._watch.close()
        if not keep:
            for container_id in {*self._namespaces, *(end.container_id for end in self._ledger.endpoints())}:
                await self.close_sandbox(container_id)
        while self._undoing:
            await asyncio.wait(self._undoing)
        await self._departures.settle()
        await self._tasks.close("the network controller is closed")
        await self._pool.close()
        for namespace in self._namespaces.values():
            if namespace is not None:
                namespace.close()
        self._namespaces.clear()
        with _faults("remove the network"):
            await self._run(self._mounts.remove_if_empty if keep else self._remove_all)
        self._threads.shutdown()
        self._departures.close()
        self._host.close()
        self._rules.close()

    def _remove_all(self) -> None:
        self._rules.commit(self._rules.rules.gone())
        for spec in self._bridged():
            self._host.delete_bridge(spec.bridge)
        self._host.remove_orphans((), ())
        self._mounts.remove()

    # Networks

    async def fill(self, spec: NetworkSpec) -> NetworkSpec:
        return self._ledger.fill(spec, await self._routes(spec))[0]

    async def _routes(self, spec: NetworkSpec) -> list[IPv4Network]:
        """What a subnet that is chosen for a network must avoid. Its own bridge may be there from an earlier time."""
        if spec.driver != "bridge" or spec.subnet:
            return []
        with _faults("list routes"):
            return await self._run(lambda: self._host.routes(besides=spec.bridge))

    async def create_network(self, spec: NetworkSpec) -> NetworkSpec:
        async with self._changing:
            filled = self._ledger.add_network(spec, await self._routes(spec))
            if filled.driver == "bridge":
                try:
                    with _faults(f"make network {spec.name}"):
                        await self._make_bridge(filled)
                except BaseException:
                    self._ledger.remove_network(spec.id)
                    raise
        return filled

    async def _make_bridge(self, spec: NetworkSpec) -> None:
        made = await self._run(lambda: self._host.ensure_bridge(spec))
        try:
            await self._networks_changed(added=(spec.bridge,))
        except BaseException:
            if made:
                await asyncio.shield(self._run(lambda: self._host.delete_bridge(spec.bridge)))
            raise

    async def remove_network(self, network_id: str) -> None:
        async with self._changing:
            # Links that are on their way out are waited for, so that no link is left without a bridge.
            await self._departures.settle(network_id)
            spec = self._ledger.remove_network(network_id)
            if spec.driver == "bridge":
                with _faults(f"remove network {spec.name}"):
                    await self._networks_changed(removed=(spec.bridge,))
                    await self._run(lambda: self._host.delete_bridge(spec.bridge))

    async def _networks_changed(self, *, added: Sequence[str] = (), removed: Sequence[str] = ()) -> None:
        specs = self._bridged()
        messages = self._rules.rules.networks_changed(specs, added=added, removed=removed)
        try:
            await self._run(lambda: self._rules.commit(messages))
        except OSError as refusal:
            if refusal.errno != errno.ENOENT:
                raise
            log.warning("the nftables table was removed by somebody; it is made again")
            await self._rebuild()

    # Sandboxes

    async def open_sandbox(self, container_id: str, user: UserNamespace | None = None) -> Sandbox:
        if "/" in container_id or container_id in ("", ".", ".."):
            raise InvalidArgument(f"invalid container id {container_id!r}")
        if container_id in self._namespaces:
            return self._sandbox(container_id)
        with _faults("make a network namespace" if user is None else "make a user namespace and its network namespace"):
            namespace = await self._pool.take(user)
            if container_id in self._namespaces:
                namespace.close()
                return self._sandbox(container_id)
            try:
                # Three system calls on a file system in memory: not worth a thread.
                self._mounts.hold(container_id, namespace.fd)
            except BaseException:
                namespace.close()
                raise
        self._namespaces[container_id] = namespace
        return self._sandbox(container_id)

    def _sandbox(self, container_id: str) -> Sandbox:
        namespace = self._namespaces[container_id]
        user_fd = namespace.user_fd if namespace is not None else -1
        user_path = f"/proc/{os.getpid()}/fd/{user_fd}" if user_fd >= 0 else ""
        return Sandbox(container_id, str(self._mounts.path(container_id)), user_path)

    async def close_sandbox(self, container_id: str) -> None:
        await self._departures.leave(self._ledger.of_container(container_id))
        namespace = self._namespaces.pop(container_id, None)
        if namespace is not None:
            namespace.close()
        with _faults("remove a network namespace"):
            self._mounts.drop(container_id)

    async def stats(self, container_id: str) -> list[InterfaceStats]:
        if container_id not in self._namespaces:
            return []
        with _faults("read network statistics"):
            namespace = await self._namespace(container_id)
            return await self._run(namespace.stats)

    async def _namespace(self, container_id: str) -> Namespace:
        """Open, also after a restart of the daemon. Raises NotFound."""
        if container_id not in self._namespaces:
            raise NotFound("sandbox", container_id)
        if (namespace := self._namespaces[container_id]) is None:
            entered = await self._pool.enter(self._mounts.path(container_id))
            if (namespace := self._namespaces.get(container_id)) is not None:
                entered.close()
                return namespace
            if container_id not in self._namespaces:
                entered.close()
                raise NotFound("sandbox", container_id)
            namespace = self._namespaces[container_id] = entered
        return namespace

    # Endpoints

    async def connect(self, sandbox: Sandbox, network_id: str, request: EndpointRequest) -> Connected:
        namespace = await self._namespace(sandbox.id)
        first = not self._ledger.of_container(request.container_id)
        connected = await self._reserve(network_id, request)
        endpoint, spec = connected.endpoint, self._ledger.spec(network_id)

        def work() -> None:
            self._host.wire(spec, endpoint, namespace, default_route=first)
            self._rules.publish(published([endpoint]))
            self._rules.end_flows(endpoint)

        job = self._threads.submit(work)
        try:
            await self._finish(job, endpoint)
        except BaseException as failure:
            for held in connected.held:
                held.close()
            undo = self._tasks.start("undo an endpoint", self._undo(job, endpoint))
            self._undoing.add(undo)
            undo.add_done_callback(self._undoing.discard)
            if isinstance(failure, OSError):
                await asyncio.shield(undo)
                raise SystemFault(
                    f"failed to set up container networking: {failure}", errno=failure.errno or 0
                ) from None
            raise
        return connected

    async def _reserve(self, network_id: str, request: EndpointRequest) -> Connected:
        """An address that is being given back is waited for, if it is wanted."""
        while True:
            try:
                return Connected(*self._ledger.reserve(network_id, request, bind_host_port))
            except Conflict:
                undoing = set(self._undoing)
                if undoing:
                    await asyncio.wait(undoing)
                if not await self._departures.settle(network_id) and not undoing:
                    raise

    async def _finish(self, job: Future[None], endpoint: Endpoint) -> None:
        try:
            await asyncio.wrap_future(job)
        except OSError as refusal:
            if refusal.errno != errno.ENOENT or await self._run(self._rules.stands):
                raise
            log.warning("the nftables table was removed by somebody; it is made again")
            async with self._changing:
                await self._rebuild()
            await self._run(lambda: self._rules.end_flows(endpoint))

    async def _undo(self, job: Future[None], endpoint: Endpoint) -> None:
        with contextlib.suppress(BaseException):
            await asyncio.wrap_future(job)
        await self._departures.leave([endpoint])

    async def disconnect(self, endpoint: Endpoint) -> None:
        await self._departures.leave([endpoint])

    # Threads

    def _bridged(self) -> list[NetworkSpec]:
        return [spec for spec in self._ledger.specs() if spec.driver == "bridge"]

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


@contextlib.contextmanager
def _faults(step: str) -> Iterator[None]:
    """The kernel's refusals as SystemFault, with the step that it refused."""
    try:
        yield
    except OSError as refusal:
        raise SystemFault(f"cannot {step}: {refusal}", step=step, errno=refusal.errno or 0) from refusal

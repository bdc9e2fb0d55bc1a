"""How endpoints go: rules and ports while the caller waits, links and addresses behind its back.

    lent ──leave──► rules withdrawn ──► ports free ──► link removed ──► address free

A rule goes before its port is lent again, so that a port never leads to a stranger; a link goes before its address is,
so that no two containers have the same one. Removing a link takes the kernel some 20 ms, one or a hundred: what comes
meanwhile is gathered and goes with the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from corten.errors import SystemFault
from corten.network.host import Host
from corten.network.ledger import Ledger
from corten.network.live_rules import LiveRules
from corten.network.rules import published
from corten.network.types import Endpoint
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)


class Departures:
    """Takes endpoints out of the ledger and off the host. For use on the event loop."""

    def __init__(
        self, ledger: Ledger, host: Host, rules: LiveRules, tasks: TaskOwner, threads: ThreadPoolExecutor
    ) -> None:
        self._ledger, self._host, self._rules, self._tasks = ledger, host, rules, tasks
        self._threads = threads
        # A thread of its own: those that wait for the kernel here would keep others from connecting.
        self._link_thread = ThreadPoolExecutor(1, thread_name_prefix="network-links")
        self._leaving: dict[
            str, tuple[str, asyncio.Future[None]]
        ] = {}  # by endpoint: its network; done when it is gone
        self._gathered: list[Endpoint] = []
        self._removing = False

    async def leave(self, endpoints: Iterable[Endpoint]) -> None:
        """Ports are free on return. Endpoints that are not there (any more) are ignored. Goes on when cancelled.

        Raises SystemFault when the rules cannot be withdrawn; the ports then stay lent.
        """
        leaving = [endpoint for endpoint in endpoints if self._ledger.leave(endpoint)]
        if leaving:
            loop = asyncio.get_running_loop()
            for endpoint in leaving:
                self._leaving[endpoint.id] = (endpoint.network_id, loop.create_future())
            if any(endpoint.ports for endpoint in leaving):
                await asyncio.shield(self._tasks.start("withdraw ports", self._withdraw(leaving)))
            else:
                self._remove(leaving)

    async def settle(self, network_id: str = "") -> bool:
        """Wait until links on their way out (of one network) are gone. False when there were none."""
        waited = False
        while gone := [done for owner, done in self._leaving.values() if network_id in ("", owner)]:
            await asyncio.wait(gone)
            waited = True
        return waited

    def close(self) -> None:
        self._link_thread.shutdown()

    async def _withdraw(self, leaving: Sequence[Endpoint]) -> None:
        ports = published(leaving)

        def work() -> None:
            self._rules.unpublish(ports)
            for endpoint in leaving:
                self._rules.end_flows(endpoint)

        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, work)
            for endpoint in leaving:
                self._ledger.release_ports(endpoint)
        except OSError as refusal:
            raise SystemFault(
                f"cannot withdraw published ports: {refusal}", step="withdraw published ports", errno=refusal.errno or 0
            ) from refusal
        finally:
            self._remove(leaving)

    def _remove(self, leaving: Sequence[Endpoint]) -> None:
        self._gathered += leaving
        if not self._removing:
            self._removing = True
            self._tasks.start("remove links", self._remove_gathered())

    async def _remove_gathered(self) -> None:
        """The address of a link that could not be removed is not lent again."""
        loop = asyncio.get_running_loop()
        try:
            while leaving := self._gathered:
                self._gathered = []
                try:
                    await loop.run_in_executor(self._link_thread, self._host.unlink, leaving)
                    for endpoint in leaving:
                        self._ledger.release_address(endpoint)
                except OSError as refusal:
                    log.error("links of endpoints that are gone stay behind: %s", refusal)
                finally:
                    for endpoint in leaving:
                        self._leaving.pop(endpoint.id)[1].set_result(None)
        finally:
            self._removing = False

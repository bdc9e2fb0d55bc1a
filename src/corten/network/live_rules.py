"""The rules as the kernel has them: the nftables table and the tracked flows. Blocking; safe in many threads."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

from corten.linux import conntrack, nftables
from corten.linux.netlink import NETLINK_NETFILTER, Message
from corten.network.ports import ANY
from corten.network.rules import PROTOCOLS, Elements, Rules
from corten.network.sockets import Sockets, but
from corten.network.types import Endpoint

log = logging.getLogger(__name__)


class LiveRules:
    """Brings `rules` into the kernel. Methods raise OSError; those that remove things accept that they are gone."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._nfnl = Sockets(NETLINK_NETFILTER)

    def close(self) -> None:
        self._nfnl.close()

    def commit(self, messages: Sequence[Message]) -> None:
        with self._nfnl.lend() as socket:
            nftables.commit(socket, messages)

    def publish(self, elements: Elements) -> None:
        """Raises OSError (ENOENT) when the table is gone."""
        if elements:
            self.commit(self.rules.add(elements))

    def unpublish(self, elements: Elements) -> None:
        if not elements:
            return
        try:
            self.commit(self.rules.delete(elements))
        except OSError as refusal:
            if refusal.errno != errno.ENOENT:
                raise
            # A transaction is refused whole; what is still there is deleted one by one.
            for element in elements.each():
                with but(errno.ENOENT):
                    self.commit(self.rules.delete(element))

    def stands(self) -> bool:
        with self._nfnl.lend() as socket:
            return self.rules.table.exists(socket)

    def published(self) -> Elements:
        """What the maps hold. Raises OSError (ENOENT) when the table is gone."""
        table = self.rules.table
        with self._nfnl.lend() as socket:
            bound, wildcard = (table.elements(socket, name).items() for name in ("bound", "wildcard"))
            return Elements(frozenset(bound), frozenset(wildcard))

    def end_flows(self, endpoint: Endpoint) -> None:
        """End tracked UDP flows to the endpoint's ports: they would go on to whoever had the port before.

        The kernel decides on a translation at a flow's first packet, and a UDP flow never ends while a client sends.
        """
        ports = [mapping for mapping in endpoint.ports if mapping.transport == "udp"]
        if not ports:
            return
        try:
            with self._nfnl.lend() as socket:
                for mapping in ports:
                    for flow in conntrack.flows_to(socket, PROTOCOLS["udp"], mapping.host_port):
                        if mapping.host_ip in (ANY, flow.destination):
                            with but(errno.ENOENT):
                                socket.batch([conntrack.delete(flow)])
        except OSError as refusal:
            log.warning("old UDP flows to the ports of %s are not ended: %s", endpoint.id[:12], refusal)

"""Hears when somebody deletes our nftables table: `nft flush ruleset`, a firewall that is reloaded."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from corten.linux.netlink import NETLINK_NETFILTER, NetlinkSocket
from corten.linux.nftables import NFNLGRP_NFTABLES, Table


class TableWatch:
    """Calls `gone` on the event loop when the table may have been deleted; our own replacing of it is heard too."""

    def __init__(self, table: Table, gone: Callable[[], object]) -> None:
        self._table, self._gone = table, gone
        self._socket: NetlinkSocket | None = None

    def start(self) -> None:
        self._socket = NetlinkSocket(NETLINK_NETFILTER)
        self._socket.join(NFNLGRP_NFTABLES)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            deleted = any(self._table.deleted_by(notice) for notice in self._socket.heard())
        except OSError as failure:
            if failure.errno != errno.ENOBUFS:
                raise
            deleted = True  # some notices were lost, perhaps that one
        if deleted:
            self._gone()

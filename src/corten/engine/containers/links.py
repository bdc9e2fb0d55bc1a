"""Links between containers of the default network (`--link`): made, passed on at a start, kept up to date, removed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from corten.engine.containers import linkwords, modes
from corten.engine.containers.catalog import Catalog, Entry
from corten.engine.models import Container, Link, Status
from corten.engine.networks import DEFAULT_NETWORK
from corten.errors import Conflict, InvalidArgument, NotFound, clip
from corten.specs.container import HostConfig

log = logging.getLogger(__name__)

_MOST = 1 << 20
"""Bytes of an /etc/hosts that is still read: the container may write as much to it as it likes."""


class Links:
    """A link is to the container that it was made with, by id, whatever becomes of that one's name."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def made(self, name: str, host_config: HostConfig) -> tuple[list[Link], list[str]]:
        """What a new container `name` asks for, and warnings. Raises InvalidArgument."""
        links: dict[str, Link] = {}
        warnings = []
        for text in host_config.links or []:
            ref, alias = linkwords.parse(text)
            target = self._target(ref)
            if not alias or alias in links:
                taken = f"/{name}/{alias}".rstrip("/")
                warnings.append(f'The link {clip(text, 200)} is ignored, as the name "{taken}" is in use already.')
                continue
            links[alias] = Link(alias=alias, target=target.id, name=target.name)
        return list(links.values()), warnings

    def _target(self, ref: str) -> Container:
        """The container whose network `ref` has. Not NotFound: clients take that for a missing image."""
        if not ref:
            raise InvalidArgument('could not get container for : invalid name or ID supplied: ""')
        try:
            container = self._catalog.find(ref).container
            while joined := modes.joined(container.host_config.network_mode):
                ref = joined
                container = self._catalog.find(ref).container
        except (NotFound, InvalidArgument) as error:
            raise InvalidArgument(f"could not get container for {clip(ref, 200)}: {error.message}") from None
        if container.host_config.network_mode == "host":
            raise InvalidArgument(modes.HOST_AND_LINKS)
        return container

    # -- what a container is told of those that it links to ---------------------------------------------------------

    def environment(self, container: Container) -> list[str]:
        """Variables, for each process that is started in it. Raises Conflict as `check` does."""
        out = []
        for link, target in self.check(container):
            address = target.networks[DEFAULT_NETWORK].ip_address
            config = target.config
            out += linkwords.variables(
                f"/{container.name}/{link.alias}", address, config.exposed_ports or {}, config.env or []
            )
        return out

    def hosts(self, container: Container) -> list[str]:
        """Lines of /etc/hosts. Raises Conflict as `check` does."""
        return [
            f"{target.networks[DEFAULT_NETWORK].ip_address}\t"
            f"{linkwords.names_in_hosts(link.alias, target.config.hostname, target.name)}\n"
            for link, target in self.check(container)
        ]

    def check(self, container: Container) -> list[tuple[Link, Container]]:
        """Those that a container links to; all of them have an address. Raises Conflict where one has none."""
        if not container.links or DEFAULT_NETWORK not in container.networks:
            return []
        found = []
        for link in container.links:
            entry = self._catalog.by_id(link.target)
            if entry is not None and DEFAULT_NETWORK not in entry.container.networks:
                raise Conflict(f"Cannot link to /{link.name}, as it does not belong to the default network")
            if entry is None or entry.container.state.status not in (Status.RUNNING, Status.PAUSED):
                raise Conflict(
                    f"Cannot link to a non running container: /{link.name} AS /{container.name}/{link.alias}"
                )
            found.append((link, entry.container))
        return found

    # -- changes -----------------------------------------------------------------------------------------------------

    def follow(self, target: Container) -> None:
        """`target` was started: containers that link to it, and run, find it at its new address."""
        for source in self._sources(target):
            for link in source.container.links:
                if link.target == target.id:
                    self._readdress(source.container, link, target, target.networks[DEFAULT_NETWORK].ip_address)

    async def renamed(self, target: Container) -> None:
        """`target` has another name. Not durable: it is only for what is shown once the target is removed."""
        for source in self._sources(target):
            for link in source.container.links:
                if link.target == target.id:
                    link.name = target.name
            await self._catalog.save(source, durable=False)

    async def remove(self, ref: str) -> None:
        """Undo the link that is called `web/db`, of a target that was removed too. The target itself stays.

        Raises NotFound, and Conflict for what is a container's own name.
        """
        source, separator, alias = ref.removeprefix("/").partition("/")
        if not separator:
            self._catalog.find(ref)
            raise Conflict("Conflict, cannot remove the default link name of the container")
        entry = self._catalog.by_id(self._catalog.names.get(source, ""))
        if entry is None:
            raise NotFound("container", clip(ref, 200))
        container = entry.container
        async with entry.lock:
            link = next((link for link in container.links if link.alias == alias), None)
            if link is None or entry.removing:
                raise NotFound("container", clip(ref, 200))
            before = container.links
            container.links = [other for other in before if other is not link]
            try:
                await self._catalog.save(entry)
            except BaseException:
                container.links = before
                raise
            self._catalog.links.update(container)
            if (target := self._catalog.by_id(link.target)) is not None:
                self._readdress(container, link, target.container, "")

    def _sources(self, target: Container) -> list[Entry]:
        found = (self._catalog.by_id(id) for id in self._catalog.links.sources(target.id))
        return [entry for entry in found if entry is not None]

    def _readdress(self, container: Container, link: Link, target: Container, address: str) -> None:
        """In place, as the file is mounted in the container."""
        try:
            fd = os.open(container.hosts_path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # it does not run; its next start writes the file anew
        except OSError as error:
            log.warning("the hosts of container %s are not updated: %s", container.name, error)
            return
        with open(fd, "r+b", buffering=0) as file:
            text = file.read(_MOST + 1)
            if len(text) > _MOST:
                log.warning("the hosts of container %s are not updated: the file is too large", container.name)
                return
            before = text.decode(errors="surrogateescape")
            after = linkwords.readdress(before, link.alias, target.config.hostname, address)
            if after != before:
                file.seek(0)
                file.write(after.encode(errors="surrogateescape"))
                file.truncate()

    # -- what is shown -----------------------------------------------------------------------------------------------

    def names(self) -> Mapping[str, Sequence[str]]:
        """By container, what others call it: "/web/db"."""
        out: dict[str, list[str]] = {}
        for id in self._catalog.links.linking():
            if (source := self._catalog.by_id(id)) is not None:
                for link in source.container.links:
                    out.setdefault(link.target, []).append(f"/{source.container.name}/{link.alias}")
        return out

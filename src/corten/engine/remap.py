"""User-namespace remapping: whose ids containers run as, and which container is remapped."""

from __future__ import annotations

from dataclasses import dataclass

from corten.errors import InvalidArgument, clip
from corten.specs.container import HostConfig
from corten.specs.oci_runtime import IDMapping

Mapping = tuple[int, int, int]
"""First id inside, first id on the host, how many."""

HOST = "host"


@dataclass(frozen=True, slots=True)
class Remap:
    """`--userns-remap` with its ranges looked up. Both mappings begin at 0 inside."""

    user: str
    uids: tuple[Mapping, ...]
    gids: tuple[Mapping, ...]

    @property
    def root(self) -> tuple[int, int]:
        """uid and gid on the host of root inside."""
        return self.uids[0][1], self.gids[0][1]

    @property
    def key(self) -> str:
        """The mappings as text: two containers may share a user namespace when theirs are equal."""
        return "/".join(",".join("{}:{}:{}".format(*mapping) for mapping in ids) for ids in (self.uids, self.gids))

    @property
    def last_gid(self) -> int:
        """The highest group that there is inside."""
        inside, _, size = self.gids[-1]
        return inside + size - 1


def oci(mappings: tuple[Mapping, ...]) -> list[IDMapping]:
    return [IDMapping(container_id=inside, host_id=outside, size=size) for inside, outside, size in mappings]


def of(remap: Remap | None, host_config: HostConfig) -> Remap | None:
    """The remapping of a container; None where the daemon has none or `--userns=host` switches it off."""
    return None if host_config.userns_mode == HOST else remap


def check(remap: Remap | None, host_config: HostConfig) -> None:
    """Raises InvalidArgument in Docker's words for a mode that does not exist and for what remapping excludes."""
    if host_config.userns_mode not in ("", HOST):
        raise InvalidArgument(f"invalid USER mode: {clip(host_config.userns_mode, 80)}")
    if of(remap, host_config) is None:
        return
    if host_config.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace"
            " when running privileged mode"
        )
    if host_config.network_mode == HOST:
        raise InvalidArgument("cannot share the host's network namespace when user namespaces are enabled")
    if host_config.pid_mode == HOST:
        raise InvalidArgument("cannot share the host PID namespace when user namespaces are enabled")

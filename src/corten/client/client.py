"""`Client`: the groups of methods over one session, each imported when it is first used."""

from __future__ import annotations

from corten.client.session import Session
from corten.client.transport import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.client.archives import Archives
    from corten.client.container_io import ContainerIO
    from corten.client.containers import Containers
    from corten.client.execs import Execs
    from corten.client.files import Files
    from corten.client.images import Images
    from corten.client.networks import Networks
    from corten.client.system import System
    from corten.client.volumes import Volumes


class Client:
    """The Engine API at `endpoint`. Blocking, for one thread; usable as a context manager.

    Methods return what the daemon sent as dictionaries in the API's own spelling, and raise `corten.client.errors`.
    `version` fixes the API version; None takes the daemon's newest.
    """

    def __init__(self, endpoint: Endpoint, *, version: str | None = None, user_agent: str = "corten") -> None:
        self.session = Session(endpoint, version=version, user_agent=user_agent)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    @property
    def containers(self) -> Containers:
        from corten.client.containers import Containers

        return Containers(self.session)

    @property
    def container_io(self) -> ContainerIO:
        from corten.client.container_io import ContainerIO

        return ContainerIO(self.session)

    @property
    def execs(self) -> Execs:
        from corten.client.execs import Execs

        return Execs(self.session)

    @property
    def files(self) -> Files:
        from corten.client.files import Files

        return Files(self.session)

    @property
    def images(self) -> Images:
        from corten.client.images import Images

        return Images(self.session)

    @property
    def archives(self) -> Archives:
        from corten.client.archives import Archives

        return Archives(self.session)

    @property
    def networks(self) -> Networks:
        from corten.client.networks import Networks

        return Networks(self.session)

    @property
    def system(self) -> System:
        from corten.client.system import System

        return System(self.session)

    @property
    def volumes(self) -> Volumes:
        from corten.client.volumes import Volumes

        return Volumes(self.session)

"""`POST /commit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corten.api.docker.images import with_tag
from corten.engine.models import CommitOptions
from corten.errors import InvalidArgument
from corten.specs import wire
from corten.specs.container import ContainerConfig

if TYPE_CHECKING:
    from aiohttp import web

    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router


def add_routes(router: Router) -> None:
    router.add("POST", "/commit", commit)


async def commit(call: Call) -> web.Response:
    query = call.query
    if not (container := query.text("container")):
        raise InvalidArgument("container must be given")
    body = (await call.body()).strip()
    repository = query.text("repo")
    options = CommitOptions(
        ref=with_tag(repository, query.text("tag")) if repository else "",
        author=query.text("author"),
        comment=query.text("comment"),
        changes=query.all("changes"),
        config=wire.decode(body, ContainerConfig) if body not in (b"", b"null") else None,
        pause=query.flag("pause", default=True),
    )
    id = await call.finish("commit", call.backends.commits.commit(container, options))
    return call.json({"Id": id}, 201)

"""`--use-api-socket`: the daemon's socket in a container, and what is known of registries beside it."""

from __future__ import annotations

import json

from corten.cli import credentials
from corten.cli.context import say_error
from corten.cli.credhelper import Helper, HelperError
from corten.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.cli.context import Context

    Json = dict[str, Any]

SOCKET = "/var/run/docker.sock"
FOLDER = "/run/secrets/docker"
_VARIABLE = "DOCKER_CONFIG="


def add(context: Context, body: Json, *, code: int) -> Json:
    """Put the socket's mount, and where config.json will be, into the body of a create request.

    Returns the credentials that `fill` is to put there; none where the user says where the configuration is. Raises
    CliError with `code` where the daemon is not asked on a unix socket, or the credentials cannot be had.
    """
    endpoint = context.client.session.endpoint
    if not endpoint.path:
        raise CliError(
            f"flag --use-api-socket can only be used with unix sockets: docker endpoint {endpoint.url} incompatible",
            code,
        )
    host = body["HostConfig"]
    host["Mounts"] = [
        *host.get("Mounts", ()),
        {"Type": "bind", "Source": endpoint.path, "Target": SOCKET, "BindOptions": {}},
    ]
    variables = body.get("Env", [])
    if any(entry.startswith(_VARIABLE) for entry in variables):
        return {}
    try:
        known = _known(context.config)
    except (HelperError, ValueError) as error:
        raise CliError(f"resolving credentials failed: {error}", code) from None
    if known:
        body["Env"] = [*variables, _VARIABLE + FOLDER]
    return known


def fill(context: Context, identifier: str, known: Json, *, code: int) -> None:
    """Write a config.json of nothing but `known` into a container that was just made, for root's eyes only."""
    import io
    import tarfile

    from corten.cli.failure import describe

    content = json.dumps({"auths": dict(sorted(known.items()))}, indent="\t").encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(f"{FOLDER}/config.json")
        member.size, member.mode = len(content), 0o600
        tar.addfile(member, io.BytesIO(content))
    try:
        context.client.files.write(identifier, "/", [archive.getvalue()])
    except Exception as error:
        if (message := describe(error)) is None:
            raise
        raise CliError(
            f"injecting docker config.json into container failed: copying config.json into container failed: {message}",
            code,
        ) from None


def _known(config: Json) -> Json:
    """By server, entries of config.json: those of DOCKER_AUTH_CONFIG, or else of the store and the helpers."""
    if given := credentials.read_environment():
        return {server: _entry(entry) for server, entry in given.items()}
    if store := config.get("credsStore"):
        helper = Helper(str(store))
        out = {server: _asked(helper, server) for server in helper.list()}
    else:
        out = {server: _entry(entry) for server, entry in credentials.auths(config).items()}
    helpers = config.get("credHelpers")
    for server, name in (helpers if isinstance(helpers, dict) else {}).items():
        try:
            out[server] = _asked(Helper(str(name)), server)
        except HelperError as error:
            say_error(f"WARNING: Failed to get credentials for registry: {server}: {error}")
    return out


def _asked(helper: Helper, server: str) -> Json:
    found = helper.get(server)
    return {} if found is None else _entry(credentials.as_entry(found))


def _entry(entry: object) -> Json:
    """Of a file, what says who one is, and nothing else."""
    kept = ("auth", "identitytoken", "registrytoken")
    return {name: entry[name] for name in kept if entry.get(name)} if isinstance(entry, dict) else {}

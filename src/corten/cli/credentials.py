"""Credentials for registries: DOCKER_AUTH_CONFIG before the helper of a registry, and that before config.json.

Each is a dict of `username` and `password`, or `identitytoken`, filed under a host with its port, Docker Hub's under
the address that it had of old.
"""

from __future__ import annotations

import base64
import json
import os

from corten.cli.configfile import change, path_in
from corten.cli.context import say_error
from corten.cli.credhelper import TOKEN_USER, Helper, HelperError
from corten.client.images import encode_auth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Found = dict[str, str]
    Json = dict[str, Any]

HUB = "https://index.docker.io/v1/"
ENVIRONMENT = "DOCKER_AUTH_CONFIG"
UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '%s'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/
"""


def registry_of(reference: str) -> str:
    """The key under which credentials of `reference`'s registry are filed."""
    first, slash, _ = reference.partition("/")
    if (
        not slash
        or not ("." in first or ":" in first or first == "localhost")
        or first in ("docker.io", "index.docker.io")
    ):
        return HUB
    return first


def hostname(address: str) -> str:
    """The host of `address`, its port with it: "https://r.example:5000/v1/" is filed under "r.example:5000"."""
    return address.removeprefix("http://").removeprefix("https://").partition("/")[0]


def auth_for(reference: str, config: Json) -> str:
    """The X-Registry-Auth header for `reference`; "" when nothing is known for its registry."""
    found = known_for(reference, config)
    return encode_auth({**found, "serveraddress": registry_of(reference)}) if found else ""


def known_for(reference: str, config: Json) -> Found | None:
    """What is known for the registry of `reference`. A helper that fails is warned of."""
    try:
        return find(config, registry_of(reference))
    except HelperError as error:
        # As for a registry that nothing is known of; but the refusal that is to come would be hard to understand.
        say_error(f"WARNING: {error}")
        return None


def config_header(config: Json) -> str:
    """The X-Registry-Config header: everything that is known, for requests that may touch any registry."""
    known = dict.fromkeys([*environment(), *auths(config), *_helped(config)])
    found = {server: auth for server in known if (auth := find(config, server))}
    return encode_auth({server: {**auth, "serveraddress": server} for server, auth in found.items()})


def find(config: Json, registry: str) -> Found | None:
    """What is known for `registry`. Raises HelperError."""
    found = _filed(environment(), registry)
    if found is None and (name := helper_of(config, registry)):
        return Helper(name).get(registry)
    return found or _filed(auths(config), registry)


def from_environment(registry: str) -> bool:
    """Whether what is known for `registry` is in DOCKER_AUTH_CONFIG, and so not to be written anywhere."""
    return _filed(environment(), registry) is not None


def helper_of(config: Json, registry: str) -> str:
    """The name of the helper that is in charge of `registry`, "" for none."""
    helpers = config.get("credHelpers")
    own = helpers.get(registry) if isinstance(helpers, dict) else None
    return str(own or config.get("credsStore") or "")


def keep(config_dir: str, config: Json, registry: str, auth: Found) -> None:
    """Keep `auth` for `registry` where the configuration says. Raises HelperError, CliError and OSError.

    `username` is kept with an identity token too, for the next login to offer.
    """
    name = helper_of(config, registry) or _default_helper(config)
    token = auth.get("identitytoken", "")
    if name:
        user, secret = (TOKEN_USER, token) if token else (auth["username"], auth["password"])
        Helper(name).store(registry, user, secret)
        entry = {}
    else:
        entry = as_entry(auth)

    if not name and auths(config).get(registry) == entry:
        return

    def edit(content: Json) -> None:
        content["auths"] = {**auths(content), registry: entry}
        if name and not helper_of(content, registry):
            content["credsStore"] = name

    change(config_dir, edit)
    if not name and not token:
        say_error(UNENCRYPTED % path_in(config_dir))


def as_entry(auth: Found) -> Found:
    """`auth` as config.json has it."""
    token = auth.get("identitytoken", "")
    entry = {"auth": _encoded(auth.get("username", ""), "" if token else auth["password"])}
    return {**entry, "identitytoken": token} if token else entry


def forget(config_dir: str, config: Json, registry: str) -> None:
    """Remove what is kept for `registry`. Raises HelperError, CliError and OSError."""
    if name := helper_of(config, registry):
        Helper(name).erase(registry)

    def edit(content: Json) -> None:
        content["auths"] = {server: entry for server, entry in auths(content).items() if server != registry}

    if registry in auths(config):
        change(config_dir, edit)


def auths(config: Json) -> Json:
    """What a config.json has filed itself, by server."""
    auths = config.get("auths")
    return auths if isinstance(auths, dict) else {}


def environment() -> Json:
    """`auths` of DOCKER_AUTH_CONFIG, for machines on which nothing is to be written; a warning where it is unclear."""
    try:
        return read_environment()
    except ValueError as error:
        say_error(f"Failed to create credential store from {error}")
        return {}


def read_environment() -> Json:
    """`auths` of what DOCKER_AUTH_CONFIG holds. Raises ValueError, which does not say what it holds: that is secret."""
    text = os.environ.get(ENVIRONMENT)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("auths"), dict):
        raise ValueError(f'{ENVIRONMENT}: it is no JSON object with "auths"')
    found: Json = value["auths"]
    return found


def _helped(config: Json) -> list[str]:
    """The servers that the helpers in charge know."""
    helpers = config.get("credHelpers")
    own = list(helpers) if isinstance(helpers, dict) else []
    store = config.get("credsStore")
    return [*own, *(Helper(str(store)).list() if store else {})]


def _filed(auths: Json, registry: str) -> Found | None:
    """By its key, or by one of old that names the same host with a scheme and a path."""
    entry = auths.get(registry)
    if entry is None and registry != HUB:
        entry = next((entry for key, entry in auths.items() if hostname(key) == registry), None)
    if not isinstance(entry, dict):
        return None
    user, _, password = _decoded(entry.get("auth"))
    found = {"username": user} if user else {}
    if token := entry.get("identitytoken"):
        return {**found, "identitytoken": str(token)}
    return {**found, "password": password.rstrip("\0")} if user else None


def _decoded(auth: object) -> tuple[str, str, str]:
    try:
        return base64.b64decode(auth if isinstance(auth, str) else "").decode().partition(":")
    except ValueError:
        return "", "", ""


def _encoded(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def _default_helper(config: Json) -> str:
    """As Docker on Linux: the one of `pass` or of the desktop, where it is installed and nothing is kept yet."""
    from shutil import which

    if auths(config) or config.get("credHelpers"):
        return ""
    name = "pass" if which("pass") else "secretservice"
    return name if which(f"docker-credential-{name}") else ""

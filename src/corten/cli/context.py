"""Where the daemon is, by flags, environment and Docker's own configuration; and the streams of the process.

Order, as Docker's: --context, -H, DOCKER_HOST, DOCKER_CONTEXT, `currentContext` of config.json, our default socket.
"""

from __future__ import annotations

import os
import sys

from corten.cli.errors import CliError
from corten.cli.harmless import harmless
from corten.cli.terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from corten.cli.flags import Options
    from corten.client.client import Client
    from corten.client.transport import TlsFiles

PROGRAM = "corten"
DEFAULT_HOST = "unix:///run/corten/corten.sock"


class Context:
    """What a command works with. `client` is connected at its first request, not before."""

    def __init__(self, globals_: Options) -> None:
        self.globals = globals_
        self._client: Client | None = None
        self._config: dict[str, Any] | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            from corten import __version__
            from corten.client.client import Client
            from corten.client.errors import BadEndpoint
            from corten.client.transport import parse_endpoint

            host, tls = self.endpoint()
            agent = f"Corten-Client/{__version__} (linux)"
            version = os.environ.get("DOCKER_API_VERSION") or None
            try:
                endpoint = parse_endpoint(host, tls)
            except BadEndpoint as error:
                raise _failed(error) from None
            self._client = Client(endpoint, version=version, user_agent=agent)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.session.close()

    @property
    def config_dir(self) -> str:
        given = self.globals["config"] or os.environ.get("DOCKER_CONFIG")
        return given or os.path.join(os.path.expanduser("~"), ".docker")

    @property
    def config(self) -> dict[str, Any]:
        """config.json; empty when there is none or it cannot be read, of which the user is warned."""
        if self._config is None:
            self._config = _read_json(os.path.join(self.config_dir, "config.json"))
        return self._config

    def context_name(self) -> str:
        """The context in force: "default" when the host comes from a flag, the environment or our default."""
        if self.globals["context"]:
            return str(self.globals["context"])
        if self.globals["host"] or os.environ.get("DOCKER_HOST"):
            return "default"
        return os.environ.get("DOCKER_CONTEXT") or self.config.get("currentContext") or "default"

    def endpoint(self) -> tuple[str, TlsFiles | None]:
        if self.globals["context"] and self.globals["host"]:
            raise CliError("conflicting options: cannot specify both --host and --context")
        name = self.context_name()
        if name != "default":
            from corten.cli.contextstore import load_context

            try:
                return load_context(self.config_dir, name)
            except CliError as error:
                raise _failed(error) from None
        hosts: list[str] = self.globals["host"]
        if len(hosts) > 1:
            raise CliError("specify only one -H", 125)
        host = hosts[0] if hosts else os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        return host, self._tls()

    def _tls(self) -> TlsFiles | None:
        options = self.globals
        verify = options["tlsverify"] or bool(os.environ.get("DOCKER_TLS_VERIFY"))
        if not (verify or options["tls"] or bool(os.environ.get("DOCKER_TLS"))):
            return None
        from corten.client.transport import TlsFiles

        folder = os.environ.get("DOCKER_CERT_PATH") or self.config_dir

        def file(option: str, name: str) -> str | None:
            path = os.path.join(folder, name)
            given = options[option]
            if given:
                return str(given)
            return path if os.path.exists(path) else None

        return TlsFiles(
            file("tlscacert", "ca.pem"), file("tlscert", "cert.pem"), file("tlskey", "key.pem"), verify=verify
        )


def _failed(error: Exception) -> CliError:
    return CliError(f"Failed to initialize: unable to resolve docker endpoint: {error}")


def _read_json(path: str) -> dict[str, Any]:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        say_error(f"WARNING: Error loading config file: {path}: {error}")
        return {}
    return value if isinstance(value, dict) else {}


def say(text: str) -> None:
    """A line on stdout; as it is when a program reads it."""
    sys.stdout.write((harmless(text) if is_terminal(1) else text) + "\n")


def say_error(text: str) -> None:
    """A line on stderr, after all that was said on stdout."""
    sys.stdout.flush()
    sys.stderr.write(harmless(text) + "\n")
    sys.stderr.flush()


def fail(message: str, code: int = 1) -> NoReturn:
    raise CliError(message, code)

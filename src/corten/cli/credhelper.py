"""Programs that keep credentials, `docker-credential-NAME`: a verb as argument, what it is about on standard input."""

from __future__ import annotations

import json
import os

from corten.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOT_FOUND = "credentials not found in native keychain"
TOKEN_USER = "<token>"
"""In the place of a name: the secret is an identity token."""

TIMEOUT = 120.0
"""Seconds; a helper may ask the user to unlock something."""

_MAX_SHOWN = 500


class HelperError(CliError):
    """The helper is not there, did not do it, or answered what is no answer. The message has no secret in it."""


class Helper:
    """One helper program by its NAME. A secret goes to it on standard input alone, never as an argument."""

    def __init__(self, name: str) -> None:
        self.program = f"docker-credential-{name}"

    def get(self, server: str) -> dict[str, str] | None:
        """`username` and `password`, or `identitytoken`; None when it knows nothing of `server`."""
        try:
            answer = _object(self._run("getting", "get", server))
        except _UnknownError:
            return None
        user, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
        return {"identitytoken": secret} if user == TOKEN_USER else {"username": user, "password": secret}

    def store(self, server: str, username: str, secret: str) -> None:
        body = json.dumps({"ServerURL": server, "Username": username, "Secret": secret})
        self._run("storing", "store", body, secret)

    def erase(self, server: str) -> None:
        """What is not there is erased already."""
        try:
            self._run("erasing", "erase", server)
        except _UnknownError:
            return

    def list(self) -> dict[str, str]:
        """The servers that it knows, with the name of the user at each."""
        return {str(server): str(user) for server, user in _object(self._run("listing", "list", "unused")).items()}

    def _run(self, doing: str, verb: str, given: str, secret: str = "") -> bytes:
        import subprocess

        try:
            done = subprocess.run([self.program, verb], input=given.encode(), capture_output=True, timeout=TIMEOUT)
        except FileNotFoundError:
            cause, output = f'exec: "{self.program}": executable file not found in $PATH', b""
        except subprocess.TimeoutExpired:
            cause, output = f"no answer within {TIMEOUT:g} seconds", b""
        except OSError as error:
            cause, output = f"exec: {self.program}: {os.strerror(error.errno or 0).lower()}", b""
        else:
            if done.returncode == 0:
                return done.stdout
            cause, output = f"exit status {done.returncode}", done.stdout
        said = output.decode("utf-8", "replace").strip()
        if said == NOT_FOUND:
            raise _UnknownError(said)
        if secret:
            said = said.replace(secret, "*****")
        raise HelperError(f"error {doing} credentials - err: {cause}, out: `{said[:_MAX_SHOWN]}`")


class _UnknownError(HelperError):
    pass


def _object(output: bytes) -> dict[str, Any]:
    # What cannot be read is not shown: it may hold the secret.
    try:
        value = json.loads(output or b"{}")
    except ValueError:
        raise HelperError("the credential helper's answer is not JSON") from None
    if not isinstance(value, dict):
        raise HelperError("the credential helper's answer is no JSON object")
    return value

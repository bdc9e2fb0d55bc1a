"""`corten login` and `corten logout`."""

from __future__ import annotations

import os
import sys

from corten.cli import credentials
from corten.cli.context import PROGRAM, Context, say, say_error
from corten.cli.credentials import HUB, hostname
from corten.cli.errors import CliError
from corten.cli.failure import describe
from corten.cli.flags import Command, Flag, Options
from corten.cli.terminal import Hidden, is_terminal
from corten.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.cli.credentials import Found

_HUB_NAMES = ("", "docker.io")


def _login(context: Context, options: Options) -> None:
    user, password = options["username"], _password(options)
    if os.environ.get(credentials.ENVIRONMENT):
        say_error(f"WARNING: {credentials.ENVIRONMENT} is set and takes precedence.\n")
    given = options.args[0] if options.args else ""
    server = HUB if given in _HUB_NAMES or given == HUB else hostname(given)
    stored = _stored(context, server) if not user and not password else None
    if stored is not None and _again(context, server, stored):
        return
    auth = _asked(user, password, server, (stored or {}).get("username", ""))
    status, auth = _log_in(context, server, auth)
    _keep(context, server, auth)
    say(status)


def _password(options: Options) -> str:
    """From the flag or from standard input, "" for neither."""
    password = str(options["password"])
    if password and options["password-stdin"]:
        raise CliError("conflicting options: cannot specify both --password and --password-stdin")
    if password:
        say_error("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if not options["password-stdin"]:
        return password
    if not options["username"]:
        raise CliError("the --password-stdin option requires --username to be set")
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    return text.removesuffix("\n").removesuffix("\r")


def _stored(context: Context, server: str) -> Found | None:
    try:
        return credentials.find(context.config, server)
    except CliError:
        return None  # The helper has its chance to complain when something is to be stored.


def _again(context: Context, server: str, stored: Found) -> bool:
    """Whether what is stored lets us in still."""
    user = stored.get("username", "")
    say_error("Authenticating with existing credentials..." + (f" [Username: {user}]" if user else ""))
    _note(f"To login with a different account, run '{PROGRAM} logout' followed by '{PROGRAM} login'")
    try:
        status, auth = _log_in(context, server, stored)
    except ApiError as error:
        if error.status == 401:
            say_error("Stored credentials invalid or expired")
        else:
            say_error(f"Login did not succeed, error: {describe(error)}")
        return False
    if auth != stored and not credentials.from_environment(server):
        _keep(context, server, auth)
    say(status)
    return True


def _note(text: str) -> None:
    say_error(f"\n{'i Info →' if is_terminal(2) else ' Info ->'} {text}\n\n")


def _asked(user: str, password: str, server: str, known: str) -> Found:
    """Name and password, what is missing of them asked for."""
    user = user.strip()
    if (not user or not password) and not is_terminal(0):
        raise CliError("Error: Cannot perform an interactive login from a non TTY device")
    if not user:
        if server == HUB:
            say(
                "Log in with your Docker ID or email address to push and pull images from Docker Hub. If you don't"
                " have a Docker ID, head over to https://hub.docker.com/ to create one.\n"
            )
        user = _line(f"Username ({known}): " if known else "Username: ").strip() or known
        if not user:
            raise CliError("Error: Non-null Username Required")
    if not password:
        with Hidden(0):
            password = _line("Password: ")
        say("")
        if not password:
            raise CliError("Error: Password Required")
    return {"username": user, "password": password}


def _line(prompt: str) -> str:
    sys.stdout.write(prompt)
    sys.stdout.flush()
    return sys.stdin.readline().rstrip("\r\n")


def _log_in(context: Context, server: str, auth: Found) -> tuple[str, Found]:
    """The daemon asks the registry. What is to be said, and what is to be kept."""
    answer = context.client.system.login({**auth, "serveraddress": server})
    if token := answer.get("IdentityToken"):
        auth = {"username": auth.get("username", ""), "identitytoken": token}
    return str(answer.get("Status") or ""), auth


def _keep(context: Context, server: str, auth: Found) -> None:
    try:
        credentials.keep(context.config_dir, context.config, server, auth)
    except (CliError, OSError) as error:
        raise CliError(f"Error saving credentials: {describe(error)}") from None


def _logout(context: Context, options: Options) -> None:
    given = options.args[0] if options.args else ""
    if given in _HUB_NAMES or given == HUB:
        host, keys = HUB, [HUB]
    else:
        host = hostname(given)
        # As it may have been filed by clients of old.
        keys = list(dict.fromkeys([given, host, f"http://{host}", f"https://{host}"]))
    say(f"Removing login credentials for {host}")
    failures = []
    for key in keys:
        try:
            credentials.forget(context.config_dir, context.config, key)
        except (CliError, OSError) as error:
            failures.append(f"{key}: {describe(error)}")
    if len(failures) == len(keys):
        say_error("WARNING: could not erase credentials:\n" + "\n".join(failures))


LOGIN = Command(
    "login",
    "[OPTIONS] [SERVER]",
    _login,
    (
        Flag("password", "p", "string", "Password or personal access token"),
        Flag("password-stdin", "", "bool", "Take the password or personal access token from stdin"),
        Flag("username", "u", "string", "Username"),
    ),
    most=1,
)
LOGOUT = Command("logout", "[SERVER]", _logout, most=1)

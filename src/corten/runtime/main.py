"""`corten-runtime`: the embedded runtime under the OCI command line, with runc's commands and options.

words --> a sealed interpreter (program) --> options --> commands --> operations
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from corten import __version__
from corten.errors import CortenError, InvalidArgument, NotImplementedYet, StartFailed
from corten.runtime.oci import inherited, options
from corten.runtime.oci.log import Log
from corten.runtime.oci.program import run_sealed
from corten.specs.oci_runtime import VERSION

_FAILED_EXEC = 255  # runc's word for an exec that has come to nothing


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0, the code of the process that was waited for, or 1 with a message."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        run_sealed(words)
    try:
        name, general, own = options.parse(words)
        log = _log(general)
    except InvalidArgument as error:
        _exit(_fail(Log(), error, 1))
    if general.has("version"):
        sys.stdout.write(f"corten-runtime version {__version__}\nspec: {VERSION}\n")
        _exit(0)
    if general.has("help") or not name or own.has("help"):
        sys.stdout.write(options.help_text(name))
        _exit(0)
    try:
        _exit(_run(name, general, own, log))
    except (CortenError, OSError) as error:
        _exit(_fail(log, error, _code(name, error)))


def _run(name: str, general: options.Options, own: options.Options, log: Log) -> int:
    _check_general(general, log)
    if name in ("create", "run", "exec"):
        inherited.count(own)
    from pathlib import Path

    from corten.runtime.oci.commands import COMMANDS
    from corten.runtime.oci.state import DEFAULT_ROOT, Store

    store = Store(Path(general.text("root") or DEFAULT_ROOT), log, systemd_cgroup=general.has("systemd-cgroup"))
    return COMMANDS[name](store, own)


def _log(general: options.Options) -> Log:
    style = general.text("log-format", "text")
    if style not in ("text", "json"):
        raise InvalidArgument(f"--log-format {style!r}: text or json")
    return Log(general.text("log"), style, verbose=general.has("debug"))


def _check_general(general: options.Options, log: Log) -> None:
    rootless = general.text("rootless", "auto")
    if rootless not in ("true", "false", "auto"):
        raise InvalidArgument(f"--rootless {rootless!r}: true, false or auto")
    if rootless == "true":
        raise NotImplementedYet("--rootless true is not supported: errors of control groups are not passed over")
    if general.given("criu"):
        log.warning("--criu is passed over: there is no checkpoint and restore")


def _fail(log: Log, error: Exception, code: int) -> int:
    log.error(str(error))
    return code


def _code(name: str, error: Exception) -> int:
    """126 and 127 as a shell has them, for a program that cannot be run and one that is not there."""
    if name in ("run", "exec") and isinstance(error, StartFailed) and error.exit_code in (126, 127):
        return error.exit_code
    return _FAILED_EXEC if name == "exec" else 1


def _exit(code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 1
    # Not sys.exit: a container may share our standard streams, which must not be touched any more.
    os._exit(code)


if __name__ == "__main__":
    main()

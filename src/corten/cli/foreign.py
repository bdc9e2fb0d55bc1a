"""Flags of docker's that mean nothing here: refused in its words where they are given, as none is without effect."""

from __future__ import annotations

from corten.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.cli.flags import Options

_WINDOWS = ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")


def refuse_windows(options: Options) -> None:
    for name in _WINDOWS:
        if options[name]:
            raise CliError(
                f'"--{name}" is only supported on a Docker daemon running on windows, '
                "but the Docker daemon is running on linux"
            )


def refuse_trust(options: Options, code: int = 1) -> None:
    """docker asks a Notary server then, of a kind that is no longer run."""
    if not options["disable-content-trust"]:
        raise CliError("content trust is not supported: --disable-content-trust cannot be false", code)

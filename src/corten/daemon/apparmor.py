"""Giving the kernel the profile of `engine.spec.apparmor`, at the start of the daemon."""

from __future__ import annotations

import logging
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from corten.engine.spec import apparmor

log = logging.getLogger(__name__)
ENABLED = Path("/sys/module/apparmor/parameters/enabled")
OWN_LABELS = (Path("/proc/self/attr/apparmor/current"), Path("/proc/self/attr/current"))
PARSER_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
PARSER_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Confinement:
    """`profile` is the one for containers that name none, "" where there is none. `fault` says what went wrong."""

    profile: str = ""
    fault: str = ""


def install() -> Confinement:
    """Load the profile, replacing an older one. Blocks; nothing is done where the kernel does not use AppArmor.

    A host without the parser has no AppArmor for Docker either. A parser that fails, as in a container that has one
    and may not use it, is a fault that the daemon reports and goes on without.
    """
    if _text(ENABLED) != "Y":
        return Confinement()
    parser = shutil.which("apparmor_parser", path=PARSER_PATH)
    if parser is None:
        log.info("AppArmor is enabled, but apparmor_parser is not installed: containers run without a default profile")
        return Confinement()
    label = next(filter(None, map(_text, OWN_LABELS)), "")
    # --replace also loads one that is not there; the cache would outlive an upgrade of Corten.
    command = [parser, "--replace", "--skip-cache", "--quiet"]
    try:
        done = subprocess.run(
            command, input=apparmor.profile(label), capture_output=True, text=True, timeout=PARSER_SECONDS, check=False
        )
        fault = " ".join(done.stderr.split()) if done.returncode else ""
        failed = done.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        failed, fault = True, str(error)
    if not failed:
        return Confinement(apparmor.NAME)
    fault = f"the AppArmor profile {apparmor.NAME} could not be loaded: {fault[:400]}"
    log.warning("%s; containers run without it", fault)
    return Confinement("", fault)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip("\0\n ")
    except OSError:
        return ""

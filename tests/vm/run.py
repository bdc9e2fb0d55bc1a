"""Run tests in a virtual machine with systemd, pure cgroup v2 and Debian 12's kernel (6.1).

    scripts/test-vm [--emulate] [--limit SECONDS] [PYTEST-ARGUMENTS]

Without arguments the usual set runs, in two machines at a time: tests/vm and most of tests/kernel. Prints what
pytest prints; the exit status is pytest's, or 99 when a machine did not come to an end. docs/design/testing-v2.md says
more.
"""

from __future__ import annotations

import argparse
import io
import resource
import shlex
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.vm import qemu
from tests.vm.image import TOP, image, say

# Left out because it starts dozens of interpreters, which takes minutes here, for words that no kernel changes.
WORDS = [f"tests/kernel/test_oci_{name}.py" for name in ("cli", "bad_input", "hooks", "options")]
MORE_WORDS = ["corten-runtime", "a_profile_that_cannot_be", "command_line_refuses"]  # parts of names of tests
# Run beside tests/vm, so that both machines take about as long.
APART = [f"tests/kernel/test_{name}.py" for name in ("storage", "netlink", "network_contract", "network_traffic")]
# A machine for each set, as one machine's tests keep one processor busy.
SETS = {
    "1 | ": ["tests/vm", *APART],
    "2 | ": [
        "tests/kernel",
        *(f"--ignore={path}" for path in WORDS + APART),
        "-k",
        f"not {' and not '.join(MORE_WORDS)}",
    ],
}
LIMIT = 2400  # seconds
PATIENCE = 6  # times longer than on a machine that is not emulated


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test-vm", allow_abbrev=False)
    parser.add_argument("--emulate", action="store_true", help="do not use /dev/kvm, even if it works")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds after which the machine is ended")
    options, arguments = parser.parse_known_args()
    began = time.monotonic()
    built = image()
    processor = qemu.EMULATED if options.emulate else qemu.accelerator(built)
    patience = PATIENCE if processor == qemu.EMULATED else 2
    sets = {mark: ["-v", "--durations=10", *paths] for mark, paths in SETS.items()}
    if arguments:
        sets = {"": arguments}

    def run(mark: str) -> int:
        with tempfile.NamedTemporaryFile(prefix="corten-vm-", dir="/var/tmp") as sources:
            pack(Path(sources.name), sets[mark], patience)
            return qemu.boot(built, Path(sources.name), processor, qemu.Limits(options.limit), mark)

    say(f"booting ({processor[1]}) after {time.monotonic() - began:.0f} s")
    with ThreadPoolExecutor() as pool:
        status = max(pool.map(run, sets))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    say(f"status {status} after {time.monotonic() - began:.0f} s; {used.ru_utime + used.ru_stime:.0f} s of processor")
    return status


def pack(path: Path, arguments: list[str], patience: int) -> None:
    """An archive of what the tests need from this tree, and the command that runs them."""
    pytest = ["python3", "-u", "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    settings = {"CORTEN_TEST_VM": "1", "CORTEN_TEST_PATIENCE": str(patience)}
    script = "".join(f"export {name}={value}\n" for name, value in settings.items()) + shlex.join(pytest) + "\n"
    with tarfile.open(path, "w") as archive:
        for name in ("src", "tests", "pyproject.toml"):
            archive.add(TOP / name, name, filter=_plain)
        member = tarfile.TarInfo("vm-tests")
        member.size = len(script.encode())
        archive.addfile(member, io.BytesIO(script.encode()))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    return None if member.name.endswith("__pycache__") else member


if __name__ == "__main__":
    sys.exit(main())

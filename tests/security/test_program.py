"""CVE-2019-5736: a container overwrites the runtime's program, which it reaches as /proc/self/exe or /proc/PID/exe.

The tests stand on a copy of the interpreter in a temporary directory, so that one that fails does no harm.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from corten.linux import capability
from corten.linux.memfd import is_sealed
from corten.runtime.types import LaunchRequest
from corten.specs.oci_runtime import Capabilities
from tests.kernel.boxes import Boxes, Terminal, boxes, needs_root
from tests.kernel.test_oci_cli import Bundle
from tests.kernel.test_oci_cli import bundle as bundle
from tests.security.attacker import PYTHON, python_mounts

pytestmark = [pytest.mark.root, needs_root]

# Run by the runtime's own program inside the container, whose exe it therefore is. It keeps that open for reading,
# becomes something else, and tries to open it for writing and to write.
OVERWRITE = """
import os, sys
program = os.open("/proc/self/exe", os.O_RDONLY)
status = os.fstat(program)
sys.stdout.write(f"{status.st_dev} {status.st_ino}\\n")
sys.stdout.flush()
os.set_inheritable(program, True)
os.execv("/bin/sh", ["sh", "-c", f"echo overwritten > /proc/self/fd/{program}; echo done"])
"""
EVIL = "#!/proc/self/exe\n" + OVERWRITE


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the interpreter that the runtime is started from instead of the host's."""
    made = tmp_path / os.path.basename(PYTHON)
    shutil.copy(PYTHON, made)
    monkeypatch.setattr(sys, "_base_executable", str(made))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(sysconfig.get_config_var("LIBDIR")))
    return made


def identity(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev} {status.st_ino}"


def run(tmp_path: Path, work: Callable[[Boxes], Awaitable[None]]) -> None:
    async def main() -> None:
        async with boxes(tmp_path) as made:
            await work(made)

    asyncio.run(main())


def with_evil(b: Boxes, name: str, *args: str, capabilities: tuple[str, ...] = ()) -> LaunchRequest:
    """A container whose image has a Python and the attack as /bin/evil."""
    (b.base / "root/bin/evil").write_text(EVIL)
    (b.base / "root/bin/evil").chmod(0o755)
    request = b.request(name, *args)
    request.spec.mounts += python_mounts()
    assert request.spec.process is not None
    names = ["CAP_DAC_OVERRIDE", *capabilities]
    request.spec.process.capabilities = Capabilities(bounding=names, effective=names, permitted=names)
    return request


def check_untouched(victim: Path, output: str) -> None:
    assert "done" in output, output
    assert output.split("\n")[0] != identity(victim), "the host's program was the container's to open"
    with open(victim, "rb") as tried, open(PYTHON, "rb") as original:
        assert tried.read() == original.read()


def test_the_first_process_is_the_runtimes_program(tmp_path: Path, victim: Path) -> None:
    """The image's entry point is a script with `#!/proc/self/exe`. The defence: `start_process` of
    runtime/spawner_process.py executes a sealed copy (linux/memfd.py). With executable=program there, the identity
    printed is the victim's."""

    async def work(b: Boxes) -> None:
        await b.client.launch(with_evil(b, "c", "/bin/evil"), ())
        await b.exit_of("c")
        check_untouched(victim, b.logged("c"))

    run(tmp_path, work)


def test_exec_is_the_runtimes_program(tmp_path: Path, victim: Path) -> None:
    """The same by `docker exec`, the way in which it was found."""

    async def work(b: Boxes) -> None:
        await b.client.launch(with_evil(b, "c", "sleep", "1000"), ())
        terminal = Terminal()
        await b.exec("c", "x", "/bin/evil", streams=(terminal.stream,))
        check_untouched(victim, (await terminal.read_all()).decode())

    run(tmp_path, work)


@pytest.mark.parametrize("capability", ["", "CAP_SYS_PTRACE"])
def test_init_is_the_runtimes_program(tmp_path: Path, victim: Path, capability: str) -> None:
    """`--init` stands in the container all its life as its pid 1. Without CAP_SYS_PTRACE its exe cannot be opened, as
    it is not dumpable (PR_SET_DUMPABLE in `launch`); with it, it is a sealed copy."""
    script = "ls -iL /proc/1/exe; echo overwritten > /proc/1/exe; echo done"

    async def work(b: Boxes) -> None:
        (b.base / "root/bin/ls").symlink_to("busybox")
        # What init has, too: the kernel denies it to processes with less, whatever init's dumpable flag is.
        capabilities = ("CAP_KILL", capability) if capability else ("CAP_KILL",)
        request = with_evil(b, "c", "sh", "-c", script, capabilities=capabilities)
        object.__setattr__(request, "init", True)
        await b.client.launch(request, ())
        assert (await b.exit_of("c")).code == 0
        output = b.logged("c")
        assert "done" in output
        assert str(victim.stat().st_ino) not in output
        assert output.count("Permission denied") == (0 if capability else 2)
        assert not capability or "Text file busy" in output or "not permitted" in output

    run(tmp_path, work)


def test_spawner_shim_and_init_run_from_sealed_copies(tmp_path: Path, victim: Path) -> None:
    """As a privileged container with the host's pids sees them. The defence is the one above, kept by forks."""

    async def work(b: Boxes) -> None:
        request = b.request("c", "sleep", "1000")
        object.__setattr__(request, "init", True)
        pid = (await b.client.launch(request, ())).pid
        shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        for process in (b.client.spawner_pid, shim, pid):
            assert is_sealed(f"/proc/{process}/exe"), process
            with pytest.raises(OSError, match=r"not permitted|busy"):
                os.write(os.open(f"/proc/{process}/exe", os.O_WRONLY), b"overwritten")

    run(tmp_path, work)


def test_spawner_shim_and_init_are_not_dumpable(tmp_path: Path) -> None:
    """What has all of our capabilities, save CAP_SYS_PTRACE in effect, still cannot trace them, read their memory, or
    have them dump it.

    The defence: PR_SET_DUMPABLE 0 in `main` of runtime/spawner.py, inherited by shims and init, and again in `_clone`
    of runtime/child/launch.py. With 1 in both places PTRACE_SEIZE succeeds.
    """

    async def work(b: Boxes) -> None:
        request = b.request("c", "sleep", "1000")
        object.__setattr__(request, "init", True)
        pid = (await b.client.launch(request, ())).pid
        shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if _seize(os.getpid()):
            pytest.skip("Yama forbids it whatever the flag is")
        assert [_seize(process) for process in (b.client.spawner_pid, shim, pid)] == [errno.EPERM] * 3

    run(tmp_path, work)


def _seize(pid: int) -> int:
    """The errno of PTRACE_SEIZE by a process that has our capabilities permitted, and none in effect."""
    child = os.fork()
    if child == 0:
        try:
            _, permitted, inheritable = capability.capget()
            capability.capset(0, permitted, inheritable)
            libc = ctypes.CDLL(None, use_errno=True)
            os._exit(0 if libc.ptrace(0x4206, pid, None, None) == 0 else ctypes.get_errno())
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def evil_bundle(bundle: Bundle) -> Bundle:
    root = bundle.directory / "rootfs"
    (root / "bin/evil").write_text(EVIL)
    (root / "bin/evil").chmod(0o755)
    mounts = [
        {"destination": mount.destination, "type": "bind", "source": mount.source, "options": mount.options}
        for mount in python_mounts()
    ]
    mounts.insert(0, {"destination": "/proc", "type": "proc", "source": "proc"})
    bundle.edit("/bin/evil", mounts=mounts, root={"path": "rootfs"})
    return bundle


def test_the_command_line_runtime_runs_from_a_copy(evil_bundle: Bundle, victim: Path) -> None:
    """As podman and containerd would call it, for run and for exec. The defence: `run_sealed` of
    runtime/oci/program.py. Without it the victim is overwritten: nobody runs it any more when the attack writes."""
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": f"{source}:{sysconfig.get_path('purelib')}"}
    command = [str(victim), *evil_bundle.command("run", "--bundle", str(evil_bundle.directory), "oci")[1:]]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    check_untouched(victim, ran.stdout)
    evil_bundle.edit("sleep", "1000")
    detached = evil_bundle.command("run", "--detach", "--bundle", str(evil_bundle.directory), "oci")
    subprocess.run(detached, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30, check=True)
    command = [str(victim), *evil_bundle.command("exec", "oci", "/bin/evil")[1:]]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    check_untouched(victim, ran.stdout)

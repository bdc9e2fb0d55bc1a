"""Booting the test machine: emulated or accelerated, its console shown as it comes, ended when it hangs."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from tests.vm.image import Image

# No network at all: what goes in is a disk, what comes out two serial lines.
MACHINE = "-m 3072 -smp 2 -no-reboot -nic none -display none -monitor none -serial stdio".split()
CONSOLE = "console=ttyS0 rw quiet loglevel=3 panic=-1 systemd.show_status=false systemd.log_level=warning"
# Spared is what costs much under emulation and is not what the tests look at: with it, starting a program takes twice
# as long. The first clock that the kernel would choose leaves the emulator for each reading.
CONSOLE += " mitigations=off no5lvl audit=0 tsc=reliable"
EMULATED = ("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max,-la57,-smap,-smep,-umip")
# Without the bits that a virtual machine as host cannot pass on, on some of which QEMU would abort.
ACCELERATED = ("-accel", "kvm", "-cpu", "host,-arch-capabilities")
NO_END = 99  # the machine did not say how its tests ended


class Limits:
    """Seconds: until the tests begin, without any output, and in all."""

    def __init__(self, total: float) -> None:
        self.boot, self.silence, self.total = 300.0, 400.0, total


def accelerator(image: Image) -> tuple[str, ...]:
    """QEMU's options for the processor: KVM if it is seen to boot this kernel, else emulation."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return EMULATED
    with tempfile.TemporaryDirectory() as scratch:
        said = Path(scratch) / "said"
        command = _command(image, ACCELERATED, said, "corten.probe")
        try:
            quiet = subprocess.DEVNULL
            subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=10, check=False)
        except subprocess.TimeoutExpired:
            return EMULATED
        return ACCELERATED if said.exists() and said.read_text().strip() == "alive" else EMULATED


def boot(image: Image, sources: Path, processor: tuple[str, ...], limits: Limits, mark: str = "") -> int:
    """Run the machine with the archive `sources` as its second disk, show what it prints, return the tests' status.

    With a `mark`, which begins each line, several machines can be run at a time.
    """
    with tempfile.TemporaryDirectory(prefix="corten-vm-", dir="/var/tmp") as scratch:
        said = Path(scratch) / "said"
        command = _command(image, processor, said)
        command += ["-drive", f"file={image.disk},format=raw,if=virtio,cache=unsafe,snapshot=on"]
        command += ["-drive", f"file={sources},format=raw,if=virtio,readonly=on"]
        environment = {**os.environ, "TMPDIR": scratch}  # where the changes to the disk go
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as machine:
            watch = _Watch(machine, said, limits)
            watch.start()
            try:
                _show(machine, watch, mark)
            finally:
                machine.kill()
                watch.done.set()
        if watch.complaint:
            print(f"==> {mark}{watch.complaint}", flush=True)
            return NO_END
        words = said.read_text().split() if said.exists() else []
        return int(words[-1]) if "status" in words else NO_END


def _command(image: Image, processor: tuple[str, ...], said: Path, more: str = "") -> list[str]:
    # Whatever ends this program, Ctrl-C or a kill, ends the machine.
    command = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *processor, *MACHINE, "-serial", f"file:{said}"]
    return [*command, "-kernel", str(image.kernel), "-initrd", str(image.initial), "-append", f"{CONSOLE} {more}"]


def _show(machine: subprocess.Popen[bytes], watch: _Watch, mark: str) -> None:
    """At once what comes; whole lines if they are marked."""
    assert machine.stdout is not None
    held = b""
    while data := os.read(machine.stdout.fileno(), 1 << 16):
        watch.heard = time.monotonic()
        data = data.replace(b"\r\n", b"\n")
        if mark:
            *lines, held = (held + data).split(b"\n")
            data = b"".join(mark.encode() + line + b"\n" for line in lines)
        os.write(1, data)
    if held:
        os.write(1, mark.encode() + held + b"\n")


class _Watch(threading.Thread):
    """Ends a machine that keeps none of its limits, and says which one."""

    def __init__(self, machine: subprocess.Popen[bytes], said: Path, limits: Limits) -> None:
        super().__init__(daemon=True)
        self.machine, self.said, self.limits = machine, said, limits
        self.begun = self.heard = time.monotonic()
        self.done = threading.Event()
        self.complaint = ""

    def run(self) -> None:
        while not self.done.wait(1) and not (complaint := self._late()):
            pass
        if not self.done.is_set():
            self.complaint = complaint
            self.machine.kill()

    def _late(self) -> str:
        now, limits = time.monotonic(), self.limits
        if now - self.begun > limits.total:
            return f"the machine has not come to an end within {limits.total:.0f} s"
        if now - self.begun > limits.boot and not (self.said.exists() and "started" in self.said.read_text()):
            return f"the machine has not begun its tests within {limits.boot:.0f} s"
        if now - self.heard > limits.silence:
            return f"the machine has printed nothing for {limits.silence:.0f} s"
        return ""

"""What `scripts/test-vm` does outside its machine: that no failure and no hang in there can pass for success."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.vm import cpio, qemu, run
from tests.vm.image import TOP, Image, digest
from tests.waiting import until

SAID = "for word; do case $word in file:*) said=${word#file:};; esac; done\n"


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that stands for QEMU; a test writes it."""
    program = tmp_path / "qemu-system-x86_64"
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def boot(emulator: Path, script: str, **limits: float) -> int:
    emulator.write_text("#!/bin/sh\n" + SAID + script)
    nothing = emulator.parent / "nothing"
    kept = qemu.Limits(60)
    for name, seconds in limits.items():
        setattr(kept, name, seconds)
    return qemu.boot(Image(nothing, nothing, nothing), nothing, qemu.EMULATED, kept)


def test_the_status_is_that_of_the_tests(emulator: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert boot(emulator, "echo started >$said; printf 'a test\\r\\n'; echo status 0 >>$said") == 0
    assert capfd.readouterr().out == "a test\n"
    assert boot(emulator, "echo started >$said; echo status 1 >>$said") == 1
    assert boot(emulator, "echo started >$said; echo status 137 >>$said") == 137


def test_lines_of_two_machines_do_not_mix(emulator: Path, capfd: pytest.CaptureFixture[str]) -> None:
    emulator.write_text("#!/bin/sh\nprintf 'one '; sleep 0.1; printf 'line\nanother'\n")
    nothing = emulator.parent / "nothing"
    image = Image(nothing, nothing, nothing)
    assert qemu.boot(image, nothing, qemu.EMULATED, qemu.Limits(60), "a | ") == qemu.NO_END
    assert capfd.readouterr().out == "a | one line\na | another\n"


def test_a_machine_that_says_no_status_has_failed(emulator: Path) -> None:
    assert boot(emulator, "exit 0") == qemu.NO_END
    assert boot(emulator, "echo started >$said; echo status 0") == qemu.NO_END


@pytest.mark.parametrize(
    ("limit", "complaint"), [("total", "not come to an end"), ("boot", "not begun"), ("silence", "printed nothing")]
)
def test_a_machine_that_hangs_is_ended(
    emulator: Path, limit: str, complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert boot(emulator, "exec sleep 1000", **{limit: 0.1}) == qemu.NO_END
    assert complaint in capfd.readouterr().out


def test_what_is_packed(tmp_path: Path) -> None:
    run.pack(tmp_path / "sources.tar", ["-k", "a b"], 6)
    with tarfile.open(tmp_path / "sources.tar") as archive:
        names = archive.getnames()
        script = archive.extractfile("vm-tests")
        assert script is not None
        text = script.read().decode()
    assert "src/corten/daemon/main.py" in names
    assert not [name for name in names if "__pycache__" in name]
    assert "export CORTEN_TEST_PATIENCE=6\n" in text
    assert text.endswith("-k 'a b'\n")


def test_what_is_left_out_is_there() -> None:
    """A file that has got another name would be run, or run twice."""
    assert all((TOP / path).is_file() for path in run.WORDS + run.APART)


def test_the_initial_file_system_can_be_unpacked(tmp_path: Path) -> None:
    modules = tmp_path / "root/lib/modules/6.1"
    (modules / "kernel").mkdir(parents=True)
    for name in ("virtio.ko", "virtio_ring.ko", "virtio-blk.ko", "other.ko"):
        (modules / "kernel" / name).write_text(name)
    lines = ["kernel/virtio-blk.ko: kernel/virtio.ko kernel/virtio_ring.ko", "kernel/other.ko:", "kernel/virtio.ko:"]
    (modules / "modules.dep").write_text("\n".join(lines))
    (tmp_path / "root/bin").mkdir()
    (tmp_path / "root/bin/busybox").write_text("busy")
    archive = cpio.initial_file_system(tmp_path / "root", "6.1")
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run(["/bin/busybox", "cpio", "-id"], input=archive, cwd=place, check=True, capture_output=True)
    assert (place / "virtio-blk.ko").read_text() == "virtio-blk.ko"
    assert not (place / "other.ko").exists()
    script = (place / "init").read_text().splitlines()
    assert script[1:4] == ["insmod /virtio_ring.ko", "insmod /virtio.ko", "insmod /virtio-blk.ko"]
    assert (place / "bin/sh").readlink() == Path("busybox")


def test_another_lock_file_makes_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    assert digest() == before
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/test.txt").write_text("pytest==1\n")
    monkeypatch.setattr("tests.vm.image.TOP", tmp_path)
    assert digest() != before


def test_the_machine_ends_with_its_runner(emulator: Path, tmp_path: Path) -> None:
    emulator.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 1000\n"
    )
    nothing = tmp_path / "nothing"
    call = f"qemu.boot(Image(n, n, n), n, qemu.EMULATED, qemu.Limits(60)) if (n := Path({str(nothing)!r})) else 0"
    program = f"from pathlib import Path; from tests.vm import qemu; from tests.vm.image import Image; {call}"
    with subprocess.Popen([sys.executable, "-c", program], cwd=TOP) as runner:
        pid = until((tmp_path / "pid").exists, what="the machine") and int((tmp_path / "pid").read_text())
        runner.kill()
    until(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the machine")

"""What both runtimes are given to run: busybox, and one specification."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from corten.runtime.oci.documents import default_spec
from corten.runtime.seccomp_profile import default_profile
from corten.specs.oci_runtime import Process, Spec, encode


@dataclass(frozen=True)
class Bundle:
    """A directory as OCI has it; `write` makes its config.json."""

    place: Path

    @property
    def root(self) -> Path:
        return self.place / "rootfs"

    def process(self, args: Sequence[str]) -> Process:
        process = default_spec().process
        assert process is not None
        return structs.replace(process, args=list(args), env=["PATH=/bin"], terminal=False)

    def spec(self, cgroup: str, args: Sequence[str]) -> Spec:
        spec = default_spec()
        assert spec.linux is not None
        assert spec.process is not None
        capabilities = spec.process.capabilities
        granted = capabilities.bounding if capabilities is not None else None
        linux = structs.replace(spec.linux, cgroups_path=cgroup, seccomp=default_profile(granted or ()))
        return structs.replace(spec, process=self.process(args), linux=linux)

    def write(self, cgroup: str, args: Sequence[str]) -> None:
        (self.place / "config.json").write_bytes(encode(self.spec(cgroup, args)))


def make_bundle(place: Path) -> Bundle:
    bundle = Bundle(place)
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (bundle.root / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, bundle.root / "bin/busybox")
    for applet in ("sh", "true", "sleep"):
        (bundle.root / "bin" / applet).symlink_to("busybox")
    (bundle.root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    return bundle

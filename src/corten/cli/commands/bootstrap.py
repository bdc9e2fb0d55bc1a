"""`corten image bootstrap`: a base image from what this host has, with no registry.

busybox comes from the static binary of Debian's busybox-static, debian from mmdebstrap. Each becomes the layer of an
image in the layout of `docker save`, which the daemon loads like any other.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

from corten.cli.commands.archive import load_tar, read_chunks
from corten.cli.context import Context, say_error
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.client.images import split_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

_BUSYBOX_PATHS = ("/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n"
)
_GROUP = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"
_FOLDERS = (
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("var", 0o755),
    ("var/www", 0o755),
)


def _bootstrap(context: Context, options: Options) -> None:
    kind = options.args[0]
    if kind not in ("busybox", "debian"):
        raise CliError(f"cannot make {kind}: it must be busybox or debian")
    if kind == "busybox" and "suite" in options.changed:
        raise CliError("--suite belongs to debian")
    with tempfile.TemporaryDirectory(prefix="corten-bootstrap-") as folder:
        layer = os.path.join(folder, "layer.tar")
        if kind == "busybox":
            default, command = "busybox:latest", ["sh"]
            with open(layer, "wb") as file:
                _busybox_layer(file)
        else:
            default, command = f"debian:{options['suite']}", ["bash"]
            _debian_layer(layer, options["suite"], options["mirror"])
        name = options["tag"] or default
        repo, tag = split_tag(name)
        archive = os.path.join(folder, "image.tar")
        with open(archive, "wb") as file:
            write_image(file, layer, f"{repo}:{tag or 'latest'}", command, f"corten image bootstrap {kind}")
        fd = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
        try:
            load_tar(context, read_chunks(fd), quiet=True)
        finally:
            os.close(fd)


def _busybox_layer(out: IO[bytes]) -> None:
    binary = next((path for path in _BUSYBOX_PATHS if os.path.isfile(path)), None) or shutil.which("busybox")
    if binary is None:
        raise CliError("busybox is not installed: on Debian, apt-get install busybox-static")
    binary = os.path.realpath(binary)
    with open(binary, "rb") as file:
        content = file.read()
    if _is_dynamic(content):
        raise CliError(f"{binary} needs shared libraries: on Debian, apt-get install busybox-static")
    listing = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode in _FOLDERS:
            _add(tar, name, mode, kind=tarfile.DIRTYPE)
        _add(tar, "bin/busybox", 0o755, content)
        for applet in sorted(set(listing.split()) - {"busybox"}):
            _add(tar, f"bin/{applet}", 0o777, kind=tarfile.SYMTYPE, link="busybox")
        _add(tar, "usr/bin/env", 0o777, kind=tarfile.SYMTYPE, link="/bin/busybox")
        _add(tar, "etc/passwd", 0o644, _PASSWD.encode())
        _add(tar, "etc/group", 0o644, _GROUP.encode())
        _add(tar, "etc/shadow", 0o640, b"root:*:::::::\n")


def _is_dynamic(content: bytes) -> bool:
    """Whether an ELF file names an interpreter (PT_INTERP, 3, in its program headers)."""
    if content[:4] != b"\x7fELF" or content[4] != 2:
        return False
    offset = int.from_bytes(content[32:40], sys.byteorder)
    size, count = (int.from_bytes(content[at : at + 2], sys.byteorder) for at in (54, 56))
    kinds = (content[offset + index * size : offset + index * size + 4] for index in range(count))
    return any(int.from_bytes(kind, sys.byteorder) == 3 for kind in kinds)


def _add(
    tar: tarfile.TarFile, name: str, mode: int, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    # The same bytes every time: nothing but the binary decides the digest.
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.linkname, info.size = mode, kind, link, len(content)
    tar.addfile(info, io.BytesIO(content) if content else None)


def _debian_layer(path: str, suite: str, mirror: str) -> None:
    tool = shutil.which("mmdebstrap")
    if tool is None:
        raise CliError("mmdebstrap is not installed: on Debian, apt-get install mmdebstrap")
    say_error(f"Building Debian {suite} with mmdebstrap; this takes a minute")
    command = [tool, "--quiet", "--variant=minbase", "--format=tar", suite, path]
    done = subprocess.run(
        [*command, mirror] if mirror else command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    if done.returncode:
        raise CliError(f"mmdebstrap ended with exit code {done.returncode}")


def write_image(out: IO[bytes], layer: str, name: str, command: list[str], comment: str) -> None:
    """An image of one layer in the layout of `docker save`: manifest.json, a config, the layer's tar."""
    digest = _sha256(layer)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    config: dict[str, Any] = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": created,
        "config": {"Env": [_PATH], "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": created, "created_by": comment}],
    }
    config_bytes = json.dumps(config, separators=(",", ":"), sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config_bytes).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, config_name, 0o644, config_bytes)
        _add(tar, digest, 0o755, kind=tarfile.DIRTYPE)
        tar.add(layer, f"{digest}/layer.tar", filter=_plain_owner)
        _add(tar, "manifest.json", 0o644, json.dumps(manifest).encode())


def _plain_owner(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


BOOTSTRAP = Command(
    "image bootstrap",
    "[OPTIONS] busybox|debian",
    _bootstrap,
    (
        Flag("mirror", "", "string", "Debian mirror to take packages from (default: mmdebstrap's)"),
        Flag("suite", "", "string", "Debian release", default="bookworm"),
        Flag("tag", "t", "string", "Name of the image (default busybox:latest, debian:SUITE)"),
    ),
    least=1,
    most=1,
)

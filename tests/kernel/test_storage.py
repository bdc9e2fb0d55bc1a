"""What needs the kernel and root: mounted snapshots, owners, devices, overlay's attributes, copy-up."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from corten.errors import Conflict, NotFound
from corten.storage.apply import apply_layer
from corten.storage.archive import write_layer, write_tree
from corten.storage.copying import CopySnapshotter
from corten.storage.database import Database
from corten.storage.overlay import OverlaySnapshotter
from corten.storage.snapshots import SnapshotterBase
from corten.storage.treecopy import TreeCopier
from corten.storage.types import MountPlan, Usage
from corten.storage.workers import CopyUp, WorkerVerifier
from tests.unit.storage.tars import archive, directory, file, hard_link, member, symlink, unpack

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

# Mounts the plans in a mount namespace of its own and prints the tree: what is mounted goes with the process.
SHOW = """
import json, os, subprocess, sys
plans, where, script = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
os.environ["LIBMOUNT_FORCE_MOUNT2"] = "always"  # newer mount(8) otherwise gives an option to fsconfig(2): 256 bytes
for kind, source, options in plans:
    if kind == "bind":
        subprocess.run(["mount", "--rbind", source, where], check=True)
        if "ro" in options:
            subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
    else:
        subprocess.run(["mount", "-t", kind, source, "-o", ",".join(options), where], check=True)
if script:
    subprocess.run(["sh", "-ec", script], cwd=where, check=True)
found = {}
for base, directories, files in os.walk(where):
    for name in directories + files:
        path = os.path.join(base, name)
        found[os.path.relpath(path, where)] = open(path).read() if os.path.isfile(path) else ""
print(json.dumps(found))
"""


def show(plans: Sequence[MountPlan], place: Path, script: str = "") -> dict[str, str]:
    """The merged tree as a container would see it, after `script` ran in it: path to content."""
    place.mkdir(exist_ok=True)
    data = json.dumps([(plan.type, plan.source, plan.options) for plan in plans])
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", SHOW, data, str(place), script]
    result: dict[str, str] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "meta.db")
    yield opened
    opened.close()


@pytest.fixture(params=[OverlaySnapshotter, CopySnapshotter])
def snapshotter(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Iterator[SnapshotterBase]:
    kind: type[SnapshotterBase] = request.param
    made = kind(tmp_path / "s", database)
    yield made
    made.settle()


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    return tmp_path / "layer"


def add_layer(snapshotter: SnapshotterBase, base: Path, name: str, parent: str, blob: bytes) -> dict[str, Any]:
    """Unpack as the image service does: side by side where that is possible."""
    snapshotter.prepare("unpack-" + name, "" if snapshotter.rebases else parent)
    place = base / name
    place.mkdir()
    (place / "layer").symlink_to(snapshotter.layer_dir("unpack-" + name))
    answer = unpack(blob, place, delete=not snapshotter.rebases)
    usage = Usage(answer["size"], answer["inodes"])
    stack = {"parent": parent, "implied": answer["implied"]} if snapshotter.rebases else {}
    snapshotter.commit(name, "unpack-" + name, usage, **stack)
    return answer


def test_layers_merge_as_the_image_says(tmp_path: Path, snapshotter: SnapshotterBase) -> None:
    base = archive(
        *(directory("etc", mode=0o750, uid=7, gid=8), file("etc/a", b"base a"), file("etc/b", b"base b")),
        *(directory("opaque"), file("opaque/old", b"old")),
        *(directory("gone"), file("gone/f", b"f"), directory("swap"), file("swap/f", b"f"), file("top", b"top")),
    )
    middle = archive(
        *(file("etc/a", b"middle a"), file("etc/.wh.b", b"")),
        *(directory("opaque"), file("opaque/new", b"new"), file("opaque/.wh..wh..opq", b"")),
        *(file(".wh.gone", b""), file(".wh.swap", b""), directory("swap"), file("swap/g", b"g")),
    )
    top = archive(file("etc/c", b"top c"), file(".wh.top", b""))
    add_layer(snapshotter, tmp_path, "base", "", base)
    add_layer(snapshotter, tmp_path, "middle", "base", middle)
    add_layer(snapshotter, tmp_path, "top-layer", "middle", top)
    expected = {
        "etc": "",
        "etc/a": "middle a",
        "etc/c": "top c",
        "opaque": "",
        "opaque/new": "new",
        "swap": "",
        "swap/g": "g",
    }
    assert show(snapshotter.view("v", "top-layer"), tmp_path / "m") == expected
    plans = snapshotter.prepare("c", "top-layer")
    assert show(plans, tmp_path / "m", "stat -c %u:%g:%a etc > owner") == expected | {"owner": "7:8:750\n"}
    assert show(plans, tmp_path / "m", "rm etc/a; mkdir x") == {
        key: value for key, value in (expected | {"owner": "7:8:750\n", "x": ""}).items() if key != "etc/a"
    }
    assert show(snapshotter.mounts("v"), tmp_path / "m") == expected


def test_a_view_cannot_be_written(tmp_path: Path, snapshotter: SnapshotterBase) -> None:
    add_layer(snapshotter, tmp_path, "base", "", archive(file("a")))
    add_layer(snapshotter, tmp_path, "next", "base", archive(file("b")))
    for name in ("base", "next"):
        with pytest.raises(subprocess.CalledProcessError) as caught:
            show(snapshotter.view("v" + name, name), tmp_path / "m", "touch x")
        assert b"Read-only file system" in caught.value.stderr


def test_a_deep_image_mounts(tmp_path: Path, database: Database) -> None:
    # 40 fit into mount(8)'s page wherever the tests run; deeper ones are the runtime's to mount (fsconfig).
    snapshotter = OverlaySnapshotter(tmp_path / "s", database)
    parent = ""
    for number in range(40):
        snapshotter.prepare("unpack", parent)
        (snapshotter.layer_dir("unpack") / f"f{number}").write_text(str(number))
        parent = f"layer{number}"
        snapshotter.commit(parent, "unpack")
    assert len(show(snapshotter.prepare("c", parent), tmp_path / "m")) == 40


def test_owners_devices_and_attributes(tmp_path: Path, layer: Path) -> None:
    capability = b"\1\0\0\2\0\4\0\0" + bytes(12)
    blob = archive(
        file("ping", mode=0o4755, uid=5, gid=6, pax_headers={"SCHILY.xattr.user.k": "v"}),
        directory("d", mode=0o2775, uid=1000, gid=2000),
        file("d/f", uid=0, gid=0),
        symlink("d/s", "nowhere"),
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("disk", tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o660),
        file("cap", pax_headers={"SCHILY.xattr.security.capability": capability.decode("latin-1")}),
        file("evil", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"}),
    )
    unpack(blob, tmp_path)
    ping = (layer / "ping").stat()
    assert (ping.st_uid, ping.st_gid, stat.S_IMODE(ping.st_mode)) == (5, 6, 0o4755)
    assert os.getxattr(layer / "ping", "user.k") == b"v"
    inherited = (layer / "d").stat()
    assert (inherited.st_uid, inherited.st_gid, stat.S_IMODE(inherited.st_mode)) == (1000, 2000, 0o2775)
    # A setgid directory gives its group to what is made in it; the archive says otherwise.
    assert (layer / "d/f").stat().st_gid == 0
    assert (layer / "d/s").lstat().st_gid == 0
    null = (layer / "null").stat()
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev, stat.S_IMODE(null.st_mode)) == (True, os.makedev(1, 3), 0o666)
    assert stat.S_ISBLK((layer / "disk").stat().st_mode)
    assert os.getxattr(layer / "cap", "security.capability")[:4] == capability[:4]
    assert os.listxattr(layer / "evil") == []


def test_opaque_directories_for_overlay(tmp_path: Path, layer: Path) -> None:
    unpack(archive(directory("d"), file("d/.wh..wh..opq", b""), file(".wh.e", b""), directory("e")), tmp_path)
    for name in ("d", "e"):
        assert os.getxattr(layer / name, "trusted.overlay.opaque") == b"y"


def copy_tree(source: Path, target: Path) -> None:
    source_fd, target_fd = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target))
    try:
        TreeCopier(source_fd, target_fd).run()
    finally:
        os.close(source_fd)
        os.close(target_fd)


def test_a_copied_tree_is_the_same(tmp_path: Path) -> None:
    blob = archive(
        *(directory("d", mode=0o1750, uid=3, gid=4), file("d/f", b"x" * 100_000, mode=0o4711, uid=1, gid=2)),
        *(hard_link("h", "d/f"), symlink("s", "/etc/passwd"), member("p", tarfile.FIFOTYPE)),
        *(member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),),
        *(file("x", pax_headers={"SCHILY.xattr.user.k": "v"}),),
    )
    unpack(blob, tmp_path)
    source, target = tmp_path / "layer", tmp_path / "copy"
    with (source / "sparse").open("wb") as out:
        out.seek(50 << 20)
        out.write(b"end")
        out.truncate(60 << 20)
    target.mkdir()
    copy_tree(source, target)

    def facts(path: Path) -> tuple[object, ...]:
        status = path.lstat()
        return (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, status.st_nlink)

    names = sorted(str(path.relative_to(source)) for path in source.rglob("*"))
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == names
    for name in [".", *names]:
        assert facts(target / name) == facts(source / name), name
    assert (target / "h").stat().st_ino == (target / "d/f").stat().st_ino
    assert os.getxattr(target / "x", "user.k") == b"v"
    assert (target / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (target / "sparse").stat().st_blocks < 1000


def fill(snapshotter: SnapshotterBase, snapshot: str, path: str, volume: Path) -> None:
    async def main() -> None:
        copy_up = CopyUp(snapshotter)
        try:
            await copy_up(snapshot, path, volume)
        finally:
            await copy_up.close()

    asyncio.run(main())


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    made.mkdir()
    return made


def test_copy_up_of_what_the_layers_show(tmp_path: Path, snapshotter: SnapshotterBase, volume: Path) -> None:
    base = archive(
        directory("data", mode=0o700, uid=9, gid=9),
        file("data/a", b"old", uid=9),
        file("data/b"),
        symlink("l", "/data"),
    )
    add_layer(snapshotter, tmp_path, "base", "", base)
    add_layer(snapshotter, tmp_path, "top", "base", archive(file("data/a", b"new", uid=9), file("data/.wh.b", b"")))
    snapshotter.prepare("c", "top")
    fill(snapshotter, "c", "/l/../data", volume)
    assert os.listdir(volume) == ["a"]
    assert (volume / "a").read_bytes() == b"new"
    assert ((volume / "a").stat().st_uid, volume.stat().st_uid, stat.S_IMODE(volume.stat().st_mode)) == (9, 9, 0o700)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_copy_up_leaves_a_volume_with_data_alone(tmp_path: Path, snapshotter: SnapshotterBase, volume: Path) -> None:
    add_layer(snapshotter, tmp_path, "base", "", archive(directory("data"), file("data/a")))
    snapshotter.prepare("c", "base")
    (volume / "mine").touch()
    fill(snapshotter, "c", "/data", volume)
    assert os.listdir(volume) == ["mine"]


@pytest.mark.parametrize("path", ["/missing", "/file", "/out", "/out/deeper", "/../../../../../../etc"])
def test_copy_up_takes_nothing_from_the_host(
    tmp_path: Path, snapshotter: SnapshotterBase, volume: Path, path: str
) -> None:
    add_layer(snapshotter, tmp_path, "base", "", archive(file("file"), symlink("out", "/etc")))
    snapshotter.prepare("c", "base")
    fill(snapshotter, "c", path, volume)
    assert os.listdir(volume) == []


def test_copy_up_of_an_image_with_more_layers_than_one_page_of_options(
    tmp_path: Path, database: Database, volume: Path
) -> None:
    snapshotter = OverlaySnapshotter(tmp_path / ("s" * 60), database)
    parent = ""
    for number in range(60):
        snapshotter.prepare("unpack", parent)
        (snapshotter.layer_dir("unpack") / "data").mkdir()
        (snapshotter.layer_dir("unpack") / f"data/f{number}").touch()
        parent = f"layer{number}"
        snapshotter.commit(parent, "unpack")
    snapshotter.prepare("c", parent)
    fill(snapshotter, "c", "/data", volume)
    assert len(os.listdir(volume)) == 60


# In a mount namespace of its own, over a file system of 2 MB: each step says what it is told, then works again.
FULL = """
import asyncio, os, pathlib, subprocess, sys
from corten.errors import SystemFault
from corten.storage.apply import apply_layer
from corten.storage.content import LocalContentStore
from corten.storage.database import Database
from corten.storage.documents import Documents, put_document
from corten.specs.digest import of as digest_of
from tests.unit.storage.tars import archive, file
where, elsewhere = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", where], check=True)
def refused(call, *arguments):
    try:
        call(*arguments)
    except SystemFault as error:
        assert str(error).endswith("no space left on device"), error
        assert error.errno == 28
    else:
        raise AssertionError("not refused")
store = LocalContentStore(where / "content")
ingest = store.ingest("x")
ingest.write(b"a" * 1000)
refused(ingest.write, b"b" * (3 << 20))
assert ingest.offset == 1000
ingest.write(b"c" * 1000)
ingest.commit(digest_of(b"a" * 1000 + b"c" * 1000))
refused(store.put, b"x" * (3 << 20))
store.put(b"small")
(elsewhere / "blob").write_bytes(archive(file("big", b"x" * (3 << 20))))
(where / "layer").mkdir()
refused(apply_layer, str(elsewhere / "blob"), str(where / "layer"))
(where / "layer" / "big").unlink()
database = Database(where / "meta.db")
database.write_blocking(lambda c: put_document(c, "k", "first", b""))
refused(database.write_blocking, lambda c: put_document(c, "k", "big", b"x" * (3 << 20)))
database.write_blocking(lambda c: put_document(c, "k", "second", b""))
assert set(Documents(database, "k").all()) == {"first", "second"}
database.close()
"""


def test_a_full_disk(tmp_path: Path) -> None:
    small, other = tmp_path / "small", tmp_path / "other"
    small.mkdir()
    other.mkdir()
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", FULL, str(small), str(other)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def packed(layer: Path, *, whiteouts: bool = True) -> bytes:
    out = io.BytesIO()
    (write_layer if whiteouts else write_tree)(str(layer), out)
    return out.getvalue()


def test_a_layer_comes_out_as_it_went_in(tmp_path: Path) -> None:
    blob = archive(
        *(directory("d", mode=0o1750, uid=3, gid=4), file("d/f", b"x" * 70_000, mode=0o4711, uid=1, mtime=1.000000001)),
        *(file("d/.wh..wh..opq", b""), file("d/.wh.gone", b""), hard_link("h", "d/f"), symlink("s", "/etc/passwd")),
        *(
            member("p", tarfile.FIFOTYPE),
            member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
            file("e", mtime=-1.5),
        ),
        *(file("x", pax_headers={"SCHILY.xattr.user.k": "\udcff\0v"}), file("n" * 200), directory("empty")),
    )
    unpack(blob, tmp_path)
    first = packed(tmp_path / "layer")
    again = tmp_path / "again"
    again.mkdir()
    unpack(first, again)
    assert packed(again / "layer") == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        members = {info.name: info for info in tar}
    expected = [".", "d", "d/.wh..wh..opq", "d/f", "d/.wh.gone", "e", "empty", "h", "n" * 200, "null", "p", "s", "x"]
    assert list(members) == expected
    assert (members["h"].type, members["h"].linkname) == (tarfile.LNKTYPE, "d/f")
    assert members["d/f"].pax_headers["mtime"] == "1.000000001"
    assert (again / "layer/e").stat().st_mtime_ns == -1_500_000_000
    assert os.getxattr(again / "layer/x", "user.k") == b"\xff\x00v"
    assert (members["d/f"].uid, members["d/f"].mode, members["d"].gid) == (1, 0o4711, 4)


def test_a_tree_is_packed_with_its_devices(tmp_path: Path) -> None:
    unpack(archive(file(".wh.x", b"")), tmp_path)
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path / "layer", whiteouts=False))) as tar:
        assert [(info.name, info.type) for info in tar] == [(".", tarfile.DIRTYPE), ("x", tarfile.CHRTYPE)]


def test_a_layer_is_replaced_under_what_stands_on_it(tmp_path: Path, snapshotter: SnapshotterBase) -> None:
    base, top = archive(directory("d", mode=0o700), file("d/a", b"good")), archive(file("d/b"))
    add_layer(snapshotter, tmp_path, "base", "", base)
    add_layer(snapshotter, tmp_path, "top", "base", top)
    for name, blob in (("top", top), ("base", base)):
        place = snapshotter.layer_dir(name)
        (place / "d/b" if name == "top" else place / "d/a").unlink()
        snapshotter.prepare("new", "base" if name == "top" and not snapshotter.rebases else "")
        answer = unpack_into(snapshotter.layer_dir("new"), tmp_path / name, blob, delete=not snapshotter.rebases)
        ready = snapshotter.replacing(name, "new", implied=answer["implied"])
        assert sorted(path.name for path in (place / "d").iterdir()) != ["a", "b"]
        ready.swap()
        ready.sync()
        snapshotter.remove("new")
        assert stat.S_IMODE((snapshotter.layer_dir(name) / "d").stat().st_mode) == 0o700
    if snapshotter.rebases:
        assert show(snapshotter.prepare("c", "top"), tmp_path / "m") == {"d": "", "d/a": "good", "d/b": "data"}
    with pytest.raises(Conflict):
        snapshotter.replacing("base", "top")
    with pytest.raises(NotFound):
        snapshotter.replacing("nothing", "top")


def unpack_into(target: Path, place: Path, blob: bytes, *, delete: bool) -> dict[str, Any]:
    (place / "again").write_bytes(blob)
    return apply_layer(str(place / "again"), str(target), delete=delete)


def test_lost_files_are_put_back(tmp_path: Path, snapshotter: SnapshotterBase) -> None:
    add_layer(snapshotter, tmp_path, "base", "", archive(file("a")))
    snapshotter.layer_dir("base").parent.rename(tmp_path / "lost")
    snapshotter.prepare("new")
    (snapshotter.layer_dir("new") / "a").write_bytes(b"data")
    ready = snapshotter.replacing("base", "new")
    assert not snapshotter.layer_dir("base").exists()  # a crash now leaves what is seen to be lost
    ready.swap()
    ready.sync()
    snapshotter.remove("new")
    assert (snapshotter.layer_dir("base") / "a").read_bytes() == b"data"


def test_verifying_workers_see_what_root_makes(tmp_path: Path, snapshotter: SnapshotterBase) -> None:
    """Owners, devices, capabilities, whiteouts: after unpacking as root nothing differs, in either form."""
    capability = (b"\1\0\0\2\0\4\0\0" + bytes(12)).decode("latin-1")
    base = archive(
        *(directory("etc", mode=0o2750, uid=7, gid=8), file("etc/a", uid=3), file("ping", mode=0o4755, uid=5, gid=6)),
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        *(file("cap", pax_headers={"SCHILY.xattr.security.capability": capability}), directory("old"), file("old/x")),
    )
    top = archive(file("etc/b"), file("etc/.wh.a", b""), file(".wh.old", b""), directory("old"), file("old/y"))
    add_layer(snapshotter, tmp_path, "base", "", base)
    add_layer(snapshotter, tmp_path, "top", "base", top)

    async def damage() -> list[tuple[tuple[str, str], ...]]:
        verifier = WorkerVerifier(delete_whiteouts=not snapshotter.rebases)
        blobs = {name: tmp_path / name / "blob" for name in ("base", "top")}
        below, own = snapshotter.layer_dir("base"), snapshotter.layer_dir("top")
        try:
            chain = [blobs["top"]] if snapshotter.rebases else [blobs["base"], blobs["top"]]
            first = await verifier.verify([blobs["base"]], below, [])
            return [first.damage, (await verifier.verify(chain, own, [below])).damage]
        finally:
            await verifier.close()

    assert asyncio.run(damage()) == [(), ()]
    os.chown(snapshotter.layer_dir("base") / "etc/a", 4, 0)
    os.removexattr(snapshotter.layer_dir("base") / "cap", "security.capability")
    first, second = asyncio.run(damage())
    assert sorted(first) == [
        ("/cap", "has another attribute security.capability than it should"),
        ("/etc/a", "belongs to 4:0 and should belong to 3:0"),
    ]
    assert second == ()

"""The process that test_storage_crash kills: it stores things for ever and says what is acknowledged, one a line."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from corten.specs.digest import of as digest_of
from corten.storage.apply import apply_layer
from corten.storage.content import LocalContentStore
from corten.storage.database import Database
from corten.storage.documents import put_document
from corten.storage.overlay import OverlaySnapshotter
from corten.storage.types import Usage
from tests.unit.storage.tars import archive, file


def say(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


def main(root: Path, seed: int) -> None:
    choose = random.Random(seed)
    content, database = LocalContentStore(root / "content"), Database(root / "meta.db")
    snapshots = OverlaySnapshotter(root / "snapshots", database)
    say("ready")
    committed: list[str] = []
    for number in range(1_000_000):
        name = f"{seed}-{number}"
        blob = archive(*(file(f"d{i % 3}/{name}-{i}", os.urandom(3000)) for i in range(20)))
        digest = digest_of(blob)
        ingest = content.ingest(name)
        for at in range(0, len(blob), 9000):
            ingest.write(blob[at : at + 9000])
        ingest.commit(digest, len(blob))
        say("blob", digest)
        snapshots.prepare("unpack-" + name)
        answer = apply_layer(str(content.path(digest)), str(snapshots.layer_dir("unpack-" + name)))
        parent = choose.choice(["", *committed])
        snapshots.commit(name, "unpack-" + name, Usage(answer["size"], answer["inodes"]), parent=parent)
        committed.append(name)
        say("layer", name)
        snapshots.prepare("container-" + name, name)
        database.write_blocking(lambda c, key=name: put_document(c, "container", key, b"{}"))  # type: ignore[misc]
        say("container", name)
        if choose.random() < 0.3:
            say("removing", name)
            snapshots.remove("container-" + name)
            snapshots.prepare("other-" + name, committed[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""Where lists wait until they are pushed: `manifests/LIST/IMAGE` below the configuration's folder, as Docker has it.

LIST and IMAGE are whole references with `:` as `-` and `/` as `_`, so that `docker manifest` and `corten manifest` work
on the same lists. An image's file is what `entry` describes; the order of a list is that of its files' names.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil

from corten.cli.errors import CliError
from corten.cli.manifests import entry as entries
from corten.cli.manifests.entry import Entry
from corten.errors import CortenError
from corten.specs.gotemplate.values import escape_html
from corten.specs.reference import Reference


class UnknownManifest(CliError):
    """There is no such list here, or no such image in it."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(f"No such manifest: {reference}")


class Store:
    """The lists below `root`, which need not be there. Methods raise CliError and OSError."""

    def __init__(self, root: str) -> None:
        self._root = root

    def get(self, target: Reference, image: Reference) -> Entry:
        """The image of that name in the list `target`. Raises UnknownManifest."""
        found = self._read(os.path.join(self._folder(target), _file_name(image)))
        if found is None or found.ref != image:
            raise UnknownManifest(image)
        return found

    def images(self, target: Reference) -> list[Entry]:
        """All of a list. Raises UnknownManifest."""
        folder = self._folder(target)
        try:
            names = sorted(os.listdir(folder), key=os.fsencode)
        except FileNotFoundError:
            raise UnknownManifest(target) from None
        return [found for name in names if (found := self._read(os.path.join(folder, name)))]

    def has(self, target: Reference) -> bool:
        return os.path.isdir(self._folder(target))

    def save(self, target: Reference, image: Entry) -> None:
        """Put `image` into the list, in the place of what it has under that name."""
        folder = self._folder(target)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        path = os.path.join(folder, _file_name(image.ref))
        try:
            found = self._read(path)
        except CliError:
            found = None  # damaged, and about to be replaced
        if found is not None and found.ref != image.ref:
            # a:b-c and a-b:c, of which Docker puts the one in the place of the other without a word.
            raise CliError(f"{image.ref} and {found.ref} cannot be in one list: their files would have the same name")
        temporary = os.path.join(self._root, f".{os.getpid()}.tmp")
        text = escape_html(json.dumps(image.to_json(), ensure_ascii=False, separators=(",", ":")))
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def remove(self, target: Reference) -> None:
        """Raises UnknownManifest."""
        try:
            shutil.rmtree(self._folder(target))
        except FileNotFoundError:
            raise UnknownManifest(target) from None

    def _folder(self, target: Reference) -> str:
        return os.path.join(self._root, _file_name(target))

    def _read(self, path: str) -> Entry | None:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        try:
            return entries.read(data)
        except (ValueError, CortenError) as error:
            raise CliError(f"invalid manifest file {path}: {error}") from None


def _file_name(reference: Reference) -> str:
    return str(reference).replace(":", "-").replace("/", "_")

"""The names of images, in memory."""

from __future__ import annotations

from corten.engine.images.records import StoredImage, StoredName
from corten.specs import reference as references
from corten.specs.reference import Reference


class ImageNames:
    """By their canonical spelling. `remember` and `forget` are for the index, which stores them as well."""

    def __init__(self) -> None:
        self._names: dict[str, StoredName] = {}
        self._by_image: dict[str, set[str]] = {}
        self._by_target: dict[str, set[str]] = {}

    def get(self, reference: Reference) -> StoredName | None:
        return self._names.get(reference.canonical)

    def lookup(self, reference: Reference) -> StoredName | None:
        """What users mean by a reference: with a tag and a digest the digest decides."""
        if reference.digest:
            reference = reference.with_digest(reference.digest)
        return self._names.get(reference.canonical)

    def of(self, id: str) -> list[Reference]:
        """All names of an image, those with tags first."""
        found = [references.parse(name) for name in self._by_image.get(id, ())]
        return sorted(found, key=lambda reference: (bool(reference.digest), reference.canonical))

    def to(self, target: str) -> list[Reference]:
        """All names that were given with the manifest or index of that digest."""
        return [references.parse(name) for name in sorted(self._by_target.get(target, ()))]

    def tags_in(self, repository: str) -> list[Reference]:
        """The tagged names in `repository` ("docker.io/library/alpine")."""
        prefix = repository + ":"
        return [references.parse(name) for name in sorted(self._names) if name.startswith(prefix) and "@" not in name]

    def spelled(self, id: str) -> list[str]:
        """All names of an image as they are stored."""
        return sorted(self._by_image.get(id, ()))

    def head(self, stored: StoredImage) -> str:
        """The id of the image that a nameless one of an index belongs to; "" for one that stands alone."""
        target = stored.target
        if stored.id in self._by_image or target.digest == target.manifest:
            return ""
        names = self._by_target.get(target.digest)
        return min(self._names[name].image_id for name in names) if names else ""

    def remember(self, name: str, stored: StoredName) -> None:
        self._names[name] = stored
        self._by_image.setdefault(stored.image_id, set()).add(name)
        self._by_target.setdefault(stored.target.digest, set()).add(name)

    def forget(self, name: str) -> StoredName | None:
        """What it was; None where it was not."""
        if (old := self._names.pop(name, None)) is not None:
            _discard(self._by_image, old.image_id, name)
            _discard(self._by_target, old.target.digest, name)
        return old


def _discard(groups: dict[str, set[str]], key: str, name: str) -> None:
    groups[key].discard(name)
    if not groups[key]:
        del groups[key]

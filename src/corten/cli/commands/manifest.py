"""`corten manifest`: lists of images for several platforms, made here and pushed to a registry."""

from __future__ import annotations

import json
import os
import sys

from corten.cli.context import Context, say
from corten.cli.errors import CliError
from corten.cli.failure import describe
from corten.cli.flags import Command, Flag, Options
from corten.cli.manifests import entry as entries
from corten.cli.manifests.store import Store, UnknownManifest
from corten.cli.values import comma_separated
from corten.errors import InvalidArgument
from corten.specs import reference
from corten.specs.gotemplate.values import escape_html
from corten.specs.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.cli.manifests.entry import Entry, Part
    from corten.cli.manifests.registries import Registries
    from corten.specs.reference import Reference


def _store(context: Context) -> Store:
    return Store(os.path.join(context.config_dir, "manifests"))


def _registries(context: Context, options: Options) -> Registries:
    from corten.cli.manifests.registries import Registries

    return Registries(context, insecure=options["insecure"])


def _named(text: str, complaint: str = "") -> Reference:
    """Raises CliError, which begins with `complaint` and the name."""
    try:
        return reference.parse(text)
    except InvalidArgument as error:
        raise CliError(f"{complaint} {text}: {error}" if complaint else str(error)) from None


def _inspect(context: Context, options: Options) -> None:
    name, store = _named(options.args[-1]), _store(context)
    if len(options.args) == 2:
        _print_image(store.get(_named(options.args[0]), name), options)
        return
    try:
        images = store.images(name)
    except UnknownManifest:
        _inspect_remote(context, options, name)
        return
    if not options["verbose"]:
        _check_registry(images, name)
    parts = [image.part for image in images]
    _print_list(parts, entries.list_type(parts), images, options)


def _inspect_remote(context: Context, options: Options, name: Reference) -> None:
    from corten.cli.manifests.registries import Listed

    found = _registries(context, options).look(name, images=options["verbose"])
    if isinstance(found, Listed):
        _print_list(found.parts, found.media_type, found.images, options)
    else:
        _print_image(found, options)


def _check_registry(images: Sequence[Entry], name: Reference) -> None:
    try:
        entries.check_registry(images, name)
    except CliError as error:
        raise CliError(f"failed to assemble ManifestDescriptor: {error}") from None


def _print_image(image: Entry, options: Options) -> None:
    if options["verbose"]:
        _print_json(image.to_json())
    else:
        sys.stdout.write(json.dumps(json.loads(image.raw), ensure_ascii=False, indent="\t") + "\n")


def _print_list(parts: Sequence[Part], media_type: str, images: Sequence[Entry], options: Options) -> None:
    if options["verbose"]:
        _print_json([image.to_json() for image in images])
    else:
        say(entries.list_text(parts, media_type))


def _print_json(value: Any) -> None:
    sys.stdout.write(escape_html(json.dumps(value, ensure_ascii=False, indent="\t")) + "\n")


def _create(context: Context, options: Options) -> None:
    target = _named(options.args[0], "error parsing name for manifest list")
    names, store = [_named(text) for text in options.args[1:]], _store(context)
    if store.has(target) and not options["amend"]:
        raise CliError("refusing to amend an existing manifest list with no --amend flag")
    # What is in the list stays as it was annotated.
    known = {image.ref for image in store.images(target)} if store.has(target) else set()
    wanted = [name for name in dict.fromkeys(names) if name not in known]
    for image in _registries(context, options).images(wanted) if wanted else ():
        store.save(target, image)
    say(f"Created manifest list {target}")


def _annotate(context: Context, options: Options) -> None:
    target = _named(options.args[0], "annotate: error parsing name for manifest list")
    name = _named(options.args[1], "annotate: error parsing name for manifest")
    store, features = _store(context), tuple(comma_separated(options["os-features"]))
    wanted = Platform(options["arch"], options["os"], options["variant"], options["os-version"], features)
    try:
        image = store.get(target, name)
    except UnknownManifest:
        raise CliError(f"manifest for image {options.args[1]} does not exist in {options.args[0]}") from None
    store.save(target, entries.annotated(image, wanted))


def _push(context: Context, options: Options) -> None:
    target, store = _named(options.args[0]), _store(context)
    images = store.images(target)
    if not images:
        raise CliError(f"{target} not found")
    if not target.tag:
        raise CliError(f"{target} cannot be pushed: what a list's digest will be is not known before")
    entries.check_platforms(images)
    entries.check_registry(images, target)
    say(_registries(context, options).push(target, images, say))
    if options["purge"]:
        store.remove(target)


def _remove(context: Context, options: Options) -> None:
    store, failures = _store(context), []
    for text in options.args:
        try:
            store.remove(_named(text))
        except (CliError, OSError) as error:
            failures.append(str(describe(error)))
    if failures:
        raise CliError("\n".join(failures))


_INSECURE = Flag("insecure", "", "bool", "Talk to a registry without TLS, or without verifying it")

ANNOTATE = Command(
    "manifest annotate",
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    _annotate,
    (
        Flag("arch", "", "string", "Set architecture"),
        Flag("os", "", "string", "Set operating system"),
        Flag("os-features", "", "list*", "Add features of the operating system", says="strings"),
        Flag("os-version", "", "string", "Set the operating system's version"),
        Flag("variant", "", "string", "Set the architecture's variant"),
    ),
    least=2,
    most=2,
)
CREATE = Command(
    "manifest create",
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    _create,
    (Flag("amend", "a", "bool", "Add to a list that is there"), _INSECURE),
    least=2,
)
INSPECT = Command(
    "manifest inspect",
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    _inspect,
    (_INSECURE, Flag("verbose", "v", "bool", "Show names, platforms and the manifests of a list as well")),
    least=1,
    most=2,
)
PUSH = Command(
    "manifest push",
    "[OPTIONS] MANIFEST_LIST",
    _push,
    (_INSECURE, Flag("purge", "p", "bool", "Remove the list from here when it is pushed")),
    least=1,
    most=1,
)
RM = Command("manifest rm", "MANIFEST_LIST [MANIFEST_LIST...]", _remove, least=1)

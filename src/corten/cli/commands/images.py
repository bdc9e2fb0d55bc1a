"""`corten images`, `rmi`, `tag`."""

from __future__ import annotations

import sys

from corten.cli.commands.ps import FORMAT_HELP
from corten.cli.context import Context, say, say_error
from corten.cli.errors import CliError, Exit
from corten.cli.failure import describe
from corten.cli.flags import Command, Flag, Options
from corten.cli.records import Shape, write
from corten.cli.units import ago, human_size, local_time, short_id
from corten.cli.values import comma_separated, filters
from corten.client.errors import CannotConnect, NotFound
from corten.client.images import split_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]

NONE = "<none>"


def rows_of(images: list[Row], *, digests: bool) -> list[Row]:
    """One row for each name of each image: a tag, a digest, or neither."""
    rows = []
    for image in images:
        tags = [name for name in image.get("RepoTags") or [] if name != "<none>:<none>"]
        found = [name for name in image.get("RepoDigests") or [] if name != "<none>@<none>"]
        by_repo = {name.partition("@")[0]: name.partition("@")[2] for name in found}
        named = set()
        for name in tags:
            repo, tag = split_tag(name)
            named.add(repo)
            rows.append({**image, "_repo": repo, "_tag": tag, "_digest": by_repo.get(repo, NONE)})
        # A digest without a tag has a row of its own; so does an image that has neither.
        bare = [(repo, digest) for repo, digest in by_repo.items() if repo not in named]
        for repo, digest in bare if digests or not tags else []:
            rows.append({**image, "_repo": repo, "_tag": NONE, "_digest": digest})
        if not tags and not bare:
            rows.append({**image, "_repo": NONE, "_tag": NONE, "_digest": NONE})
    return rows


def shape(*, truncate: bool, digests: bool = False) -> Shape:
    """The fields of `images`."""
    columns = ["Repository", "Tag", *(["Digest"] if digests else []), "ID", "CreatedSince", "Size"]
    return Shape(
        "formatter.imageContext",
        {
            "ID": lambda row: short_id(row["Id"]) if truncate else row["Id"],
            "Repository": lambda row: row["_repo"],
            "Tag": lambda row: row["_tag"],
            "Digest": lambda row: row["_digest"],
            "CreatedSince": lambda row: ago(row["Created"]) if row["Created"] > 0 else "N/A",
            "CreatedAt": lambda row: local_time(row["Created"]),
            "Size": lambda row: human_size(row["Size"], 3),
            "Containers": lambda row: _count(row.get("Containers")),
            "VirtualSize": lambda row: human_size(row["Size"]),
            "SharedSize": lambda row: _size(row.get("SharedSize")),
            "UniqueSize": lambda row: _unique(row),
        },
        _HEADERS,
        columns,
    )


def _count(value: int | None) -> str:
    return "N/A" if value is None or value < 0 else str(value)


def _size(value: int | None) -> str:
    return "N/A" if value is None or value < 0 else human_size(value)


def _unique(row: Row) -> str:
    shared = row.get("SharedSize")
    return "N/A" if shared is None or shared < 0 else human_size(row["Size"] - shared)


_HEADERS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}


def _images(context: Context, options: Options) -> None:
    given = filters(options["filter"])
    if options.args:
        given.setdefault("reference", []).append(options.args[0])
    if options["tree"]:
        _tree(context, options, given)
        return
    format_ = options["format"] or ("" if options["quiet"] else context.config.get("imagesFormat") or "")
    found = context.client.images.list(all=options["all"], digests=options["digests"], filters=given)
    found.sort(key=lambda image: -int(image["Created"]))
    layout = shape(truncate=not options["no-trunc"], digests=options["digests"])
    rows = rows_of(found, digests=options["digests"] or "Digest" in format_)
    if options["quiet"] and format_ in ("", "table"):
        sys.stdout.write("".join(layout.getters["ID"](row) + "\n" for row in rows))
        return
    write(layout, rows, format_)


def _tree(context: Context, options: Options, given: dict[str, list[str]]) -> None:
    from corten.cli.commands.imagetree import write_tree

    for flag in ("quiet", "format", "digests"):
        if options[flag]:
            raise CliError(f"--{flag} is not yet supported with --tree")
    found = context.client.images.list(all=options["all"], manifests=True, filters=given)
    found.sort(key=lambda image: -int(image["Created"]))
    write_tree(found, truncate=not options["no-trunc"])


def _remove(context: Context, options: Options) -> None:
    failures, only_missing = [], True
    for name in options.args:
        try:
            done = context.client.images.remove(
                name,
                force=options["force"],
                noprune=options["no-prune"],
                platforms=comma_separated(options["platform"]),
            )
        except CannotConnect:
            raise
        except Exception as error:
            message = describe(error)
            if message is None:
                raise
            failures.append(message)
            only_missing = only_missing and isinstance(error, NotFound)
            continue
        for step in done:
            say(f"Deleted: {step['Deleted']}" if step.get("Deleted") else f"Untagged: {step.get('Untagged')}")
    for failure in failures:
        say_error(failure)
    if failures and not (options["force"] and only_missing):
        raise Exit(1)


def _tag(context: Context, options: Options) -> None:
    from corten.errors import InvalidArgument
    from corten.specs import reference

    source, target = options.args
    try:
        parsed = reference.parse(target)
    except InvalidArgument as error:
        raise CliError(f'Error parsing reference: "{target}" is not a valid repository/tag: {error}') from None
    if parsed.digest:
        raise CliError("refusing to create a tag with a digest reference")
    context.client.images.tag(source, *split_tag(target))


IMAGES = Command(
    "image ls",
    "[OPTIONS] [REPOSITORY[:TAG]]",
    _images,
    (
        Flag("all", "a", "bool", "Show all images (default hides intermediate images)"),
        Flag("digests", "", "bool", "Show digests"),
        Flag("filter", "f", "filter*", "Filter output based on conditions provided"),
        Flag("format", "", "string", FORMAT_HELP),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only show image IDs"),
        Flag("tree", "", "bool", "List multi-platform images as a tree"),
    ),
    most=1,
)
RMI = Command(
    "image rm",
    "[OPTIONS] IMAGE [IMAGE...]",
    _remove,
    (
        Flag("force", "f", "bool", "Force removal of the image"),
        Flag("no-prune", "", "bool", "Do not delete untagged parents"),
        Flag("platform", "", "list*", "Remove only the given platforms of the image", says="strings"),
    ),
    least=1,
)
TAG = Command("image tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", _tag, least=2, most=2)

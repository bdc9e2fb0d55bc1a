"""The program that cuts operations short: `python -m tests.durability.lab PLACE`, in a mount namespace of its own.

Each line on its stdin is a request ({"operation", "every", "ways"}), each on its stdout the report about it. It stays
single-threaded, so that a victim is a fork of it, with everything imported.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from corten.errors import CortenError
from corten.linux.mount import MS_PRIVATE, MS_REC, mount
from corten.linux.process import CLONE_NEWNS, unshare
from corten.storage import placement
from tests.durability import checks
from tests.durability.calls import BY_NUMBER
from tests.durability.disk import Disk, NoDisk
from tests.durability.operations import OPERATIONS, Operation, base
from tests.durability.supervisor import LAST, WAYS, Cut, Point, Run, Supervisor, Victim, ask
from tests.durability.world import Stores, World, serve_registry

Listing = dict[str, list[str]]
_GROWING = {call.name for call in BY_NUMBER.values() if call.grows}
_ERRORS = ("eio", "enospc", "full")


@dataclass(frozen=True)
class Known:
    """What is known of an operation that nobody disturbs."""

    name: str
    operation: Operation
    before: Listing
    after: Listing
    trees: dict[str, str]
    calls: list[str]


@dataclass
class Report:
    """`cuts` that were made, those whose point was not `reached`, and what was found to be wrong."""

    operation: str
    points: int = 0
    cuts: int = 0
    missed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _child(work: Callable[[Victim], Coroutine[Any, Any, None]]) -> Callable[[Victim], None]:
    def run(victim: Victim) -> None:
        logging.disable(logging.CRITICAL)
        asyncio.run(work(victim))

    return run


def performing(world: World, operation: Operation, way: str) -> Callable[[Victim], None]:
    """What the victim does: the operation, what follows from it in the background, and an orderly end."""

    async def perform(victim: Victim) -> None:
        # Every call is slow here, which is no reason to look for a better place on the disk.
        placement._SLOW_SECONDS = 1.0
        if operation.opening:
            victim.say(go=True)
        try:
            async with world.open() as stores:
                await _in_open_stores(victim, world, stores, operation, way)
        except CortenError as error:
            victim.say(answer=_failure(error), wait=True)
            victim.wait()

    return _child(perform)


async def _in_open_stores(victim: Victim, world: World, stores: Stores, operation: Operation, way: str) -> None:
    if not operation.opening:
        victim.say(go=True)
    answer = await _attempt(operation, world, stores)
    victim.say(answer=answer, wait=True)
    victim.wait()
    await stores.quiet()
    if way in _ERRORS and not answer.get("ok"):
        victim.say(inside=[] if operation.heals else checks.whole(stores, None, {}), listing=stores.listing())
        if way != "eio":
            victim.say(again=await _attempt(operation, world, stores))
            await stores.quiet()
            victim.say(inside=checks.whole(stores, None, {}))
        os._exit(0)  # no orderly end: what follows a failure is not to depend on it


async def _attempt(operation: Operation, world: World, stores: Stores) -> dict[str, Any]:
    try:
        await operation.run(world, stores)
    except Exception as error:
        return _failure(error)
    return {"ok": True}


def _failure(error: Exception) -> dict[str, Any]:
    return {"error": type(error).__name__, "known": isinstance(error, CortenError), "text": str(error)[:300]}


class Lab:
    """Cuts operations short on a disk at `place`, a directory on tmpfs."""

    def __init__(self, place: Path) -> None:
        self._disk = Disk(place)
        self._mounts = place / "tree"
        self._mounts.mkdir()
        self._world = World(self._disk.mnt / "store", serve_registry()[1])
        self._known: dict[str, Known] = {}
        self._base: dict[str, Any] = {}
        self._prepare_base()

    def _prepare_base(self) -> None:
        self._disk.format("empty")
        self._on("empty", lambda: (self._disk.mnt / "store").mkdir())
        self._disk.copy("empty", "base")
        self._on("base", lambda: self._work(base))
        self._disk.copy("base", "run")
        self._on("run", lambda: self._base.update(self._look(Operation(base), {}, repeat=False)))
        assert not self._base["problems"], self._base

    def _on(self, image: str, work: Callable[[], None]) -> None:
        self._disk.mount(image)
        try:
            work()
        finally:
            self._disk.umount()

    def _work(self, work: Callable[[World, Stores], Coroutine[Any, Any, None]]) -> None:
        async def perform(victim: Victim) -> None:
            async with self._world.open() as stores:
                await work(self._world, stores)
                await stores.quiet()

        for word in ask(_child(perform)):
            raise AssertionError(word.get("crash", word))

    def learn(self, name: str) -> Known:
        """Run the operation undisturbed, and see that everything is as it should be before and after."""
        if name not in self._known:
            self._known[name] = self._learn(name, OPERATIONS[name])
        return self._known[name]

    def _learn(self, name: str, operation: Operation) -> Known:
        begin = f"begin-{name}"
        self._disk.copy("empty" if operation.empty else "base", begin)
        if (prepare := operation.prepare) is not None:
            self._on(begin, lambda: self._work(prepare))
        before: Listing = {} if operation.empty else self._base["listing"]
        known = Known(name, operation, before, {}, self._base["trees"], [])
        run = self._run(known, None, "")
        assert run.answer == {"ok": True}, run
        seen = self._look(operation, known.trees, repeat=True)
        self._disk.umount()
        assert not seen["problems"], seen
        return Known(name, operation, before, seen["listing"], seen["trees"], run.calls)

    def _run(self, known: Known, point: Point | None, way: str, *, lying: bool = False) -> Run:
        """The operation on a fresh disk, which stays mounted; after a power cut, what is left of it."""
        self._disk.copy(f"begin-{known.name}", "run")
        self._disk.mount("run")

        def cut(journal: bool) -> None:
            if journal:
                self._disk.write_journal()
            self._disk.copy("run", "left")

        wanted = Cut(point, way, cut, self._disk.fill, self._disk.clear, lying)
        supervisor = Supervisor(str(self._world.root), wanted)
        try:
            run = supervisor(performing(self._world, known.operation, way))
        except BaseException:
            self._disk.umount()
            raise
        if run.met and way in ("power", "journal"):
            self._disk.umount()
            self._disk.mount("left")
        return run

    def _look(self, operation: Operation, trees: dict[str, str], *, repeat: bool) -> dict[str, Any]:
        """Start again, on the disk as it is now: what is listed, and what is wrong with it."""

        async def perform(victim: Victim) -> None:
            seen = dict(trees)
            async with self._world.open() as stores:
                listing = stores.listing()
                found = checks.sound(stores)
                if not operation.heals:
                    found += checks.whole(stores, self._mounts, seen)
                await checks.clean_up(stores)
                found += [f"left over: {text}" for text in checks.unlisted(stores)]
                if stores.listing() != listing:
                    found.append("the clean-up changed what is listed")
                victim.say(listing=listing, problems=found, trees=seen)
                if repeat:
                    answer = await _attempt(operation, self._world, stores)
                    await stores.quiet()
                    found = checks.whole(stores, self._mounts, seen)
                    await checks.clean_up(stores)
                    found += [f"left over: {text}" for text in checks.unlisted(stores)]
                    victim.say(repeated=answer, listing=stores.listing(), problems=found, trees=seen)

        words = ask(_child(perform))
        found = [text for word in words for text in word.get("problems", [])]
        found += [f"the next start fails: {word['crash']}" for word in words if "crash" in word]
        repeated = words[-1]
        if repeat and repeated.get("repeated") != {"ok": True}:
            found.append(f"repeated, it fails: {repeated}")
        first = words[0] if words else {}
        return {
            "listing": first.get("listing", {}),
            "finally": repeated.get("listing", {}),
            "problems": found,
            "trees": repeated.get("trees", {}),
        }

    def cut(self, known: Known, point: Point, way: str, report: Report, *, lying: bool = False) -> None:
        """One cut, and everything that must hold after it."""
        run = self._run(known, point, way, lying=lying)
        report.cuts += 1
        try:
            if not run.met:
                report.missed.append(f"{way} at {point}")
                return
            found = judge_run(known, run, way)
            seen = self._look(known.operation, known.trees, repeat=True)
            found += seen["problems"] + judge_listing(known, run, seen)
        finally:
            self._disk.umount()
        report.problems += [f"{known.name}: {way} at {point}: {text}" for text in found]


def judge_run(known: Known, run: Run, way: str) -> list[str]:
    """What is wrong with what the victim said."""
    found = [f"the process fails: {word['crash']}" for word in run.words if "crash" in word]
    for word in run.words:
        found += [f"at once: {text}" for text in word.get("inside", [])]
        if word.get("again", {"ok": True}) != {"ok": True}:
            found.append(f"tried again with room, it fails: {word['again']}")
        if "listing" in word and not _allowed(known, word["listing"], known.before):
            found.append(f"it failed ({run.answer}), and this is listed: {_difference(known.before, word['listing'])}")
    answer = run.answer or {}
    if answer.get("known") is False:
        found.append(f"it failed with {answer['error']}: {answer['text']}")
    if way == "full" and known.operation.frees and not answer.get("ok"):
        found.append(f"what frees room fails when there is none: {answer}")
    return found


def judge_listing(known: Known, run: Run, seen: dict[str, Any]) -> list[str]:
    """What is wrong with what is listed after a restart, and after the operation was repeated."""
    found = []
    listing, answer = seen["listing"], run.answer or {}
    done = answer.get("ok") or any(word.get("again") == {"ok": True} for word in run.words)
    if done:
        if listing != known.after:
            found.append(f"it had answered, and is not there: {_difference(known.after, listing)}")
    elif answer:
        if not _allowed(known, listing, known.before):
            found.append(f"it had failed, and this is listed: {_difference(known.before, listing)}")
    elif not _allowed(known, listing, known.before, known.after):
        found.append(f"neither as before nor as after: {_difference(known.before, listing)}")
    if seen["finally"] != known.after:
        found.append(f"repeated, it gives something else: {_difference(known.after, seen['finally'])}")
    return found


def _allowed(known: Known, listing: Listing, *states: Listing) -> bool:
    """Whether it is one of the states; where each image has its own, a mixture of before and after."""
    if not known.operation.by_image:
        return listing in states
    ids = {*known.before, *known.after, *listing}
    return all(listing.get(id) in (known.before.get(id), known.after.get(id)) for id in ids)


def _difference(expected: Listing, actual: Listing) -> str:
    lines = []
    for id in sorted({*expected, *actual}):
        if expected.get(id) != actual.get(id):
            lines.append(f"{id[7:19]}: {actual.get(id)} instead of {expected.get(id)}")
    return "; ".join(lines)


def points(calls: Sequence[str]) -> Iterator[Point]:
    seen: Counter[str] = Counter()
    for call in calls:
        seen[call] += 1
        yield Point(call, seen[call])


def everything(known: Known, ways: Sequence[str]) -> Iterator[tuple[Point, str]]:
    """Every call of the operation, in every way that means something for it."""
    for point in [*points(known.calls), Point(LAST, 1)]:
        for way in ways:
            if way in _ERRORS and point.label == LAST:
                continue
            if way in ("enospc", "full") and point.label.split()[0] not in _GROWING:
                continue
            yield point, way


def sample(known: Known, ways: Sequence[str], limit: int) -> list[tuple[Point, str]]:
    """The end of the operation in each way, and of each kind of call the first one in some way, as far as `limit`."""
    found = [(point, way) for point, way in everything(known, ways) if point.label == LAST]
    counts = Counter(known.calls)
    offered: dict[str, list[str]] = {}
    for point, way in everything(known, ways):
        if point.label != LAST and point.occurrence == 1:
            offered.setdefault(point.label, []).append(way)
    for round in range(len(ways)):
        for at, (label, possible) in enumerate(offered.items()):
            if round < len(possible) and len(found) < limit:
                way = possible[(at + round) % len(possible)]
                occurrence = 1 + (at + round) % counts[label]
                found.append((Point(label, occurrence), way))
    return found


def answer(lab: Lab, request: dict[str, Any]) -> Report:
    known = lab.learn(request["operation"])
    ways = request.get("ways") or WAYS
    chosen = everything(known, ways) if request.get("every") else sample(known, ways, request.get("limit", 20))
    report = Report(known.name, points=len(known.calls))
    for point, way in chosen:
        if request.get("only", "") in f"{way} at {point}":
            lab.cut(known, point, way, report, lying=request.get("lying", False))
    return report


def main(place: Path) -> None:
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("none", str(place), "tmpfs")
    try:
        lab = Lab(place)
    except NoDisk as error:
        print(json.dumps({"unavailable": str(error)}), flush=True)
        return
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(answer(lab, json.loads(line)))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

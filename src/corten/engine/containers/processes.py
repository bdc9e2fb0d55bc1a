"""`docker top`: the host's ps(1), its lines limited to the container's processes, or /proc where there is no ps."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Sequence
from pathlib import Path

from corten.engine.models import Top
from corten.errors import InvalidArgument, SystemFault, clip

DEFAULT_ARGS = "-ef"
_TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_TICKS = os.sysconf("SC_CLK_TCK")


async def top(pids: Sequence[int], ps_args: str) -> Top:
    """Raises InvalidArgument for arguments that ps refuses, or that leave out the PID column."""
    arguments = (ps_args or DEFAULT_ARGS).split()
    # As Docker asks: only these processes; a ps whose arguments contradict -q gets to show all.
    for extra in (["-q", ",".join(map(str, pids))], []):
        try:
            code, output, complaint = await _ps([*arguments, *extra])
        except FileNotFoundError:
            return _without_ps(pids, ps_args)
        if code == 0 or (not complaint and extra):
            return parse(output, pids)
    # ps adds all of its usage to a word about one option.
    raise InvalidArgument(f"ps: {clip(complaint.strip().partition(chr(10))[0])}")


async def _ps(arguments: Sequence[str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        "ps",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


def parse(output: str, pids: Sequence[int]) -> Top:
    """ps's table as rows: the last column takes the rest of its line. Raises InvalidArgument without a PID column."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column, wanted = titles.index("PID"), {str(pid) for pid in pids}
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return Top(titles, [row for row in rows if len(row) > column and row[column] in wanted])


def _without_ps(pids: Sequence[int], ps_args: str) -> Top:
    if ps_args not in ("", DEFAULT_ARGS):
        raise SystemFault("this host has no ps command: top works without arguments only")
    rows = [row for pid in sorted(pids) if (row := _row(pid)) is not None]
    return Top(list(_TITLES), rows)


def _row(pid: int) -> list[str] | None:
    """The columns of `ps -ef`; None for a process that has ended."""
    folder = Path("/proc") / str(pid)
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        name = f"[{(folder / 'comm').read_text().strip()}]"
        uid = folder.stat().st_uid
        boot = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return None
    spent = (int(fields[11]) + int(fields[12])) / _TICKS
    started = boot + int(fields[19]) / _TICKS
    lived = max(time.time() - started, 1)
    clock = f"{int(spent) // 3600:02}:{int(spent) // 60 % 60:02}:{int(spent) % 60:02}"
    since = time.strftime("%H:%M" if lived < 86400 else "%b%d", time.localtime(started))
    return [
        _user(uid),
        str(pid),
        fields[1],
        str(int(spent * 100 / lived)),
        since,
        _tty(int(fields[4])),
        clock,
        command or name,
    ]


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _tty(number: int) -> str:
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    return f"pts/{minor}" if 136 <= major <= 143 else "?"

"""How much is done: a short form in the ordinary run, and the long one whose figures are in docs/reliability.md."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """`containers` in each of `rounds`, `at_once` of them at a time; `watchers` clients; `seconds` of load."""

    containers: int
    rounds: int
    at_once: int
    watchers: int
    seconds: float
    kills: int


SHORT = Scale(containers=24, rounds=3, at_once=8, watchers=40, seconds=3, kills=12)
LONG = Scale(containers=500, rounds=10, at_once=20, watchers=200, seconds=60, kills=200)
SCALE = LONG if os.environ.get("CORTEN_STRESS") == "long" else SHORT

"""How much slower than a quiet machine this one is: measured once a run, and the waits of its tests stretched by it.

Machines are shared, and a neighbour's load is no fault of the product. Stretched within bounds: a wait that ends in
vain takes at most four times as long, and the run's own deadline stays where it is.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time

VARIABLE = "GUNPOWDER_TEST_SLOWNESS"


def measure() -> float:
    """Between 1 and 10. The worst of what whole stacks live on: counting, new memory, several programs at once."""
    moments = [time.perf_counter()]
    total = 0
    for number in range(300_000):
        total += number
    moments.append(time.perf_counter())
    fresh = bytearray(16 * 2**20)
    for place in range(0, len(fresh), 4096):
        fresh[place] = 1
    moments.append(time.perf_counter())
    programs = [subprocess.Popen([sys.executable, "-c", "import asyncio, json, ssl"]) for _ in range(6)]
    for program in programs:
        program.wait(timeout=60)
    moments.append(time.perf_counter())
    counted, used, started = (after - before for before, after in itertools.pairwise(moments))
    return min(max(1.0, counted / 0.03, used / 0.02, started / 0.6), 10.0)


# Every process of a run must come to the same result: they plan by it who plays which tests.
if VARIABLE not in os.environ:
    os.environ[VARIABLE] = f"{measure():.1f}"
SLOWNESS = float(os.environ[VARIABLE])
PATIENCE = min(max(2.0, SLOWNESS), 4.0)  # by which waits are stretched
SLOW = SLOWNESS >= 3  # so slow that the product's own short timeouts are reached, rightly
PACE = 5 if SLOW else 1  # a slow machine is not asked more often than it can answer


def examples(usual: int) -> int:
    """How many examples a property is tried with: a quarter on a slow machine, other ones in each run."""
    return max(10, usual // 4) if SLOW else usual

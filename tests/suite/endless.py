"""A test without an end. Its name keeps it out of the suite; test_leftovers.py plays it in runs of its own."""

from __future__ import annotations

import time


def test_that_never_ends() -> None:
    while True:
        time.sleep(1)

"""Which tests are played by one process, one after the other, and which come first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.suite.patience import SLOW

if TYPE_CHECKING:
    import pytest


def group_of(item: pytest.Item | None) -> str:
    """The tests that share one stack, or whatever else is made once for many."""
    marker = None if item is None else item.get_closest_marker("xdist_group")
    return "" if marker is None else str(marker.args[0])


def process_of(item: pytest.Item) -> str:
    """The tests that one process plays. Two stacks side by side take several times as long on a slow machine."""
    group = group_of(item)
    return "stack" if SLOW and group == "idle" else group


def turn_of(item: pytest.Item) -> tuple[int, str]:
    """What a list of tests is sorted by. Those of one group follow each other, so that a stack can be taken down after
    its last test. The longest come first: the stories that wait for minutes, then the stack. On a slow machine stacks
    come last, when nothing else is left beside them.
    """
    group = group_of(item)
    if SLOW:
        return int(item.get_closest_marker("stack") is not None), group
    return {"idle": 0, "stack": 1, "runs": 2, "workspace image": 3}.get(group, 4), group

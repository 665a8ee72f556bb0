"""Which tests are played by one process, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def group_of(item: pytest.Item | None) -> str:
    """The tests that share one stack, or whatever else is made once for many."""
    marker = None if item is None else item.get_closest_marker("xdist_group")
    return "" if marker is None else str(marker.args[0])

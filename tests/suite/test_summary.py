"""What the end of a run's log says."""

from __future__ import annotations

from tests.suite.summary import Running, Summary


def _summary(tests: int, *, failing: int = 0) -> Summary:
    summary = Summary(seed="42", total=tests)
    for number in range(tests):
        nodeid = f"tests/folder{number % 3}/test_x.py::test_{number}"
        for phase, seconds in (("setup", 0.5), ("call", float(number)), ("teardown", 0.0)):
            error = f"AssertionError: {number}" if phase == "call" and number < failing else None
            summary.add(nodeid, phase=phase, seconds=seconds, error=error)
    return summary


def test_it_names_folders_slowest_failures_and_the_seed() -> None:
    lines = _summary(30, failing=2).lines()
    assert lines[0] == "30 of 30 tests are over"
    assert "   160.0  tests/folder2" in lines  # 2 + 5 + … + 29, and half a second of setup each
    assert lines.index("    29.5  tests/folder2/test_x.py::test_29") < lines.index(
        "    28.5  tests/folder1/test_x.py::test_28"
    )
    assert "  tests/folder1/test_x.py::test_1: AssertionError: 1" in lines
    assert lines[-1].startswith("Seed: 42")


def test_it_fits_on_a_screen_however_much_there_is() -> None:
    lines = _summary(3000, failing=1000).lines([Running("gw0", "tests/x.py::test_y", "call", 61.2)])
    assert len(lines) <= 50
    assert "  … and 988 more, named above" in lines
    assert "  gw0 tests/x.py::test_y (call, 61 s)" in lines


def test_an_error_outside_of_the_test_itself_says_where() -> None:
    summary = Summary(total=1)
    summary.add("tests/x.py::test_y", phase="setup", seconds=0.1, error="KeyError: 'z'")
    assert "  setup of tests/x.py::test_y: KeyError: 'z'" in summary.lines()
    assert summary.lines()[-1] == "Seed: none"

from __future__ import annotations

import re

import pytest

from workspaces import states
from workspaces.api.representation import STATE_SENTENCES
from workspaces.states import ACTIVE, SENTENCES, SETTLED, TRANSITIONS, Reason, State, sources_of

_ROW = re.compile(r"^(\w+)\s*->\s*(\w+(?:, \w+)*)\s{2,}\S", re.MULTILINE)


def test_the_docstrings_table_is_the_dict() -> None:
    told: dict[State, set[State]] = {state: set() for state in State}
    for source, targets in _ROW.findall(states.__doc__ or ""):
        told[State(source)] |= {State(target) for target in targets.split(", ")}
    assert told == {state: set(TRANSITIONS[state]) for state in State}


def test_every_state_is_either_active_or_settled() -> None:
    assert set(State) == ACTIVE | SETTLED
    assert not ACTIVE & SETTLED


def test_every_state_can_be_entered_and_left() -> None:
    for state in State:
        assert TRANSITIONS[state], f"{state} cannot be left"
        assert sources_of(state), f"{state} cannot be entered"


def test_no_transition_leads_to_itself() -> None:
    assert all(state not in targets for state, targets in TRANSITIONS.items())


@pytest.mark.parametrize("state", State)
def test_sources_are_the_transitions_read_backwards(state: State) -> None:
    assert sources_of(state) == {source for source in State if state in TRANSITIONS[source]}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence(reason: Reason) -> None:
    assert SENTENCES[reason].endswith(".")


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_sentence(state: State) -> None:
    assert STATE_SENTENCES[state].endswith(".")


def test_the_public_codes_are_still_there() -> None:
    """Programs outside were written against these; none is ever renamed."""
    assert {str(state) for state in State} == {"stopped", "starting", "running", "stopping", "failed"}
    promised = "user staff idle lifetime removed exited oom crashed start_timeout engine disabled"
    assert set(promised.split()) <= {str(reason) for reason in Reason}

"""Random requests, faults, lost and repeated messages over the in-memory runtime and real Postgres.

After each step nothing that must never be false is false; in the end, with the runtime reachable and the sweeps run,
everything settles and rows equal containers.
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.suite.patience import examples
from workspaces import lifecycle, sweeps
from workspaces.errors import AccessDenied, RuntimeUnavailable, StartRefused
from workspaces.models import Transition, Workspace
from workspaces.runtimes.memory import MemoryRuntime
from workspaces.states import TRANSITIONS, Reason, State, Wanted

USERS = 2
WHO = st.integers(min_value=0, max_value=USERS - 1)
Message = tuple[str, int, int]  # what, workspace, generation


class Lifecycle(RuleBasedStateMachine):
    """Delivers messages by hand: in any order, twice, late, or never."""

    @initialize()
    def begin(self) -> None:
        Workspace.objects.all().delete()
        get_user_model()._default_manager.all().delete()
        self.runtime = MemoryRuntime()
        self.users = [
            get_user_model()._default_manager.create(username=f"user-{number}", password="!") for number in range(USERS)
        ]
        self.sent: list[Message] = []

    # --- requests ---

    @rule(who=WHO)
    def start(self, who: int) -> None:
        try:
            workspace = lifecycle.request_start(self.users[who], actor=None)
        except AccessDenied:
            assert not self.users[who].is_active
            return
        self._note(workspace)

    @rule(who=WHO)
    def stop(self, who: int) -> None:
        if (workspace := self._workspace(who)) is not None:
            self._note(lifecycle.request_stop(workspace, actor=None))

    @rule(who=WHO)
    def restart(self, who: int) -> None:
        if self.users[who].is_active:
            self._note(lifecycle.request_restart(self.users[who], actor=None))

    @rule(who=WHO)
    def idle(self, who: int) -> None:
        workspace = self._workspace(who)
        if workspace is not None:
            moved = lifecycle.stop_if_unchanged(workspace, reason=Reason.IDLE, decision={}, now=timezone.now())
            if moved is not None:
                self._note(moved)

    @rule(who=WHO)
    def disable(self, who: int) -> None:
        self.users[who].is_active = False
        self.users[who].save(update_fields=["is_active"])
        sweeps.stop_disabled(now=timezone.now())

    @rule(who=WHO)
    def enable(self, who: int) -> None:
        self.users[who].is_active = True
        self.users[who].save(update_fields=["is_active"])

    # --- the queue ---

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), keep=st.booleans())
    def deliver(self, data: st.DataObject, *, keep: bool) -> None:
        """Any message, also an old one; kept ones are delivered again later."""
        index = data.draw(st.integers(min_value=0, max_value=len(self.sent) - 1))
        self._perform(self.sent[index])
        if not keep:
            del self.sent[index]

    @precondition(lambda self: self.sent)
    @rule()
    def lose_every_message(self) -> None:
        self.sent.clear()

    # --- the world ---

    @rule(who=WHO, code=st.sampled_from([0, 1, 137, 139, 143]), memory=st.booleans())
    def a_container_ends(self, who: int, code: int, *, memory: bool) -> None:
        name = self._container(who)
        if name in self.runtime.running_names():
            self.runtime.end(name, exit_code=code, out_of_memory=memory)

    @rule(who=WHO)
    def a_container_is_removed(self, who: int) -> None:
        if self.runtime.reachable:
            self.runtime.ensure_removed(self._container(who))

    @rule(reachable=st.booleans())
    def the_runtime_comes_or_goes(self, *, reachable: bool) -> None:
        self.runtime.reachable = reachable

    @rule(refuse=st.booleans())
    def starts_fail_or_work(self, *, refuse: bool) -> None:
        self.runtime.refuse = StartRefused("There is no such image.", code="image_missing") if refuse else None

    @rule(hours=st.sampled_from([0, 1, 30]))
    def the_sweeps_run(self, hours: int) -> None:
        later = timezone.now() + timedelta(hours=hours)
        before = dict(Workspace.objects.values_list("pk", "state"))
        reports = [
            sweeps.reconcile(runtime=self.runtime, now=later),
            sweeps.fail_overdue(runtime=self.runtime, now=later),
        ]
        if not self.runtime.reachable:
            assert all(report.skipped for report in reports)
            assert before == dict(Workspace.objects.values_list("pk", "state")), "nothing is known, yet a row changed"
        for workspace in Workspace.objects.all():
            self._note(workspace)

    # --- what must never be false ---

    @invariant()
    def rows_are_possible(self) -> None:
        rows = list(Workspace.objects.all())
        ports = [row.port for row in rows if row.port is not None]
        assert len(ports) == len(set(ports))
        for row in rows:
            assert row.state != State.RUNNING or row.port is not None
            assert row.state not in {State.STOPPED, State.FAILED} or row.port is None
            assert (row.state == State.FAILED) == bool(row.error_code)

    @invariant()
    def history_is_legal(self) -> None:
        for row in Workspace.objects.all():
            steps = list(Transition.objects.filter(workspace=row).order_by("id").values_list("from_state", "to_state"))
            assert all(State(after) in TRANSITIONS[State(before)] for before, after in steps)
            assert all(one[1] == two[0] for one, two in itertools.pairwise(steps))
            assert not steps or steps[-1][1] == row.state

    @invariant()
    def a_user_has_one_container_at_most(self) -> None:
        names = self.runtime.running_names()
        assert len(names) == len(set(names)) <= USERS

    def teardown(self) -> None:
        """With the world healthy again, every row settles and equals its container."""
        self.runtime.reachable, self.runtime.refuse = True, None
        for _ in range(8):
            for row in Workspace.objects.filter(state__in=(State.STARTING, State.STOPPING)):
                self._note(row)
            for message in list(self.sent):
                self._perform(message)
            self.sent.clear()
            sweeps.stop_disabled(now=timezone.now())
            sweeps.reconcile(runtime=self.runtime, now=timezone.now() + timedelta(minutes=1))
        rows = list(Workspace.objects.all())
        running = set(self.runtime.running_names())
        assert {row.container for row in rows if row.state == State.RUNNING} == running
        for row in rows:
            assert row.state in {State.RUNNING, State.STOPPED, State.FAILED}
            assert row.state != State.RUNNING or row.wanted == Wanted.RUNNING

    # --- helpers ---

    def _workspace(self, who: int) -> Workspace | None:
        return Workspace.objects.filter(user=self.users[who]).first()

    def _container(self, who: int) -> str:
        workspace = self._workspace(who)
        return "" if workspace is None else workspace.container

    def _note(self, workspace: Workspace) -> None:
        if workspace.is_saved and workspace.state in {State.STARTING, State.STOPPING}:
            what = "start" if workspace.state == State.STARTING else "stop"
            self.sent.append((what, workspace.pk, workspace.generation))

    def _perform(self, message: Message) -> None:
        what, pk, generation = message
        perform = lifecycle.perform_start if what == "start" else lifecycle.perform_stop
        try:
            perform(pk, generation, runtime=self.runtime)
        except RuntimeUnavailable:
            assert not self.runtime.reachable
        for workspace in Workspace.objects.filter(pk=pk):
            self._note(workspace)

    def __getattr__(self, name: str) -> Any:
        # Rules run before `begin` only in their preconditions; there nothing is sent yet.
        if name == "sent":
            return []
        raise AttributeError(name)


@pytest.mark.django_db(transaction=True)
def test_the_lifecycle_converges_whatever_happens() -> None:
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=examples(40),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )

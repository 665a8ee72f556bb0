"""Pauses of idle stops follow the groups that they are for."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group

from workspaces import rules
from workspaces.models import IdlePause

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

pytestmark = pytest.mark.django_db


@pytest.fixture
def lesson(now: datetime) -> IdlePause:
    """A pause for one group, in force now."""
    pause = IdlePause.objects.create(name="Class", starts_at=now - timedelta(hours=1), ends_at=now + timedelta(hours=1))
    pause.groups.add(Group.objects.create(name="class"))
    return pause


def test_a_pause_whose_only_group_is_deleted_is_for_nobody(lesson: IdlePause, user: Any, now: datetime) -> None:
    before = rules.mark()
    lesson.groups.get().delete()
    assert rules.load([user.pk], now=now).pauses_for(user.pk) == ()
    lesson.refresh_from_db()
    assert not lesson.enabled
    assert rules.mark() != before


def test_a_pause_whose_groups_are_deleted_together_is_for_nobody(lesson: IdlePause, user: Any, now: datetime) -> None:
    lesson.groups.add(Group.objects.create(name="other"))
    Group.objects.all().delete()
    assert rules.load([user.pk], now=now).pauses_for(user.pk) == ()


def test_a_pause_for_another_group_besides_goes_on(lesson: IdlePause, user: Any, now: datetime) -> None:
    other = Group.objects.create(name="other")
    lesson.groups.add(other)
    user.groups.add(other)
    lesson.groups.get(name="class").delete()
    lesson.refresh_from_db()
    assert lesson.enabled
    assert len(rules.load([user.pk], now=now).pauses_for(user.pk)) == 1


def _joins(user: Any, group: Group) -> None:
    user.groups.add(group)


def _is_taken_in(user: Any, group: Group) -> None:
    group.user_set.add(user)


def _leaves(user: Any, group: Group) -> None:
    user.groups.add(group)
    user.groups.remove(group)


def _is_put_out_with_all(user: Any, group: Group) -> None:
    user.groups.add(group)
    group.user_set.clear()


@pytest.mark.parametrize("change", [_joins, _is_taken_in, _leaves, _is_put_out_with_all])
def test_who_joins_or_leaves_is_worked_out_anew(lesson: IdlePause, user: Any, change: Callable[..., None]) -> None:
    before = rules.mark()
    change(user, lesson.groups.get())
    assert rules.mark() != before

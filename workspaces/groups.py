"""What follows for pauses of idle stops when groups, or who is in them, change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models.signals import m2m_changed, post_delete, pre_delete
from django.dispatch import receiver
from django.utils import timezone

from workspaces.models import IdlePause

if TYPE_CHECKING:
    from django.db.models import QuerySet


@receiver(pre_delete, sender=Group)
def group_will_be_deleted(instance: Group, **_: Any) -> None:
    """Note its pauses on it: afterwards nothing tells which they were."""
    vars(instance)["pauses"] = list(IdlePause.objects.filter(groups=instance).values_list("pk", flat=True))


@receiver(post_delete, sender=Group)
def group_is_deleted(instance: Group, **_: Any) -> None:
    """A pause that was for deleted groups alone is for nobody now. Without groups it would be one for everybody.

    Looked at afterwards, because several may be deleted at once.
    """
    concerned = IdlePause.objects.filter(pk__in=vars(instance)["pauses"])
    concerned.filter(groups=None).update(enabled=False)
    _work_out_anew(concerned)


@receiver(m2m_changed, sender=get_user_model().groups.through)
def membership_changes(action: str, instance: Any, pk_set: set[int] | None, *, reverse: bool, **_: Any) -> None:
    """The stops of those concerned are worked out anew with the next sweep, as after a change of the pause itself."""
    if action not in {"post_add", "post_remove", "pre_clear"}:
        return
    if reverse:  # the users of a group
        groups = [instance.pk]
    else:
        groups = list(instance.groups.values_list("pk", flat=True)) if pk_set is None else list(pk_set)
    _work_out_anew(IdlePause.objects.filter(groups__in=groups))


def _work_out_anew(pauses: QuerySet[IdlePause]) -> None:
    pauses.update(updated_at=timezone.now())

"""The only door from a user to a workspace row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model

from workspaces.errors import AccessDenied
from workspaces.models import Workspace

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

    from workspaces.querysets import WorkspaceQuerySet


def get_workspace_for(user: Any) -> Workspace:
    """The user's own workspace; before the first start an unsaved one in state `stopped`."""
    found = Workspace.objects.filter(user_id=user.pk).first()
    return found if found is not None else Workspace(user=user)


def ensure_workspace_for(user: Any) -> Workspace:
    """The user's own workspace, made on first use. Raises AccessDenied for a user who may not come in."""
    if not user.is_active:
        raise AccessDenied("This account is disabled. Ask your administrator to enable it.")
    workspace, _ = Workspace.objects.get_or_create(user_id=user.pk)
    return workspace


def find_user_for_staff(user_id: int) -> AbstractBaseUser | None:
    """The user whose workspace a member of staff names, with or without a workspace yet."""
    return get_user_model()._default_manager.filter(pk=user_id).first()


def all_workspaces() -> WorkspaceQuerySet:
    """For staff only; the caller has checked that."""
    return Workspace.objects.select_related("user")


def may_see_all(user: Any) -> bool:
    """Whether this member of staff may see everybody's workspaces: as in the admin, who may change may also see."""
    return bool(user.is_staff and (user.has_perm("workspaces.view_workspace") or may_change_all(user)))


def may_change_all(user: Any) -> bool:
    """Whether this member of staff may start and stop them."""
    return bool(user.is_staff and user.has_perm("workspaces.change_workspace"))

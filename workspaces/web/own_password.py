"""A new password of one's own, in the admin. Whoever found a session open must not guess the old one there."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.urls import reverse_lazy

from workspaces.errors import LockedOut
from workspaces.logins import known_here, password_tried
from workspaces.web.forms import in_words

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


class OwnPasswordForm(AdminPasswordChangeForm):
    def clean_old_password(self) -> Any:
        """Raises ValidationError where it is wrong, LockedOut where too many were."""
        try:
            with password_tried(self.user, where="new password"):
                return super().clean_old_password()
        except LockedOut as locked:
            wait = in_words(locked.retry_after)
            sentence = f"Too many wrong passwords were typed here. Wait {wait}, then try again."
            raise LockedOut(sentence, retry_after=locked.retry_after) from None


def own_password(request: HttpRequest) -> HttpResponseBase:
    """As in Django's admin, but for the form."""
    view = PasswordChangeView.as_view(
        form_class=OwnPasswordForm,
        success_url=reverse_lazy("admin:password_change_done"),
        template_name="registration/password_change_form.html",
        extra_context=admin.site.each_context(request),
    )
    response = view(request)
    if response.status_code == HTTPStatus.FOUND:  # it is set: the account is known here by its new one
        known_here(request, response)
    return response

"""The log-in form: Django's own, with words for people."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.forms import AuthenticationForm

from workspaces import passwords

# One sentence for a wrong name, a wrong password and a disabled account: it must not tell which accounts exist.
WRONG = "That user name and password do not belong to an active account. Check both and try again."


MINUTE = 60


def in_words(seconds: int) -> str:
    """How long to wait, rounded up: nobody reads `346 seconds`."""
    number, unit = (seconds, "second") if seconds <= MINUTE else (-(-seconds // MINUTE), "minute")
    return f"{number} {unit}{'' if number == 1 else 's'}"


class LoginForm(AuthenticationForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.error_messages = {**self.error_messages, "invalid_login": WRONG, "inactive": WRONG}
        for field in self.fields.values():
            field.widget.attrs["aria-describedby"] = "login-error"
        name, password = self.fields["username"], self.fields["password"]
        name.label = "User name"
        name.widget.attrs["autocapitalize"] = "none"
        # After a refusal the name is filled in again, so the next thing to type is the password.
        retyping = self.is_bound or bool(self.initial.get("username"))
        name.widget.attrs["autofocus"] = not retyping
        password.widget.attrs["autofocus"] = retyping

    def clean(self) -> dict[str, Any]:
        """Raise ValidationError for what is not right, and what the check of a password raises."""
        if len(self.cleaned_data.get("password", "")) > passwords.LONGEST:
            raise self.get_invalid_login_error()
        return super().clean()

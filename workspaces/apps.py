from django.apps import AppConfig
from django.db.models.signals import post_migrate


class WorkspacesConfig(AppConfig):
    name = "workspaces"
    verbose_name = "Workspaces"

    def ready(self) -> None:
        from workspaces import checks, groups, old_tokens  # noqa: F401 - the first two register what they have

        post_migrate.connect(old_tokens.forget, sender=self)

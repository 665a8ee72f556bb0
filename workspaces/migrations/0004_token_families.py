"""Families of tokens, in the place of rows that held each refresh token itself.

Programs that were logged in log in again. The old tables stay until a later release drops them: a web service of the
release before still answers while this one comes up, and again if this one is taken back. `workspaces.old_tokens`
empties them after every migration.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("workspaces", "0003_start_queue"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="TokenFamily",
            fields=[
                ("login", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("newest", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField(db_index=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel(name="EndedLogin")]),
    ]

"""Families of tokens, in the place of rows that held each refresh token itself: those are deleted, with their tables.

Programs that were logged in log in again.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

OLD_TABLES = ("token_blacklist_blacklistedtoken", "token_blacklist_outstandingtoken")


def forget_the_old_app(apps, schema_editor):
    """Its permissions would still be offered in the admin."""
    apps.get_model("contenttypes", "ContentType").objects.filter(app_label="token_blacklist").delete()
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'token_blacklist'")


class Migration(migrations.Migration):
    dependencies = [
        ("workspaces", "0003_start_queue"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
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
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.DeleteModel(name="EndedLogin"),
        migrations.RunSQL([f"DROP TABLE IF EXISTS {table}" for table in OLD_TABLES], migrations.RunSQL.noop),
        migrations.RunPython(forget_the_old_app, migrations.RunPython.noop),
    ]

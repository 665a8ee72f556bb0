"""Families of tokens, in the place of rows that held each refresh token itself: those are deleted.

Programs that were logged in log in again. The old tables stay, empty, until a later release drops them: a web service of
the release before still answers while this one comes up, and again if this one is taken back. What it writes into them
meanwhile opens nothing here, because it names no family.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

OLD_TABLES = ("token_blacklist_blacklistedtoken", "token_blacklist_outstandingtoken")


def forget_old_tokens(apps, schema_editor):
    """Empty the old app's tables, where there are any, and take its permissions out of the admin.

    Nor do they point at users any more: a row that comes in later would keep its user from being deleted.
    """
    connection = schema_editor.connection
    users = apps.get_model(settings.AUTH_USER_MODEL)._meta.db_table
    with connection.cursor() as cursor:
        there = [table for table in OLD_TABLES if table in connection.introspection.table_names(cursor)]
        if there:
            cursor.execute(f"TRUNCATE {', '.join(there)}")
        for table in there:
            for name, found in connection.introspection.get_constraints(cursor, table).items():
                if found["foreign_key"] and found["foreign_key"][0] == users:
                    cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {connection.ops.quote_name(name)}")
    apps.get_model("contenttypes", "ContentType").objects.filter(app_label="token_blacklist").delete()


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
        migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel(name="EndedLogin")]),
        migrations.RunPython(forget_old_tokens, migrations.RunPython.noop),
    ]

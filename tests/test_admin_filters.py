"""Whatever an address of the admin says, its lists answer: rows, or an explanation, never an error of ours."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin as site
from django.contrib.admin.utils import get_fields_from_path

from gunpowder.logging import OneLine

if TYPE_CHECKING:
    from django.test import Client

    from workspaces.models import Workspace

pytestmark = pytest.mark.django_db(transaction=True)  # what the database refuses would end the test's own
LISTS = sorted(model._meta.label_lower for model in site.site._registry)
VALUES = ("%00", "a%00b", "%ff%fe", "x" * 3000, "9" * 30, "-1", "'", "[]", "", "1e400", "%ED%A0%80")
LOOKUPS = ("", "__exact", "__in", "__isnull", "__gte", "__contains", "__regex", "__range", "__nonsense")
OWN = ("q", "p", "o", "e", "all", "_facets", "_to_field", "_popup", "_changelist_filters", "pk", "pk__in", "id")


def names_of(label: str) -> list[str]:
    """What a person, or somebody who tries, may put into the address of a list."""
    [found] = [each for model, each in site.site._registry.items() if model._meta.label_lower == label]
    fields = {field for field in (*found.list_filter, *found.search_fields) if isinstance(field, str)}
    if found.date_hierarchy:
        fields |= {found.date_hierarchy + part for part in ("__year", "__month", "__day")}
    for field in found.list_filter:
        if isinstance(field, str):
            get_fields_from_path(found.model, field)  # a typing error here would test nothing
    return [*OWN, *(field.lstrip("^=@") + lookup for field in sorted(fields) for lookup in LOOKUPS)]


@pytest.mark.patient(300, "thousands of pages")
@pytest.mark.parametrize("label", LISTS)
def test_every_filter_of_every_list_takes_everything(admin: Client, running: Workspace, label: str) -> None:
    admin.raise_request_exception = False
    path = "/admin/" + label.replace(".", "/") + "/"
    assert admin.get(path).status_code == 200
    wrong = []
    for name in names_of(label):
        for value in VALUES:
            answer = admin.get(f"{path}?{name}={value}")
            if answer.status_code not in {200, 302, 400}:
                wrong.append(f"{answer.status_code} {path}?{name}={value[:40]}")
    assert wrong == []


def test_a_refused_request_is_one_line_in_the_log(client: Client, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        assert client.get("/", headers={"host": "evil.example" + "x" * 3000}).status_code == 400
    [record] = [record for record in caplog.records if record.name.startswith("django.security")]
    assert OneLine().filter(record)
    assert record.exc_info is None
    assert record.exc_text is None
    assert len(record.getMessage()) <= OneLine.LONGEST
    assert "evil.example" in record.getMessage()

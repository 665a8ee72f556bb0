"""Whatever an address of the admin says, its lists answer: rows, or an explanation, never an error of ours."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from asgiref.sync import async_to_sync
from django.contrib import admin as site
from django.contrib.admin.utils import get_fields_from_path
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from gunpowder.logging import OneLine
from workspaces.admin import WorkspaceAdmin

if TYPE_CHECKING:
    from workspaces.models import Workspace

pytestmark = pytest.mark.django_db(transaction=True)  # what the database refuses would end the test's own
LISTS = sorted(model._meta.label_lower for model in site.site._registry)
VALUES = ("%00", "a%00b", "%ff%fe", "x" * 3000, "9" * 30, "-1", "'", "[]", "", "1e400", "%ED%A0%80")
LOOKUPS = ("", "__exact", "__in", "__isnull", "__gte", "__contains", "__regex", "__range", "__nonsense")
SELDOM = ("__in", "__isnull", "__contains", "__nonsense", "__exact")
OWN = ("q", "p", "o", "e", "all", "_facets", "_to_field", "_popup", "_changelist_filters", "pk", "pk__in", "id")


def registered(label: str) -> tuple[Any, Any]:
    """The model, and how the admin shows it."""
    [pair] = [pair for pair in site.site._registry.items() if pair[0]._meta.label_lower == label]
    return pair


def path_of(label: str) -> str:
    return "/admin/" + label.replace(".", "/") + "/"


def names_of(label: str) -> list[str]:
    """What a person, or somebody who tries, may put into the address of a list."""
    _, found = registered(label)
    fields = {field for field in (*found.list_filter, *found.search_fields) if isinstance(field, str)}
    if found.date_hierarchy:
        fields |= {found.date_hierarchy + part for part in ("__year", "__month", "__day")}
    for field in found.list_filter:
        if isinstance(field, str):
            get_fields_from_path(found.model, field)  # a typing error here would test nothing
    return [*OWN, *(field.lstrip("^=@") + lookup for field in sorted(fields) for lookup in LOOKUPS)]


def shown(admin: Client, method: str, path: str, form: dict[str, Any] | None = None) -> str:
    """Empty where that was answered as it should, else what came of it."""
    answer = admin.post(path, form or {}) if method == "POST" else admin.generic(method, path)
    if answer.status_code in {200, 302, 400, 403, 404, 405}:
        return ""
    problem = getattr(answer, "exc_info", None)
    return f"{answer.status_code} {method} {path[:120]} {str(form)[:120]} {problem and problem[0].__name__}"


@pytest.fixture
def client_that_shows_errors(admin: Client) -> Client:
    admin.raise_request_exception = False
    return admin


@pytest.mark.patient(300, "thousands of pages")
@pytest.mark.parametrize("label", LISTS)
def test_every_filter_of_every_list_takes_everything(
    client_that_shows_errors: Client, running: Workspace, label: str
) -> None:
    admin, path = client_that_shows_errors, path_of(label)
    assert admin.get(path).status_code == 200
    # Each value by the ways that were found to matter, each other way by a few of them: pages take their time.
    queries = [
        f"{path}?{name}={value}"
        for name in names_of(label)
        for value in (VALUES[::4] if name.endswith(SELDOM) else VALUES)
    ]
    wrong = [shown(admin, "GET", query) for query in queries]
    wrong += [shown(admin, method, f"{path}?pk__regex=[") for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "POST")]
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.patient(300, "hundreds of pages")
@pytest.mark.parametrize("label", LISTS)
def test_every_page_and_form_behind_a_list_takes_everything(
    client_that_shows_errors: Client, running: Workspace, label: str
) -> None:
    admin, path = client_that_shows_errors, path_of(label)
    model, found = registered(label)
    fields = [field.name for field in model._meta.get_fields() if getattr(field, "editable", False)]
    key = str(model._default_manager.values_list("pk", flat=True).first() or 1)
    actions = [*(found.actions or ()), "delete_selected", "nonsense"]
    # Of what hangs on such an object (schedules have tasks) none is sent along.
    none = {
        f"{related.get_accessor_name()}-{part}_FORMS": "0"
        for related in model._meta.related_objects
        for part in ("TOTAL", "INITIAL")
    }
    wrong = []
    for value in VALUES:
        pages = [f"{path}{value}/{page}/" for page in ("change", "history", "delete")] + [f"{path}{value}/"]
        pages += [f"{path}{key}/change/?_changelist_filters={value}", f"{path}add/?_to_field={value}&_popup={value}"]
        pages += [f"{path}add/?{field}={value}" for field in fields]
        wrong += [shown(admin, method, page) for page in pages for method in ("GET", "HEAD")]
        plain = unquote(value, errors="surrogateescape").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        forms = [{"action": str(action), "_selected_action": plain} for action in actions]
        forms += [{"action": str(action), "_selected_action": key, "select_across": plain} for action in actions]
        wrong += [shown(admin, "POST", f"{path}?{names_of(label)[-1]}={value}", form) for form in forms]
        for page in (f"{path}add/", f"{path}{key}/change/"):
            wrong += [shown(admin, "POST", page, dict.fromkeys(fields, plain) | {"_save": "1"})]
            wrong += [shown(admin, "POST", page, {**none, field: plain, "_save": "1"}) for field in fields]
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("label", LISTS)
def test_actions_on_what_is_no_object_are_bad_requests_as_they_are_served(
    admin: Client, async_client: AsyncClient, label: str
) -> None:
    """Where a view runs in a thread of its own, and what it raises has come a longer way."""
    async_client.cookies, async_client.raise_request_exception = admin.cookies, False
    _, found = registered(label)
    wrong = []
    for action in [*(found.actions or ()), "delete_selected"]:
        name = action if isinstance(action, str) else action.__name__
        form = {"action": name, "_selected_action": "x"}
        answer = async_to_sync(async_client.post)(path_of(label), form)
        if answer.status_code not in {200, 302, 400}:
            wrong.append(f"{name}: {answer.status_code} {getattr(answer, 'exc_info', None)}")
    assert wrong == []


def test_a_query_that_means_nothing_is_left_out_in_words(admin: Client) -> None:
    page = admin.get("/admin/auth/user/?username__regex=[", follow=True)
    assert page.redirect_chain == [("/admin/auth/user/", 302)]
    assert "so it was left out" in page.content.decode()


def test_nul_is_a_bad_request_or_left_out(admin: Client) -> None:
    assert admin.get("/admin/workspaces/workspace/?state=%00").headers["Location"] == "/admin/workspaces/workspace/"
    assert admin.post("/admin/workspaces/workspace/?state=%00", {"action": "x"}).status_code == 400
    assert admin.get("/admin/workspaces/workerbeat/%00/change/").status_code == 400
    form = {"action": "start_selected", "_selected_action": "1\0"}
    assert admin.post("/admin/workspaces/workspace/", form).status_code == 400


def test_a_form_too_deep_to_read_is_a_bad_one(admin: Client) -> None:
    form = {"name": "x", "task": "celery.backend_cleanup", "args": "[" * 100_000 + "]" * 100_000, "kwargs": "{}"}
    assert admin.post("/admin/django_celery_beat/periodictask/add/", form).status_code in {200, 400}


def test_a_search_of_thousands_of_words_is_one_of_a_few(
    admin: Client, running: Workspace, django_assert_max_num_queries: Any
) -> None:
    with CaptureQueriesContext(connection) as asked:
        assert admin.get("/admin/workspaces/workspace/", {"q": "a+" * 3000}).status_code == 200
    assert max(len(query["sql"]) for query in asked.captured_queries) < 100_000


def test_an_action_that_fails_in_the_middle_is_no_bad_form(
    client_that_shows_errors: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored may be wrong, and some of it done."""
    every = IntervalSchedule.objects.create(every=1, period="days")
    task = PeriodicTask.objects.create(name="x", task="celery.backend_cleanup", interval=every, args="7")
    form = {"action": "run_tasks", "_selected_action": task.pk}
    answer = client_that_shows_errors.post("/admin/django_celery_beat/periodictask/", form)
    assert answer.status_code == 500


def broken(*_: Any, **__: Any) -> Any:
    raise ValueError("a fault of ours")


def test_a_fault_of_ours_stays_one_whatever_the_address_says(
    client_that_shows_errors: Client, running: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkspaceAdmin, "get_queryset", broken)
    path = "/admin/workspaces/workspace/"
    assert client_that_shows_errors.get(f"{path}?q=a", follow=True).status_code == 500


def test_a_fault_of_ours_behind_a_form_stays_one(
    client_that_shows_errors: Client, running: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workspaces.lifecycle.request_start", broken)
    form = {"action": "start_selected", "_selected_action": running.pk}
    assert client_that_shows_errors.post("/admin/workspaces/workspace/", form).status_code == 500


def test_a_refused_request_is_one_line_in_the_log(client: Client) -> None:
    [handler] = [found for found in logging.getLogger().handlers if any(isinstance(f, OneLine) for f in found.filters)]
    assert isinstance(handler, logging.StreamHandler)
    written = io.StringIO()
    before = handler.setStream(written)
    try:
        assert client.get("/", headers={"host": "evil.example" + "x" * 3000}).status_code == 400
        strict = Client(enforce_csrf_checks=True)
        assert strict.post("/login", headers={"origin": "https://evil.example/?tkn=secret"}).status_code == 403
    finally:
        handler.setStream(before)
    said = written.getvalue()
    lines = [line for line in said.splitlines() if "evil.example" in line]
    assert len(lines) == 2, said
    assert "Traceback" not in said
    assert "secret" not in said
    assert max(map(len, lines)) <= OneLine.LONGEST + 300  # with its time, its logger and the request's id

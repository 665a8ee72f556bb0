"""`manage.py workspaces doctor [--fix]` and its page in the admin: every finding is caused, said, and put right."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models import F
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from workspaces import doctor, lifecycle, operator, ticket
from workspaces.doctor.findings import Finding, Fix
from workspaces.models import Ticket, Transition, WorkerBeat, Workspace
from workspaces.runtimes.base import Fact, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workspaces.runtimes.memory import MemoryRuntime

pytestmark = pytest.mark.django_db
PAGE = "/admin/workspaces/workspace/doctor/"


class _Door(BaseHTTPRequestHandler):
    """What a visitor meets: `/readyz` and the shut door of somebody's editor."""

    ready: tuple[int, bytes] = (200, b'{"checks": {"database": {"ok": true}, "broker": {"ok": true}}}')
    editor = 401

    def do_GET(self) -> None:
        shut = re.fullmatch("/code/user/[1-9][0-9]{0,17}/", self.path)  # as nginx/editors.conf has it
        status, body = self.ready if self.path == "/readyz" else (self.editor if shut else 404, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        del format, args


@pytest.fixture
def door(configure: Callable[..., None]) -> Iterator[type[_Door]]:
    """A front door of this test's own; what it answers can be changed."""
    answers = type("Door", (_Door,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    configure(port=server.server_address[1])
    yield answers
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def all_well(runtime: MemoryRuntime, door: type[_Door]) -> type[_Door]:
    """Workers, beat and the front door are there; returns the door."""
    for kind in ("lifecycle", "sweeps"):
        WorkerBeat.objects.create(name=f"{kind}@host", at=timezone.now(), runtime_ok=True)
    every, _ = IntervalSchedule.objects.get_or_create(every=5, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(name="workspaces.beat", task="x", interval=every, last_run_at=timezone.now())
    return door


def ask(*options: str) -> dict[str, Any]:
    """The doctor's answer; its exit status must agree."""
    out = StringIO()
    status: Any = 0
    try:
        call_command("workspaces", "doctor", "--json", *options, stdout=out)
    except SystemExit as end:
        status = end.code
    answer: dict[str, Any] = json.loads(out.getvalue())
    assert all(finding["sentence"] and finding["what"] for finding in answer["findings"])
    names = [finding["what"] for finding in answer["findings"]]
    assert len(names) == len(set(names))
    assert status == (0 if all(finding["ok"] for finding in answer["findings"]) else 1)
    return answer


def sick(answer: dict[str, Any]) -> list[str]:
    return sorted(finding["what"] for finding in answer["findings"] if not finding["ok"])


def found(answer: dict[str, Any], what: str) -> dict[str, Any]:
    (one,) = (finding for finding in answer["findings"] if finding["what"] == what)
    return dict(one)


def test_nothing_is_found_where_all_is_well(all_well: type[_Door], running: Workspace) -> None:
    assert sick(ask()) == []
    out = StringIO()
    call_command("workspaces", "doctor", stdout=out)
    lines = out.getvalue().splitlines()
    assert len(lines) >= 12
    assert all(line.startswith("ok ") for line in lines)


def test_a_row_without_its_container_is_found_and_settled(
    all_well: type[_Door], running: Workspace, runtime: MemoryRuntime
) -> None:
    runtime.ensure_removed(running.container)
    before = list(Workspace.objects.values())
    assert sick(ask()) == ["rows without containers"]
    assert list(Workspace.objects.values()) == before  # only looked at
    answer = ask("--fix")
    assert sick(answer) == []
    assert any(sentence.startswith(f"reconcile: workspace {running.user_id}") for sentence in answer["done"])
    running.refresh_from_db()
    assert running.state == "stopped"


def test_a_container_without_its_row_is_found_and_removed(
    all_well: type[_Door], running: Workspace, runtime: MemoryRuntime
) -> None:
    Workspace.objects.all().delete()
    assert sick(ask()) == ["containers without rows"]
    assert sick(ask("--fix")) == []
    assert runtime.running_names() == []


def test_a_gate_that_sends_people_elsewhere_is_found_and_the_workspace_restarted(
    all_well: type[_Door], running: Workspace, runtime: MemoryRuntime
) -> None:
    Workspace.objects.filter(pk=running.pk).update(port=F("port") + 1)
    answer = ask()
    assert sick(answer) == ["gate"]
    assert found(answer, "gate")["users"] == [running.user_id]
    answer = ask("--fix")
    assert answer["done"] == [f"restart: asked for user {running.user_id}"]
    assert sick(answer) == []
    running.refresh_from_db()
    assert (running.state, running.wanted) == ("stopping", "running")


def test_a_start_that_takes_far_too_long_is_found_and_given_up(
    all_well: type[_Door], user: Any, runtime: MemoryRuntime
) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    Workspace.objects.filter(pk=workspace.pk).update(admitted_at=timezone.now() - timedelta(hours=1))
    answer = ask()
    assert sick(answer) == ["starts and stops"]
    assert sick(ask("--fix")) == []
    workspace.refresh_from_db()
    assert (workspace.state, workspace.error_code) == ("failed", "start_timeout")


@pytest.mark.parametrize(("waits_for", "said"), [("memory", "GUNPOWDER_MEMORY_RESERVE"), ("slot", "worker's log")])
def test_a_queue_that_does_not_move_is_found(
    all_well: type[_Door], user: Any, runtime: MemoryRuntime, waits_for: str, said: str
) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    long_ago = timezone.now() - timedelta(minutes=30)
    Workspace.objects.filter(pk=workspace.pk).update(requested_at=long_ago, queued_for=waits_for)
    answer = ask()
    assert sick(answer) == ["start queue"]
    assert "1 starts wait, the first for 30 min" in found(answer, "start queue")["sentence"]
    assert said in found(answer, "start queue")["sentence"]


def test_what_runs_for_a_disabled_account_is_found_and_stopped(all_well: type[_Door], running: Workspace) -> None:
    running.user.is_active = False
    running.user.save()
    assert sick(ask()) == ["disabled accounts"]
    assert sick(ask("--fix")) == []
    running.refresh_from_db()
    assert (running.state, running.wanted) == ("stopping", "stopped")


def test_old_rows_are_worth_an_advice_and_are_deleted(all_well: type[_Door], running: Workspace) -> None:
    ticket.issue(running, login="", now=timezone.now())
    Ticket.objects.update(expires_at=timezone.now() - timedelta(days=9))
    answer = ask()
    assert sick(answer) == []
    assert found(answer, "old rows")["verdict"] == "advice"
    assert found(ask("--fix"), "old rows")["verdict"] == "ok"
    assert not Ticket.objects.exists()


def test_too_few_ports_are_worth_an_advice(
    all_well: type[_Door],
    make_user: Callable[..., Any],
    bring_up: Callable[[Any], Workspace],
    configure: Callable[..., None],
) -> None:
    bring_up(make_user())
    bring_up(make_user())
    configure(port_range=(21000, 21000))
    assert found(ask(), "ports")["verdict"] == "advice"


def test_an_engine_that_does_not_answer_is_found_and_nothing_is_said_of_containers(
    all_well: type[_Door], running: Workspace, runtime: MemoryRuntime
) -> None:
    runtime.reachable = False
    before = list(Workspace.objects.values())
    answer = ask("--fix")
    assert sick(answer) == ["engine"]
    assert not [finding for finding in answer["findings"] if "container" in finding["what"]]
    assert list(Workspace.objects.values()) == before


def test_what_the_runtime_tells_of_its_place_is_said(all_well: type[_Door], runtime: MemoryRuntime) -> None:
    runtime.facts = [
        Fact(what="disk", verdict=Verdict.WRONG, sentence="only 1 GB is left"),
        Fact(what="file watches", verdict=Verdict.ADVICE, sentence="few"),
    ]
    out = StringIO()
    with pytest.raises(SystemExit) as end:
        call_command("workspaces", "doctor", stdout=out)
    assert end.value.code == 1
    assert "WRONG   disk: only 1 GB is left" in out.getvalue()
    assert "ADVICE  file watches: few" in out.getvalue()
    runtime.facts = runtime.facts[1:]
    assert sick(ask()) == []  # an advice is no failure


@pytest.mark.parametrize("kind", ["lifecycle", "sweeps"])
def test_a_kind_of_worker_that_consumes_nothing_is_found(all_well: type[_Door], kind: str) -> None:
    WorkerBeat.objects.filter(name=f"{kind}@host").update(at=timezone.now() - timedelta(minutes=5))
    answer = ask()
    assert sick(answer) == ["workers"]
    assert kind in found(answer, "workers")["sentence"]


@pytest.mark.parametrize("minutes", [None, 10])
def test_a_silent_beat_is_found(all_well: type[_Door], minutes: int | None) -> None:
    last = None if minutes is None else timezone.now() - timedelta(minutes=minutes)
    PeriodicTask.objects.update(last_run_at=last)
    assert sick(ask()) == ["beat"]


def test_a_front_door_that_is_not_there_is_found(all_well: type[_Door], configure: Callable[..., None]) -> None:
    configure(port=1)  # nobody listens on it
    assert sick(ask()) == ["front door"]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b'{"checks": {"database": {"ok": true}, "broker": {"ok": false, "message": "Redis is away."}}}', "Redis"),
        (502, b"<html>", "web answers 502"),
        (503, b"[]", "web answers 503"),
    ],
)
def test_a_front_door_that_is_not_ready_says_what_is_missing(
    all_well: type[_Door], status: int, body: bytes, said: str
) -> None:
    all_well.ready = (status, body)
    answer = ask()
    assert sick(answer) == ["front door"]
    assert said in found(answer, "front door")["sentence"]


def test_what_is_said_of_the_workers_is_not_said_again_of_the_front_door(all_well: type[_Door]) -> None:
    WorkerBeat.objects.all().delete()
    checks = {"database": {"ok": True}, "broker": {"ok": True}, "worker": {"ok": False, "message": "No worker."}}
    all_well.ready = (503, json.dumps({"checks": checks}).encode())
    assert sick(ask()) == ["workers"]


def test_the_front_door_is_asked_by_a_name_that_it_answers_to(
    all_well: type[_Door], configure: Callable[..., None]
) -> None:
    asked = set[str | None]()
    answer = all_well.do_GET

    def note(self: _Door) -> None:
        asked.add(self.headers["Host"])
        answer(self)

    all_well.do_GET = note  # type: ignore[method-assign]
    for hosts, expected in (
        (["code.example.org"], "code.example.org"),
        ([".example.org"], "example.org"),
        (["*"], "localhost"),
    ):
        asked.clear()
        configure(allowed_hosts=hosts)
        assert sick(ask()) == []
        assert asked == {expected}


@pytest.mark.parametrize(
    ("scheme", "proxies", "verdict"),
    [("http", (), "ok"), ("https", (), "advice"), ("https", ("10.0.0.5",), "ok"), ("http", ("10.0.0.5",), "ok")],
)
def test_a_proxy_whose_word_does_not_count_is_found(
    all_well: type[_Door], configure: Callable[..., None], scheme: str, proxies: tuple[str, ...], verdict: str
) -> None:
    configure(public_scheme=scheme, trusted_proxies=proxies)
    assert found(ask(), "addresses")["verdict"] == verdict


@pytest.mark.parametrize("status", [200, 302, 404])
def test_a_door_that_lets_strangers_in_is_found(all_well: type[_Door], status: int) -> None:
    all_well.editor = status
    assert sick(ask()) == ["shut door"]


def test_who_healed_meanwhile_is_not_restarted_and_who_stopped_not_started(
    all_well: type[_Door], running: Workspace, runtime: MemoryRuntime
) -> None:
    wrong_place = Finding(
        what="gate", verdict=Verdict.WRONG, sentence="x", fix=Fix.RESTART, users=(running.user_id, 10**6)
    )
    assert doctor.repair([wrong_place], runtime=runtime) == []
    lifecycle.request_stop(running, actor=None)
    assert doctor.repair([wrong_place], runtime=runtime) == []
    running.refresh_from_db()
    assert (running.state, running.wanted) == ("stopping", "stopped")


def test_a_start_that_finishes_during_the_examination_is_not_called_gone(
    all_well: type[_Door], running: Workspace, runtime: MemoryRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "observe_all", lambda: iter(()))  # the list was made a moment before
    assert sick(ask()) == []


def test_the_files_of_everybody_who_ever_started_are_looked_at_whatever_became_of_it(
    all_well: type[_Door],
    running: Workspace,
    make_user: Callable[..., Any],
    runtime: MemoryRuntime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = Workspace.objects.create(user=make_user("never"), container="")
    examine, asked = runtime.examine, list[frozenset[int]]()

    def note(**arguments: Any) -> Any:
        asked.append(arguments["user_ids"])
        return examine(**arguments)

    monkeypatch.setattr(runtime, "examine", note)
    Workspace.objects.filter(pk=running.pk).update(
        state="failed", wanted="stopped", port=None, error_code="crashed", error_message="x"
    )
    ask()
    assert asked == [frozenset({running.user_id})]
    assert never.user_id not in asked[0]


def test_a_second_container_of_somebody_is_found(
    all_well: type[_Door], running: Workspace, runtime: MemoryRuntime
) -> None:
    there = runtime._containers[running.container].spec
    runtime.stray(replace(there, name="another"))
    assert sick(ask()) == ["containers without rows"]
    assert sick(ask("--fix")) == []
    assert runtime.running_names() == [running.container]


def test_without_engine_and_worker_the_command_says_so(all_well: type[_Door], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "has_runtime", lambda: False)
    monkeypatch.setattr(operator, "WORKER_SECONDS", 0.2)
    with pytest.raises(CommandError, match="No worker answered"):
        call_command("workspaces", "doctor")


# --- the same in the admin ---


def test_the_page_says_the_same_and_its_button_fixes(
    all_well: type[_Door], running: Workspace, runtime: MemoryRuntime, admin: Client
) -> None:
    assert PAGE in admin.get("/admin/workspaces/workspace/").content.decode()
    assert "Nothing is wrong" in admin.get(PAGE).content.decode()
    runtime.ensure_removed(running.container)
    page = admin.get(PAGE).content.decode()
    assert "1 thing wrong" in page
    assert f"user {running.user_id}: the row says `running`" in page
    assert "compare rows and containers" in page
    after = admin.post(PAGE, follow=True).content.decode()
    assert "Nothing is wrong" in after
    assert f"Reconcile: workspace {running.user_id}" in after
    assert "There was nothing to do any more." in admin.post(PAGE, follow=True).content.decode()
    assert Transition.objects.latest("pk").to_state == "stopped"


def test_the_page_says_when_nobody_can_look(
    all_well: type[_Door], admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "has_runtime", lambda: False)
    monkeypatch.setattr(operator, "WORKER_SECONDS", 0.2)
    assert "No worker answered" in admin.get(PAGE).content.decode()


def test_the_page_is_for_staff_with_the_right_only(all_well: type[_Door], user: Any, make_user: Any) -> None:
    client = Client()
    assert client.get(PAGE).status_code == 302
    client.force_login(make_user("helper", is_staff=True))
    assert client.get(PAGE).status_code == 403
    assert client.post(PAGE).status_code == 403

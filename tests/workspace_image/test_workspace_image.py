"""The workspace's image: its command, its report and its editor, with a thread that plays the platform."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.workspace_image.box import EXTENSION, REPORT, milliseconds, script, yes

if TYPE_CHECKING:
    from tests.suite.programs import Background
    from tests.workspace_image.box import Box

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("workspace image")]

MAX_REPORT = 4096


@pytest.fixture(autouse=True)
def _a_clean_folder(box: Box) -> None:
    """What a test leaves in the folder is its own business."""
    box.run(f"chmod 0700 /run/gunpowder; rm -rf /run/gunpowder/* /run/gunpowder/.lock; echo '{{}}' > {REPORT}")


# --- asking is no activity ---------------------------------------------------------------------------------------


def test_reading_the_report_is_no_activity(heartbeats: dict[str, int]) -> None:
    assert (heartbeats["never"], heartbeats["report"]) == (0, 0)


def test_any_other_request_is_activity(heartbeats: dict[str, int]) -> None:
    assert heartbeats["another"] > 0


# --- the command -------------------------------------------------------------------------------------------------


def test_times_are_understood_as_people_write_them(box: Box) -> None:
    words = ["2h", "90m", "1h30m", "45", "1.5h", "2H", " 1h ", "30min", "", "h", "-1h", "1x", "forever", "1h 2"]
    text = f'console.log(JSON.stringify(process.argv.slice(1).map(require("{EXTENSION}/words").minutesIn)))'
    assert box.node(text, "--", *words) == [120, 90, 90, 45, 90, 120, 60, 30] + 6 * [None]


def test_what_is_not_understood_is_said_and_asks_for_nothing(box: Box) -> None:
    wrong = ["keep forever", "keep 0", "keep -- 1h", "sotp", "stop --later", "status --xml"]
    said = box.run("; ".join(f"gunpowder {command} 2>&1; echo $?" for command in wrong)).splitlines()
    assert said[1::2] == ["64"] * len(wrong)
    assert all(line.startswith("gunpowder: ") for line in said[::2])
    assert "request" not in box.report()


def test_each_wish_is_passed_on_and_its_answer_is_printed(box: Box) -> None:
    commands = ["keep", "keep 1h30m", "stop", "stop --when-done", "cancel"]
    with box.platform(yes) as heard:
        said = box.run("set -e; " + "; ".join(f"gunpowder {command}" for command in commands))
    wishes = [(request["verb"], request.get("minutes")) for request in heard]
    assert wishes == [("keep", 60), ("keep", 90), ("stop", None), ("stop_when_done", None), ("cancel", None)]
    assert said.splitlines() == [f"Heard {verb}." for verb, _ in wishes]
    assert len({request["id"] for request in heard}) == len(commands)


def test_a_refusal_is_an_error_with_its_reason(box: Box) -> None:
    with box.platform(lambda _: {"ok": False, "message": "At most 8 hours."}):
        status, said = box.attempt("gunpowder keep 99h")
    assert (status, said) == (1, "gunpowder: At most 8 hours.\n")


def test_no_answer_is_said_after_a_while(unanswered: Background) -> None:
    status, said = unanswered.result()
    assert status == 1
    assert "did not answer within 30 seconds, and your wish was withdrawn" in said


def test_status_says_in_words_when_it_stops_and_why(box: Box) -> None:
    box.tell(
        stops_at=milliseconds(5.2),
        stops_reason="idle",
        idle_seconds=1800,
        work_budget_seconds=28800,
        last_activity_at=milliseconds(-25),
        keep_until=None,
        lifetime_ends_at=milliseconds(23 * 60),
        started_at=milliseconds(-60),
        stop_when_done=False,
        working_on=["make", "cc1plus"],
        warning={"at": milliseconds(5.2), "reason": "idle"},
    )
    lines = {line[:11].strip(): line[11:] for line in box.run("gunpowder status").splitlines()}
    assert lines["State"] == "running; stops in 5 min"
    assert "in 5 min" in lines["Stops at"]
    assert lines["Because"] == "nobody has used it for 25 minutes"
    assert lines["Last used"] == "25 min ago"
    assert lines["Running"] == "make, cc1plus"
    assert "in 23 h" in lines["At most"]
    assert json.loads(box.run("gunpowder status --json"))["idle_seconds"] == 1800


def test_a_status_that_makes_no_sense_breaks_nothing(box: Box) -> None:
    for told in ("", "{", "[]", '{"version": 1}', '{"working_on": 7, "warning": 7}', "x" * 70_000):
        (box.told / "status.json").write_text(told)
        status, said = box.attempt("gunpowder status")
        assert status in {0, 1}
        assert "    at " not in said, f"a stack trace: {said}"


def test_the_command_completes_in_a_terminal(box: Box) -> None:
    box.run("bash -ic 'complete -p gunpowder' 2>/dev/null")
    complete = 'COMP_WORDS=(gunpowder st); COMP_CWORD=1; _gunpowder; echo "${COMPREPLY[@]}"'
    assert box.run(f". /etc/bash_completion.d/gunpowder; {complete}").split() == ["status", "stop"]


# --- the report --------------------------------------------------------------------------------------------------


def test_several_writers_at_once_never_tear_or_lose_anything(box: Box) -> None:
    found: dict[str, Any] = box.node(script("writers.js"))
    assert (found["lost"], found["torn"], found["left"]) == ([], 0, ["report.json"])
    assert found["presence"] == found["most"]
    assert found["longest"] <= MAX_REPORT
    print(f"read {found['reads']} times while six wrote, at most {found['longest']} bytes")


def test_a_lock_whose_owner_died_holds_nobody_up_for_long(box: Box) -> None:
    box.run("touch /run/gunpowder/.lock")
    with box.platform(yes) as heard:
        assert box.run("gunpowder cancel") == "Heard cancel.\n"
    assert len(heard) == 1


def test_a_report_that_was_filled_up_is_small_again_with_the_next_word(box: Box) -> None:
    for size in (3000, 100_000):
        box.run(f'printf \'{{"padding": "%{size}s"}}\' x > {REPORT}')
        with box.platform(yes):
            box.run("gunpowder cancel")
        assert len(box.read_report()) < 300


def test_a_folder_that_was_wiped_is_used_again(box: Box) -> None:
    box.run("rm -rf /run/gunpowder/*")
    with box.platform(yes):
        assert box.run("gunpowder cancel") == "Heard cancel.\n"


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        ("dd if=/dev/zero of=/run/gunpowder/x bs=1k 2>/dev/null || true", "full"),
        ("for ((n = 0; n < 80; n++)); do touch /run/gunpowder/$n || break; done 2>/dev/null", "full"),
        ("chmod 000 /run/gunpowder", "cannot be written"),
    ],
    ids=["no space", "no inodes", "closed"],
)
def test_a_spoilt_folder_is_said_and_the_editor_goes_on(box: Box, harm: str, word: str) -> None:
    box.run(harm)
    status, said = box.attempt("gunpowder keep")
    assert status == 1
    assert word in said
    assert "Code Editor tab" in said
    assert box.healthy()
    assert "workbench" in box.get("/").text


def test_a_container_without_the_folders_has_an_editor_and_a_command_that_says_so(without_folders: Background) -> None:
    _, said = without_folders.result()
    assert "healthy" in said
    assert "started without /run/gunpowder." in said
    assert "started without /run/gunpowder-status." in said
    assert said.count("status 1") == 2
    assert "No such file" not in said


def test_an_editor_whose_working_process_was_killed_says_so_in_its_exit_code(without_folders: Background) -> None:
    """128 and SIGKILL: by this the platform knows an end for want of memory from an ordinary stop."""
    assert without_folders.result()[1].splitlines()[-1] == "ended 137"


# --- the extension -----------------------------------------------------------------------------------------------


def test_presence_is_a_person_and_neither_output_nor_a_terminal_that_was_opened(presence: Background) -> None:
    status, said = presence.result()
    assert status == 0, said
    assert json.loads(said) == {
        "first": "opened",
        "alive": True,
        "soon_after": "opened",
        "later": "cursor",
        "quiet": True,
        "typed": "terminal",
        "newer": True,
        "active": "window",
        "at_once": True,
    }


@pytest.fixture(scope="module")
def shown(notices: Background) -> dict[str, dict[str, Any]]:
    """What the extension showed at each step, by the step's name."""
    status, said = notices.result()
    assert status == 0, said
    return {step["name"]: step for step in json.loads(said)}


def test_nothing_is_shown_while_nothing_is_near(shown: dict[str, dict[str, Any]]) -> None:
    assert (shown["quiet"]["shown"], shown["quiet"]["bar"]) == ([], "")


def test_a_warning_says_when_and_why_once_and_its_button_works(shown: dict[str, dict[str, Any]]) -> None:
    (warning,) = shown["warned"]["shown"][:1]
    assert warning["text"].startswith("This workspace stops in ")
    # 25 when the steps were written down; a slow machine plays them some minutes later.
    assert re.search(r": nobody has used it for 2[5-9] minutes\. ", warning["text"]), warning["text"]
    assert warning["buttons"] == ["Keep 1 hour", "Stop now"]
    assert (shown["warned"]["request"]["verb"], shown["warned"]["request"]["minutes"]) == ("keep", 60)
    assert shown["warned"]["confirmed"] == "Heard."
    assert shown["warned"]["bar"].startswith("$(clock) Stops in ")
    assert shown["warned again"]["shown"] == []


def test_a_keep_is_shown_and_can_be_withdrawn(shown: dict[str, dict[str, Any]]) -> None:
    assert shown["kept"]["bar"].startswith("$(clock) Kept for ")
    (pick,) = shown["kept"]["shown"]
    assert pick["buttons"][-1] == "As usual: stop when nobody uses it"
    assert "Stop when the command ends" not in pick["buttons"]


def test_a_command_that_runs_is_named_and_may_end_first(shown: dict[str, dict[str, Any]]) -> None:
    (warning,) = shown["budget"]["shown"]
    assert "work went on for 8 hours without anybody here" in warning["text"]
    assert warning["buttons"][-1] == "Stop when the command ends"
    assert shown["waiting"]["bar"] == "$(clock) Stops when done"
    (question,) = shown["stop"]["shown"]
    assert "Running in a terminal: make." in question["detail"]
    (question,) = shown["stop, unknown"]["shown"]
    assert "What runs in a terminal would be ended." in question["detail"]


def test_the_end_of_the_longest_running_time_is_said_once(shown: dict[str, dict[str, Any]]) -> None:
    (ending,) = shown["old"]["shown"]
    assert "longest running time" in ending["text"]
    assert "start it again at once" in ending["text"]
    assert ending["buttons"], "without a button it is cut off after a line"
    assert shown["old again"]["shown"] == []


def test_an_absurd_status_shows_nothing(shown: dict[str, dict[str, Any]]) -> None:
    assert (shown["absurd"]["shown"], shown["absurd"]["bar"]) == ([], "")


def test_what_the_image_brings_belongs_to_root_and_cannot_be_written(box: Box) -> None:
    places = f"{EXTENSION} /usr/local/bin /etc/bash_completion.d/gunpowder /opt/code-server/out/node/routes"
    assert box.run(f"find -L {places} \\( ! -user root -o -writable -o -perm /022 \\) -print") == ""
    assert int(box.run(f"find {EXTENSION} -type f | wc -l")) >= 6


def test_the_page_loads_the_tabs_script_before_the_editor(box: Box) -> None:
    page = box.get("/").text
    assert 0 < page.index('<script src="_gunpowder/tab.js">') < page.index("/workbench.js")

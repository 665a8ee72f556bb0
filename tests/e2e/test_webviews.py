"""Pages inside the editor's page live with the headers that come through: a preview of Markdown, and of a picture."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.e2e.workbench import log_in, undisturbed, wait_for_workbench
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.e2e.stack import Person, Stack

pytestmark = [
    pytest.mark.stack,
    pytest.mark.xdist_group("stack"),
    pytest.mark.patient(420, "opens a real editor in a real browser"),
]
WIDTH = 37  # a width that nothing else on the page has


def picture() -> bytes:
    """A PNG of one colour, `WIDTH` pixels square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", WIDTH, WIDTH, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x20\x80\xc0" * WIDTH) * WIDTH
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def shown(page: Page) -> list[int]:
    """The widths of all pictures in all frames, as far as they are loaded."""
    found = list[int]()
    for frame in page.frames:
        found += frame.evaluate("[...document.images].map(image => image.complete ? image.naturalWidth : 0)")
    return found


def text_of_frames(page: Page) -> str:
    return "\n".join(str(frame.evaluate("document.body ? document.body.innerText : ''")) for frame in page.frames[1:])


def close_tab(page: Page) -> None:
    page.locator(".tab.active .codicon-close").first.click()
    page.locator(".tab").first.wait_for(state="detached")


def open_until(page: Page, name: str, shows: Callable[[], bool]) -> None:
    """Open a file from the list, again where a window that is just drawn does not know yet what can show it."""

    def attempt() -> bool:
        page.locator(".explorer-folders-view .monaco-list-row").filter(has_text=name).first.dblclick()
        page.locator(f'.tab[data-resource-name="{name}"]').first.wait_for()
        try:
            return eventually("", shows, within=10)
        except AssertionError:
            close_tab(page)
            return False

    eventually(f"{name} is shown", attempt, within=90)


def test_previews_show_markdown_and_pictures(stack: Stack, alice: Person, page: Page) -> None:
    encoded = base64.b64encode(picture()).decode()
    alice.shell(f"echo {encoded} | base64 -d > ~/workspace/dot.png")
    alice.shell("printf '# Seen\\n\\n![](dot.png)\\n' > ~/workspace/seen.md")
    log_in(page, alice)
    with undisturbed(stack):
        page.goto(f"{stack.url}{alice.path}?folder=/home/coder/workspace")
        wait_for_workbench(page)

    open_until(page, "dot.png", lambda: WIDTH in shown(page))
    close_tab(page)
    eventually("no picture is left", lambda: WIDTH not in shown(page), within=30)

    preview = page.locator('.editor-actions [aria-label*="Open Preview"]').first
    open_until(page, "seen.md", preview.is_visible)
    preview.click()
    eventually("the preview shows its heading", lambda: "Seen" in text_of_frames(page), within=60)
    eventually("the preview draws its picture", lambda: WIDTH in shown(page), within=60)

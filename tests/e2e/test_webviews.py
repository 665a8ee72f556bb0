"""Pages inside the editor's page live with the headers that come through: a preview of Markdown, and of a picture."""

from __future__ import annotations

import base64
import contextlib
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Error, expect

from tests.e2e.workbench import log_in, undisturbed, wait_for_workbench
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import Frame, Page

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


def asked(frames: Sequence[Frame], script: str) -> list[Any]:
    """What each frame answers. One that is loading another page at that moment has no answer yet."""
    found = []
    for frame in frames:
        with contextlib.suppress(Error):
            found.append(frame.evaluate(script))
    return found


def shown(page: Page) -> list[int]:
    """The widths of all pictures in all frames, as far as they are loaded."""
    widths = asked(page.frames, "[...document.images].map(image => image.complete ? image.naturalWidth : 0)")
    return [width for each in widths for width in each]


def text_of_frames(page: Page) -> str:
    return "\n".join(asked(page.frames[1:], "document.body ? document.body.innerText : ''"))


def open_from_list(page: Page, name: str) -> None:
    page.locator(".explorer-folders-view .monaco-list-row").filter(has_text=name).first.dblclick()
    page.locator(f'.tab[data-resource-name="{name}"]').first.wait_for()


def test_previews_show_markdown_and_pictures(stack: Stack, alice: Person, page: Page) -> None:
    encoded = base64.b64encode(picture()).decode()
    alice.shell(f"echo {encoded} | base64 -d > ~/workspace/dot.png")
    alice.shell("printf '# Seen\\n\\n![](dot.png)\\n' > ~/workspace/seen.md")
    log_in(page, alice)
    with undisturbed(stack):
        page.goto(f"{stack.url}{alice.path}?folder=/home/coder/workspace")
        wait_for_workbench(page)

    open_from_list(page, "seen.md")
    page.locator(".editor-actions .codicon-open-preview").first.click()  # there once extensions are known
    eventually("the preview shows its heading", lambda: "Seen" in text_of_frames(page), within=60)
    eventually("the preview draws its picture", lambda: WIDTH in shown(page), within=60)

    open_from_list(page, "dot.png")
    expect(page.locator(".statusbar")).to_contain_text(f"{WIDTH}x{WIDTH}")

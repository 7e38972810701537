"""The keyboard in the page's panels, in a headless Chromium without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, FLAGS, playwright_or_skip

ASSETS = Path(__file__).resolve().parent.parent / "demo" / "chat" / "assets"
BEGIN = """async () => {
    const { Panels } = await import("/panels.js");
    window.panels = new Panels(() => {});
    window.note = (id) => panels.note([{ id, kind: "note",
        html: `<article id="entry-${id}"><button class="moment">${id}</button></article>` }]);
    for (const id of [1, 2, 3]) note(id);
}"""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def asset(route: Any) -> None:
    """What the page asks for, from the folder of assets; the page itself is the notes between two fields."""
    name = route.request.url.rpartition("/")[2]
    if name:
        route.fulfill(body=(ASSETS / name).read_text(encoding="utf-8"), content_type="text/javascript")
    else:
        notes = (ASSETS / "notes.html").read_text(encoding="utf-8")
        watches = (ASSETS / "watches.html").read_text(encoding="utf-8")
        route.fulfill(body=f"{watches}{notes}<input id='after'>", content_type="text/html")


def test_notes_are_one_tab_stop_and_arrows_lead_through_them() -> None:
    with playwright_or_skip()() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page()
        page.route("**/*", asset)
        page.goto("http://chat.test/")
        page.evaluate(BEGIN)
        focused = "document.activeElement.textContent || document.activeElement.id"
        seen = []
        page.focus("#notes-find")
        for key in ("Tab", "ArrowUp", "ArrowDown", "ArrowDown", "ArrowDown"):
            page.keyboard.press(key)
            seen.append(page.evaluate(focused))
        assert seen == ["1", "1", "2", "3", "3"]
        page.evaluate("note(4)")
        assert page.evaluate(focused) == "3"  # a new note takes the focus from nobody
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "after"
        page.keyboard.press("Shift+Tab")
        assert page.evaluate(focused) == "3"  # where it was left
        browser.close()

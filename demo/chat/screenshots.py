"""Screenshots of the chat for the README: `python -m streamvlm.demo.chat.screenshots http://127.0.0.1:7860/ docs/`.

Drives an installed Chromium through playwright (`make test-browser` installs both) against a chat that is running.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
QUESTIONS = ("how many objects are there?", "is there a sign?")
PATIENCE = 40_000  # milliseconds


def shoot(page: Any, to: Path) -> None:  # noqa: ANN401
    """One picture of what is in view, as WebP."""
    image = Image.open(io.BytesIO(page.screenshot()))
    image.convert("RGB").save(to, "WEBP", quality=80, method=6)
    print(f"{to}: {to.stat().st_size // 1024} KB")


def talk(page: Any, url: str) -> None:  # noqa: ANN401
    """A short visit: StreamWorld, a thing to wait for, two questions."""
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.wait_for_function("window.streamvlm?.link.ready")
    page.click('[data-start="StreamWorld"]')
    page.wait_for_function("streamvlm.stage.state.now > 4")
    page.fill("#condition textarea, #condition input", "there is a sign")
    page.click("#watch-add")
    for number, question in enumerate(QUESTIONS, start=1):
        page.fill("#question textarea", question)
        page.click("#ask")
        page.wait_for_function(f"document.querySelectorAll('.entry.question .moment img').length >= {number}")
    page.wait_for_function("[...document.querySelectorAll('.entry.question .moment img')].at(-1).naturalWidth > 0")


def main() -> None:
    """Desktop, dark and phone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        desktop = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        talk(desktop, arguments.url)
        shoot(desktop, arguments.out / "chat.webp")
        desktop.goto(f"{arguments.url}?__theme=dark")
        desktop.wait_for_selector(".entry.question .moment img")
        desktop.wait_for_selector("#stage #view[src]")
        desktop.get_by_role("tab", name="Instruments").click()
        desktop.wait_for_selector("#plots figure")
        shoot(desktop, arguments.out / "chat-dark.webp")
        phone = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True).new_page()
        talk(phone, arguments.url)
        shoot(phone, arguments.out / "chat-phone.webp")
        browser.close()


if __name__ == "__main__":
    main()

"""The browser of the tests: Chromium, driven by playwright."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


def playwright_or_skip() -> Any:
    """playwright's entry; where something is missing the test is skipped, except where it was asked for by name."""
    if os.environ.get("STREAMVLM_BROWSER") != "required":
        if CHROMIUM is None:
            pytest.skip("no Chromium is installed: make test-browser")
        pytest.importorskip("playwright", reason="playwright is not installed: make test-browser")
    from playwright.sync_api import sync_playwright

    return sync_playwright

"""Headless Chromium for tests: which it is, and how to open it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@contextmanager
def open_page() -> Iterator[Any]:
    """Open an empty page that can reach nothing; what fails in it fails the test."""
    from playwright.sync_api import sync_playwright

    errors = []
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.set_default_timeout(60_000)
        page.route("**/*", lambda route: route.abort())
        page.on("pageerror", lambda error: errors.append(error))
        yield page
        browser.close()
    assert not errors

"""`colobench app`: one command; nothing is left after Ctrl-C, or a page that was closed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

import share
from browser import CHROMIUM, needs_chromium

pytestmark = [*needs_chromium, pytest.mark.timeout(600)]


@pytest.fixture
def app() -> Iterator[tuple[Any, str]]:
    """Start the app; gives its process, and the URL that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "colobench", "app"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found
    yield process, found[0]
    if process.poll() is None:
        process.terminate()
    process.wait(60)
    process.stdout.close()


def family(process: Any) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def nodes(process: Any) -> list[psutil.Process]:
    return [each for each in family(process) if "colobench.node" in command_line(each)]


def command_line(process: psutil.Process) -> list[str]:
    """Give a process's command line; nothing of one that has ended just now."""
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


@pytest.fixture
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.set_default_timeout(180_000)
        yield page
        browser.close()


def start_a_pair(page: Any, url: str) -> None:
    page.goto(url)
    page.get_by_label("run for").select_option("10 minutes")
    page.locator(".colobench-panel button", has_text="Start").click()
    page.get_by_text(": protected").first.wait_for()


def test_ctrl_c_ends_server_kernel_and_pair_with_one_sentence(
    app: tuple[Any, str], page: Any
) -> None:
    process, url = app
    start_a_pair(page, url)
    left = family(process)
    assert len(nodes(process)) == 2
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    assert "ending the server" in process.stdout.read()
    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == []


@pytest.mark.skipif(not share.LONG, reason="takes a minute; COLOBENCH_LONG=1 does it")
def test_a_closed_page_ends_its_pair_and_its_kernel(app: tuple[Any, str], page: Any) -> None:
    process, url = app
    start_a_pair(page, url)
    pair = nodes(process)
    page.close(run_before_unload=False)
    _, alive = psutil.wait_procs(pair, timeout=300)
    assert alive == []
    kernels = [each for each in family(process) if "ipykernel_launcher" in str(command_line(each))]
    _, alive = psutil.wait_procs(kernels, timeout=300)
    assert alive == []
    assert process.poll() is None
